"""All of edgeml that an NVIDIA GPU can prove: one command, no network, under ten minutes, one JSON.

    python benchmarks/gpu_check.py [--minutes 9] [--only STEP ...] [--out FILE] [--work DIR]

Each step of gpu_steps.py runs in a process of its own, which may crash, hang or run out of memory
without taking the others with it; what it had noted until then is kept. What is absent, a GPU or a
library, makes a step be skipped, with the reason. The exit status is 1 if a step failed.

Needs Python 3.11 and numpy; edgeml need not be installed. The JSON goes to
benchmarks/results/<the GPU>/gpu_check.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = "edgeml.gpu_check/1"

Status = Literal["passed", "failed", "skipped", "crashed", "timed out", "not reached"]

BAD: frozenset[Status] = frozenset({"failed", "crashed", "timed out"})

STEPS: dict[str, float] = {
    "machine": 60,
    "cuda": 60,
    "torch": 90,
    "train": 180,
    "models": 120,
    "ort-cuda": 120,
    "ort-graphs": 60,
    "ort-plugins": 60,
    "trt-rtx-build": 90,
    "trt-rtx-current": 90,
    "trt-rtx-run": 90,
    "trt-build": 240,
    "trt-run": 90,
    "trt-cache": 120,
}
"""In their order, with the most seconds of each; later ones use what earlier ones made."""

_LEAST_S = 5.0
"""With less time left than this a step is not begun."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a step.

    Attributes:
        step: Its name.
        status: `passed`, or why not.
        seconds: How long its process lived.
        reason: In a sentence, unless it passed.
        checks: What had to hold, and whether it did.
        figures: What was measured.
    """

    step: str
    status: Status
    seconds: float = 0.0
    reason: str | None = None
    checks: Mapping[str, bool] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)


def run_all(
    steps: Mapping[str, float], work: Path, *, seconds: float, command: Sequence[str] | None = None
) -> list[Outcome]:
    """Run steps one after the other until the time is spent.

    Args:
        steps: Names with the most seconds of each.
        work: A folder that the steps share.
        seconds: For all of them.
        command: What runs a step, given its name and the folder; this script, if None.
    """
    end = time.monotonic() + seconds
    outcomes = []
    for step, most in steps.items():
        left = end - time.monotonic()
        if left < _LEAST_S:
            outcomes.append(Outcome(step=step, status="not reached", reason="the time was spent"))
        else:
            outcomes.append(run_step(step, work, seconds=min(most, left), command=command))
        print(line(outcomes[-1]), flush=True)
    return outcomes


def run_step(
    step: str, work: Path, *, seconds: float, command: Sequence[str] | None = None
) -> Outcome:
    """Run one step in a process of its own, and end the process when its time is over."""
    notes = work / f"{step}.notes.json"
    notes.unlink(missing_ok=True)
    command = command or [sys.executable, str(Path(__file__).resolve()), "--step"]
    paths = [str(ROOT), str(ROOT / "export"), os.environ.get("PYTHONPATH", "")]
    begin = time.monotonic()
    process = subprocess.Popen(
        [*command, step, "--work", str(work)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        _, output = process.communicate(timeout=seconds)
        late = False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its children too
        _, output = process.communicate()
        late = True
    spent = round(time.monotonic() - begin, 2)
    noted = _read(notes)
    outcome = Outcome(
        step=step,
        status=noted.get("status") or "crashed",
        seconds=spent,
        reason=noted.get("reason"),
        checks=noted.get("checks", {}),
        figures=noted.get("figures", {}),
    )
    if late:
        return _but(outcome, "timed out", f"not done after {seconds:.0f} s")
    if noted.get("status") is None:
        last = output.strip().rpartition("\n")[2]
        return _but(outcome, "crashed", f"{_ending(process.returncode)}: {last or 'no message'}")
    if outcome.status == "passed" and not all(outcome.checks.values()):
        untrue = [name for name, held in outcome.checks.items() if not held]
        return _but(outcome, "failed", f"does not hold: {'; '.join(untrue)}")
    return outcome


def line(outcome: Outcome) -> str:
    """Tell an outcome in a line."""
    text = f"{outcome.status:>11}  {outcome.step:<15} {outcome.seconds:6.1f} s"
    return f"{text}  {outcome.reason}" if outcome.reason else text


def document(outcomes: Sequence[Outcome], *, seconds: float) -> dict[str, Any]:
    """Put together the JSON that is written."""
    return {
        "schema": SCHEMA,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
        "seconds": round(seconds, 1),
        "summary": dict(Counter(outcome.status for outcome in outcomes)),
        "steps": [asdict(outcome) for outcome in outcomes],
    }


def place_of(outcomes: Sequence[Outcome]) -> Path:
    """Name the file after the first GPU that was found, or after there being none."""
    machine = next((o.figures for o in outcomes if o.step == "machine"), {})
    gpus, smi = machine.get("gpus") or [], machine.get("nvidia_smi") or []
    name = gpus[0]["name"] if gpus else smi[0].partition(",")[0] if smi else "no GPU"
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return ROOT / "benchmarks" / "results" / slug / "gpu_check.json"


def _but(outcome: Outcome, status: Status, reason: str) -> Outcome:
    return Outcome(**{**asdict(outcome), "status": status, "reason": reason})


def _ending(code: int) -> str:
    if code < 0:
        return f"it was ended by {signal.Signals(-code).name}"
    return f"it ended with status {code}"


def _read(notes: Path) -> dict[str, Any]:
    try:
        report = json.loads(notes.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return report if isinstance(report, dict) else {}


def _commit() -> str | None:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--only", nargs="+", choices=list(STEPS), metavar="STEP")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--work", type=Path, help="keeps what the steps make")
    parser.add_argument("--step", choices=list(STEPS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        from benchmarks.gpu_steps import run

        run(options.step, options.work)
        return
    begin = time.monotonic()
    steps = {name: most for name, most in STEPS.items() if name in (options.only or STEPS)}
    with tempfile.TemporaryDirectory(prefix="edgeml-gpu-") as scratch:
        work = options.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        outcomes = run_all(steps, work, seconds=60 * options.minutes)
    out = options.out or place_of(outcomes)
    report = document(outcomes, seconds=time.monotonic() - begin)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    partial.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, out)
    print(f"{out}: {report['summary']} in {report['seconds']:.0f} s")
    sys.exit(any(outcome.status in BAD for outcome in outcomes))


if __name__ == "__main__":
    main()

"""`python -m edgeml.benchmark.worker`: a process that loads one model and times it when told to.

It reads commands and writes answers, one JSON object a line: `open`, `warm_up`, `block` (as often
as wanted), `finish`. An error is an answer too. It ends when its input does, in the midst of a call
if need be, so it cannot outlive the process that started it.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2

from edgeml.benchmark.environment import Counters, peak_rss_mb, read_counters
from edgeml.benchmark.plan import BenchPlan
from edgeml.benchmark.stages import time_block, time_call, turns, warm_up
from edgeml.errors import EdgemlError
from edgeml.predict.predictor import Predictor

Message = dict[str, Any]


class Session:
    """One model, from opening it to the last block."""

    def __init__(self, model: Path, images: list[Path], plan: BenchPlan) -> None:
        """Open the model and make the first call; both are timed once, as nothing repeats them."""
        if plan.threads:
            cv2.setNumThreads(plan.threads)
        start = perf_counter()
        self.predictor = Predictor(
            model,
            runtime=plan.runtime,
            device=plan.device,
            threads=plan.threads,
            precision=plan.precision,
        )
        self.load_ms = 1e3 * (perf_counter() - start)
        self.first_ms = time_call(self.predictor, images[0]) / 1e6
        self.images, self.plan, self.turns = images, plan, turns(images)

    def opened(self) -> Message:
        """Say what was opened, and how long that took."""
        runtime = self.predictor.runtime
        return {
            "load_ms": self.load_ms,
            "first_ms": self.first_ms,
            "runtime": runtime.name,
            "precision_actual": runtime.metadata.get("precision", "unknown"),
            "spec": self.predictor.spec.to_json(),
            "opencv_threads": cv2.getNumThreads(),
        }

    def warm_up(self) -> Message:
        """Make the calls that do not count."""
        return asdict(warm_up(self.predictor, self.images, self.plan))

    def block(self) -> Message:
        """Time one turn of this model, and what disturbed it meanwhile."""
        before, start = asdict(read_counters()), perf_counter()
        latencies = time_block(self.predictor, self.turns, self.plan.block_s)
        seconds, after = perf_counter() - start, asdict(read_counters())
        differences = {
            name: None if value is None else after[name] - value for name, value in before.items()
        }
        return {
            "samples_ns": latencies,
            "seconds": seconds,
            "counters": asdict(Counters(**differences)),
        }

    def finish(self) -> Message:
        """Free the model and tell the peak of memory."""
        peak = peak_rss_mb()
        self.predictor.close()
        return {"peak_rss_mb": peak}


def main() -> None:
    """Serve commands until there are no more."""
    # Ctrl-C goes to every process of a terminal; the parent decides what it means for us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Libraries print to stdout as they like; what they print must not end up between answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    commands: queue.SimpleQueue[Message] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(commands,), daemon=True).start()
    session: Session | None = None
    while True:
        command = commands.get()
        try:
            if command["do"] == "open":
                images = [Path(image) for image in command["images"]]
                session = Session(Path(command["model"]), images, BenchPlan(**command["plan"]))
            assert session, "a parent opens a model before anything else"
            steps: dict[str, Callable[[], Message]] = {
                "open": session.opened,
                "warm_up": session.warm_up,
                "block": session.block,
                "finish": session.finish,
            }
            answer = steps[command["do"]]()
        except EdgemlError as err:
            answer = {"error": {"kind": type(err).__name__, "message": str(err)}}
        except Exception as err:
            message = f"{type(err).__name__}: {err}"
            answer = {"error": {"kind": None, "message": " ".join(message.split())}}
        print(json.dumps(answer), file=answers, flush=True)


def _receive(commands: queue.SimpleQueue[Message]) -> None:
    """Pass on commands; at the end of input end the process, whatever the model is doing."""
    for line in sys.stdin:
        commands.put(json.loads(line))
    os._exit(0)


if __name__ == "__main__":
    main()

"""What the steps of gpu_check.py have in common: what they note, run on, and compare by."""

from __future__ import annotations

import json
import math
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

DEVICE = "cuda"

IMAGES, SIZE, EPOCHS = 1500, 96, 12
"""What the small network is trained on: drawn pictures, of which so many give the figures."""

COMMON, COMMON_SIZE = "resnet18", 224

PICTURES = 60

CALLS = 60
"""Of each of 8 threads."""

BATCHES = (1, 3, 8)

FILES = {
    (net, precision): f"{net}.{precision}.onnx"
    for net in ("cnn", "resnet18")
    for precision in ("fp32", "fp16", "int8")
}
"""What the step `models` leaves: a small network that has learnt, and a common one that has not."""

TOLERANCE = {"fp32": 1e-3, "fp16": 3e-2, "int8": 0.3}
"""The largest difference of logits, as a share of the largest, to the same file on the CPU."""

FLIPS = {"fp32": 0.0, "fp16": 10.0, "int8": 40.0}
"""The most decisions in a thousand that may differ from the same file on the CPU."""


class SkippedError(Exception):
    """The step lacks something; its message says what."""


class Notes:
    """What a step finds out, on disk as soon as it is known: its process may crash."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._told: dict[str, Any] = {"status": None, "reason": None, "checks": {}, "figures": {}}

    def figure(self, name: str, value: Any) -> None:
        """Note what was measured; JSON has no number for NaN."""
        odd = isinstance(value, float) and not math.isfinite(value)
        self._told["figures"][name] = str(value) if odd else value
        self._save()

    def must(self, what: str, holds: bool) -> None:
        """Note what has to hold, and whether it does."""
        self._told["checks"][what] = bool(holds)
        self._save()

    def end(self, status: str, reason: str | None = None) -> None:
        """Note how it ended; a step that ends without is one that crashed."""
        self._told |= {"status": status, "reason": reason}
        self._save()

    def _save(self) -> None:
        beside = self._path.with_suffix(".partial")
        beside.write_text(json.dumps(self._told, default=str), encoding="utf-8")
        os.replace(beside, self._path)


def require_gpu() -> None:
    """Skip a step where the driver shows no GPU.

    Raises:
        SkippedError: Says what the doctor says of the driver.
    """
    from edgeml.doctor.gpu import examine, query_driver

    driver = query_driver()
    if not driver.gpus:
        found = next(f for f in examine(driver) if f.name == "cuda driver")
        raise SkippedError(f"no NVIDIA GPU can be used: {found.detail}")


def agree(
    notes: Notes,
    name: str,
    precision: str,
    reference: Any,
    runtime: Any,
    batch: Any,
    *,
    told_only: bool = False,
) -> None:
    """Compare with the same file on the CPU: logits, and decisions where a network has learnt."""
    import numpy as np

    expected, got = reference.runtime.run(batch), runtime.run(batch)
    off = float(np.abs(got - expected).max() / np.abs(expected).max())
    flips = flips_per_1000(reference, expected, got)
    notes.figure(f"{name}_difference", off)
    notes.figure(f"{name}_flips_per_1000", flips)
    if told_only:
        return
    notes.must(f"{name}: logits within {TOLERANCE[precision]:g}", off <= TOLERANCE[precision])
    if name.startswith("cnn"):
        most = FLIPS[precision]
        notes.must(f"{name}: at most {most:g} of 1000 decisions differ", flips <= most)


def in_threads(notes: Notes, name: str, runtime: Any, batch: Any) -> None:
    """Let 8 threads call 60 times each; compare with the results of one thread."""
    import numpy as np

    singles = [batch[row : row + 1] for row in range(len(batch))]
    alone = [runtime.run(single) for single in singles]
    bound = 1e-3 * float(np.abs(np.concatenate(alone)).max())

    def wrong(thread: int) -> int:
        rows = [(thread * 7 + call) % len(singles) for call in range(CALLS)]
        return sum(float(np.abs(runtime.run(singles[r]) - alone[r]).max()) > bound for r in rows)

    with ThreadPoolExecutor(8) as pool:
        count = sum(pool.map(wrong, range(8)))
    notes.must(f"{name}: 8 threads, {CALLS} calls each, none wrong", count == 0)


def time_batches(notes: Notes, name: str, runtime: Any, batch: Any) -> None:
    for count in (1, 8):
        given = batch[:count]
        notes.figure(f"{name}_batch{count}_ms", latency(partial(runtime.run, given)))


def made_files(work: Path) -> list[tuple[str, str, Path]]:
    """List the files that the step `models` left.

    Raises:
        SkippedError: None.
    """
    there = [(net, kind, work / name) for (net, kind), name in FILES.items()]
    there = [one for one in there if one[2].exists()]
    if not there:
        raise SkippedError("the step 'models' left no file")
    return there


def drawn(work: Path) -> Path:
    from edgeml.data.synth.draw import synthesize

    folder = work / "apparel"
    if not folder.exists():
        synthesize(folder, images=IMAGES, size=128, seed=7)
    return folder


def pictures(predictor: Any, work: Path) -> Any:
    """Prepare pictures as the model takes them: (60, 3, H, W)."""
    paths = sorted(drawn(work).glob("*/*"))
    step = max(len(paths) // PICTURES, 1)
    return predictor.prepare([predictor.read(path) for path in paths[::step][:PICTURES]])


def flips_per_1000(predictor: Any, expected: Any, got: Any) -> float:
    from edgeml.spec.decide import decide

    before, after = (
        decide(predictor.probabilities(logits), predictor.spec) for logits in (expected, got)
    )
    return 1000 * float((before != after).mean())


def latency(call: Callable[[], object], *, seconds: float = 1.0) -> dict[str, float]:
    """Time calls one by one, after a tenth of a second that does not count: milliseconds."""
    samples: list[float] = []
    begin = time.perf_counter()
    while len(samples) < 10 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        call()
        samples.append(1e3 * (time.perf_counter() - start))
    counted = samples[max(len(samples) // 10, 3) :]
    quantiles = statistics.quantiles(counted, n=20, method="inclusive")
    return {"calls": len(counted), "p50": round(quantiles[9], 4), "p95": round(quantiles[18], 4)}


def no_tf32() -> None:
    with suppress(ImportError):
        import torch

        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False


def free_memory() -> int:
    """Ask CUDA how many bytes of the GPU are free."""
    from edgeml.runtimes.tensorrt import cuda

    cudart = cuda.bindings()
    free, _ = cuda.checked(cudart, cudart.cudaMemGetInfo())
    return int(free)


def line(err: BaseException) -> str:
    return " ".join(str(err).split())

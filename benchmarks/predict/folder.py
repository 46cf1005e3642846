"""A folder of JPEGs: edgeml beside decode and network alone, run flat out on all cores.

    python benchmarks/predict/folder.py floor|edgeml MODEL LIST

is one process of either: it says that it is ready, starts at a line on its input, and says when it
is done. The floor is one process a core; each decodes its share of the files at the smallest
admissible DCT scale and runs the network with one thread on an array that is ready.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path


def floor(model: Path, files: Sequence[Path]) -> Callable[[], None]:
    """Decode and run, nothing else."""
    import cv2
    import numpy as np
    from usual import bare_ort, input_size, reduced

    cv2.setNumThreads(1)
    run, size = bare_ort(model, 1), input_size(model)
    flags = reduced(cv2.imread(str(files[0])).shape[:2], size)
    ready = np.zeros((1, 3, *size), np.float32)
    run(ready)

    def work() -> None:
        for file in files:
            cv2.imread(str(file), flags)
            run(ready)

    return work


def edgeml(model: Path, files: Sequence[Path]) -> Callable[[], None]:
    """Do what `edgeml predict MODEL FOLDER --jsonl FILE` does."""
    from edgeml import Predictor
    from edgeml.predict.many_files import Outputs, classify, list_files

    predictor = Predictor(model, mode="throughput")
    predictor.predict(files[0])

    def work() -> None:
        with tempfile.TemporaryDirectory() as scratch:
            outputs = Outputs(jsonl=Path(scratch) / "out.jsonl")
            tally = classify(predictor, list_files([files[0].parent]), outputs)
        assert (tally.images, tally.failed) == (len(files), 0)

    return work


def measure(model: Path, files: Sequence[Path], rounds: int) -> dict[str, list[float]]:
    """Let both take turns on all files; gives pictures a second for each round."""
    lot, found = random.Random(0), {"edgeml": [], "floor": []}  # type: ignore[var-annotated]
    for file in files:
        file.read_bytes()  # into the page cache: no disk is measured
    for _ in range(rounds):
        for who in lot.sample(sorted(found), 2):
            time.sleep(0.5)
            found[who].append(len(files) / _seconds(who, model, files))
    return found


def _seconds(who: str, model: Path, files: Sequence[Path]) -> float:
    """Give the time from the start sign until all processes are done."""
    from material import child_environment

    cores = len(os.sched_getaffinity(0))
    shares = [files[i::cores] for i in range(cores)] if who == "floor" else [files]
    children = [
        subprocess.Popen(
            [sys.executable, __file__, who, str(model)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=child_environment(1 if who == "floor" else cores),
        )
        for _ in shares
    ]
    try:
        for child, share in zip(children, shares, strict=True):
            _say(child, json.dumps([str(file) for file in share]))
        for child in children:
            _hear(child)
        start = time.perf_counter()
        for child in children:
            _say(child, "go")
        for child in children:
            _hear(child)
        return time.perf_counter() - start
    finally:
        for child in children:
            child.kill()
            child.communicate()


def _say(child: subprocess.Popen[str], text: str) -> None:
    assert child.stdin
    print(text, file=child.stdin, flush=True)


def _hear(child: subprocess.Popen[str]) -> None:
    assert child.stdout
    if not child.stdout.readline():
        raise SystemExit("A process of the folder's row died; its error stands above.")


def main() -> None:
    who, model = sys.argv[1:]
    files = [Path(file) for file in json.loads(sys.stdin.readline())]
    work = {"floor": floor, "edgeml": edgeml}[who](Path(model), files)
    print("ready", flush=True)
    sys.stdin.readline()
    work()
    print("done", flush=True)


if __name__ == "__main__":
    main()

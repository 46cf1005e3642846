"""Run one quantised file and its FP32 source on one runtime; peers.py calls this.

    python benchmarks/quantization/measure.py RUNTIME FP32 FILE OUT.npz --inputs A.npy [B.npy ...]

A process of its own: OpenVINO crashes on some quantised networks of other tools. OUT.npz gets
the logits of both and, in `speed`, the figures of `edgeml.benchmark.speedup` as JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeml.benchmark.speedup import speedup
from edgeml.runtimes import Runtime, RuntimeOptions, open_runtime

BATCH = 32


def logits(runtime: Runtime, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    parts = [
        runtime.run(np.ascontiguousarray(inputs[start : start + BATCH]))
        for start in range(0, len(inputs), BATCH)
    ]
    return np.concatenate(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runtime", choices=("onnxruntime", "openvino"))
    parser.add_argument("fp32", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--inputs", type=Path, nargs="+", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=6.0)
    options = parser.parse_args()
    slow, fast = (
        open_runtime(path, RuntimeOptions(runtime=options.runtime, threads=options.threads))
        for path in (options.fp32, options.file)
    )
    arrays = {}
    for number, path in enumerate(options.inputs):
        inputs = np.load(path, mmap_mode="r")
        arrays[f"fp32_{number}"] = logits(slow, inputs)
        arrays[f"int8_{number}"] = logits(fast, inputs)
    image = np.ascontiguousarray(np.load(options.inputs[0], mmap_mode="r")[:1])
    speed = speedup(slow, fast, image, seconds=options.seconds)
    figures = {**speed.to_dict(), "precision_actual": fast.metadata.get("precision", "unknown")}
    np.savez(options.out, speed=np.array(json.dumps(figures)), **arrays)


if __name__ == "__main__":
    main()

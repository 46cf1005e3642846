"""How fast INT8 is compared with FP32, on ONNX Runtime and on OpenVINO, on this machine.

    python benchmarks/quantization/speed.py [--seconds 6] [--repeats 3] [--json FILE]

Batch 1, 224 px, two threads; OpenVINO's FP32 computes in f32, not in the bfloat16 it prefers. Both
precisions take turns in one process, `edgeml.benchmark.speedup`; all repeats are shown.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal

import numpy as np
from common import OUT, REAL, calibration, fp32, inputs_of, machine, spec_of, write_json
from ours import int8

from edgeml.benchmark.speedup import Speedup, speedup
from edgeml.runtimes import RuntimeOptions, open_runtime

Engine = Literal["onnxruntime", "openvino"]

BARS: dict[tuple[str, Engine], float | None] = {
    ("resnet18", "onnxruntime"): 2.7,
    ("mobilenetv4_conv_small", "onnxruntime"): 1.7,
    ("vit_tiny_patch16_224", "onnxruntime"): 1.4,
    ("mobilenetv3_small_100", "onnxruntime"): None,
    (REAL, "onnxruntime"): None,
    ("resnet18", "openvino"): 3.3,
    ("vit_tiny_patch16_224", "openvino"): 2.0,
    ("mobilenetv4_conv_small", "openvino"): None,
    ("mobilenetv3_small_100", "openvino"): None,
    (REAL, "openvino"): None,
}
"""The required ratio; None: shown only."""


def measure(
    name: str, engine: Engine, *, repeats: int, seconds: float, threads: int
) -> list[Speedup]:
    """Quantise one network with the current code, and time it in both precisions."""
    source = fp32(name)
    suffix = ".xml" if engine == "openvino" else ".onnx"
    quantized = OUT / "speed" / f"{source.stem}.int8{suffix}"
    quantized.parent.mkdir(parents=True, exist_ok=True)
    int8(source, quantized, engine)
    image = np.ascontiguousarray(inputs_of(calibration().paths[:1], spec_of(source)))
    slow, fast = (
        open_runtime(path, RuntimeOptions(runtime=engine, threads=threads))
        for path in (source, quantized)
    )
    try:
        return [speedup(slow, fast, image, seconds=seconds) for _ in range(repeats)]
    finally:
        slow.close()
        fast.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    print("| network | runtime | FP32 ms | INT8 ms | times FP32's speed | required |")
    print("| --- " * 6 + "|")
    for (name, engine), bar in BARS.items():
        results = measure(
            name,
            engine,
            repeats=options.repeats,
            seconds=options.seconds,
            threads=options.threads,
        )
        result = sorted(results, key=lambda run: run.ratio)[(len(results) - 1) // 2]
        others = ", ".join(f"{run.ratio:.2f}" for run in results)
        required = "-" if bar is None else f"{bar} {'holds' if result.ratio >= bar else 'MISSED'}"
        print(
            f"| {name} | {engine} | {result.slow_ms:.2f} | {result.fast_ms:.2f} | "
            f"{result.ratio:.2f} ({result.low:.2f} to {result.high:.2f}; runs: {others}), "
            f"{result.verdict} | {required} |",
            flush=True,
        )
        rows.append(
            {
                "network": name,
                "runtime": engine,
                "bar": bar,
                "runs": [run.to_dict() for run in results],
            }
        )
    if options.json:
        write_json(options.json, {**machine(), "threads": options.threads, "rows": rows})


if __name__ == "__main__":
    main()

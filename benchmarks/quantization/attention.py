"""Measure what INT8 inside attention costs and gains a transformer in OpenVINO.

    edgeml data synth build/quantization/apparel --images 3000 --size 128 --seed 1
    edgeml train build/quantization/apparel --model vit_tiny_patch16_224 --model-args img_size=128 \
        --model-args depth=8 --size 128 --epochs 16 --lr 1e-3 --amp bf16 --threads 1 --ema 0.99 \
        --augment none --out build/quantization/vit
    python benchmarks/quantization/attention.py build/quantization/vit

The network is small but trained, since the effect of rounding on attention depends on what it
attends to. Both layouts use the ranges of the same 200 training images, by
minmax, and are judged on the test side.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from common import OUT, inputs_of, spec_of
from fidelity import squared_errors
from measure import logits

from edgeml.benchmark.speedup import speedup
from edgeml.data import read_dataset
from edgeml.measure.metrics import evaluate
from edgeml.runtimes import RuntimeOptions, open_runtime
from edgeml.spec.decide import decide, probabilities
from edgeml_export.int8.budget import divergence
from edgeml_export.int8.calibration import choose_calibration
from edgeml_export.int8.ranges import measure_ranges
from edgeml_export.int8.targets import RECIPES
from edgeml_export.int8.to_int8 import int8_from_onnx
from edgeml_export.to_onnx import onnx_from_checkpoint
from edgeml_export.to_openvino import openvino_from_onnx


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    folder = OUT / "attention"
    folder.mkdir(parents=True, exist_ok=True)
    source = onnx_from_checkpoint(options.run, folder / "fp32.onnx")
    spec, data = spec_of(source), read_dataset(options.run / "split.csv")
    train, test = data.part("train"), data.part("test")
    ranges = measure_ranges(source, choose_calibration(train, data.labels, limit=200))
    inputs = inputs_of(test.paths, spec)
    fp32 = open_runtime(source, RuntimeOptions(runtime="openvino", threads=options.threads))
    expected = logits(fp32, inputs)
    known = probabilities(expected, spec)
    print(f"FP32: mAP {100 * evaluate(known, test.targets, spec).mAP:.2f} on {len(test)} images\n")
    print("| attention | RMS error | KL | mAP | flips per 1000 | times FP32's speed |")
    print("| --- " * 6 + "|")
    for name, attention in (("float", False), ("INT8", True)):
        RECIPES["openvino"] = replace(RECIPES["openvino"], attention=attention)
        written = int8_from_onnx(source, folder / f"{name}.onnx", ranges, layout="openvino")
        path = openvino_from_onnx(written, folder / f"{name}.xml")
        runtime = open_runtime(path, RuntimeOptions(runtime="openvino", threads=options.threads))
        got = logits(runtime, inputs)
        scores = probabilities(got, spec)
        flips = 1000 * (decide(known, spec) != decide(scores, spec)).mean()
        speed = speedup(fp32, runtime, inputs[:1].copy(), seconds=options.seconds)
        print(
            f"| {name} | {squared_errors(expected, got).mean() ** 0.5:.4f} | "
            f"{divergence(known, scores, spec):.6f} | "
            f"{100 * evaluate(scores, test.targets, spec).mAP:.2f} | {flips:.2f} | "
            f"{speed.ratio:.2f} ({speed.low:.2f} to {speed.high:.2f}) |",
            flush=True,
        )
        runtime.close()


if __name__ == "__main__":
    main()

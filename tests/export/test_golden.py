"""One network, the same pictures, every way to run it: what may differ, and why that much.

The reference is PyTorch. Differences are the root of their mean square over the spread of
the reference's logits, so that one table holds for every network:

    FP32  1e-5. Another order of summation: some units in the last of 24 bits a layer.
    FP16  CNN 0.01, MobileNetV2 0.03. 11 bits are 0.05 % a rounding; on a CPU both runtimes compute
          in FP32, so that only weights are rounded. Rounding MobileNetV2's folded weights in numpy
          gives 0.015: it is 52 layers deep, and folding spreads its weights over many scales.
    INT8  CNN 0.05: a step is 0.4 % of a tensor's range, of which most values use a fraction.
          MobileNetV2 0.25: depthwise layers have 9 weights a channel to spread an error over, and
          their ranges vary most. Measured: 0.10 by ONNX Runtime, 0.14 by NNCF.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn

from edgeml import ModelSpec, Predictor, Preprocess
from edgeml.data import Dataset, read_dataset
from edgeml.image.reading import read_image
from edgeml.network.checkpoint import load_checkpoint
from edgeml_export.int8.calibration import Calibration, choose_calibration
from edgeml_export.int8.ranges import measure_ranges
from edgeml_export.int8.to_int8 import int8_from_onnx
from edgeml_export.to_fp16 import fp16_from_onnx
from edgeml_export.to_onnx import onnx_from_module
from edgeml_export.to_openvino import openvino_from_onnx
from tests.machine import skip_without_vnni

pytestmark = [pytest.mark.train, pytest.mark.runtime]

Logits = NDArray[np.float32]


def every_way(
    module: nn.Module, spec: ModelSpec, calibration: Calibration, folder: Path
) -> dict[str, tuple[Path, str]]:
    """Write a network in every format and precision; give each file and a runtime for it."""
    network = onnx_from_module(module, spec, folder / "model.onnx")
    ranges = measure_ranges(network, calibration)
    for_openvino = int8_from_onnx(network, folder / "ov.onnx", ranges, layout="openvino")
    return {
        "fp32 onnx, onnxruntime": (network, "onnxruntime"),
        "fp32 onnx, openvino": (network, "openvino"),
        "fp32 xml": (openvino_from_onnx(network, folder / "model.xml"), "openvino"),
        "fp16 onnx": (fp16_from_onnx(network, folder / "half.onnx"), "onnxruntime"),
        "fp16 xml": (
            openvino_from_onnx(network, folder / "half.xml", fp16=True),
            "openvino",
        ),
        "int8 onnx": (int8_from_onnx(network, folder / "int.onnx", ranges), "onnxruntime"),
        "int8 xml": (openvino_from_onnx(for_openvino, folder / "int.xml"), "openvino"),
    }


def errors(
    ways: dict[str, tuple[Path, str]], reference: Logits, images: Dataset
) -> dict[str, float]:
    found = {}
    for name, (path, runtime) in ways.items():
        with Predictor(path, runtime=runtime) as predictor:
            logits = predictor.logits([predictor.read(image) for image in images.paths])
        found[name] = float(np.sqrt(np.mean((logits - reference) ** 2)) / reference.std())
    return found


def torch_logits(module: nn.Module, spec: ModelSpec, images: Dataset) -> Logits:
    frames = [read_image(path, at_least=spec.preprocess.size) for path in images.paths]
    with torch.inference_mode():
        logits: Logits = module(torch.from_numpy(spec.preprocess(frames))).numpy()
    return logits


def too_far(found: dict[str, float], *, fp16: float, int8: float) -> dict[str, float]:
    allowed = {"fp32": 1e-5, "fp16": fp16, "int8": int8}
    return {way: error for way, error in found.items() if error > allowed[way.split()[0]]}


def test_our_cnn_gives_the_same_logits_every_way(
    run: Path, data: Dataset, test_part: Dataset, tmp_path: Path
) -> None:
    module, spec = load_checkpoint(run)
    calibration = choose_calibration(data, data.labels, limit=100)
    ways = every_way(module, spec, calibration, tmp_path)
    found = errors(ways, torch_logits(module, spec, test_part), test_part)
    assert not too_far(found, fp16=0.01, int8=0.05)
    # Each precision is really another network: else a test of it would test nothing.
    assert min(found["fp16 onnx"], found["fp16 xml"]) > max(found["fp32 xml"], 1e-5)
    assert min(found["int8 onnx"], found["int8 xml"]) > found["fp16 onnx"]


def test_real_weights_give_the_same_logits_on_real_photos_every_way(
    mobilenet_weights: Path, clothing: Path, tmp_path: Path
) -> None:
    module = timm.create_model("mobilenetv2_100", pad_type="same")
    module.load_state_dict(load_file(mobilenet_weights))
    names = tuple(f"class {number}" for number in range(1000))
    spec = ModelSpec(labels=names, thresholds=(0.5,) * 1000, preprocess=Preprocess(size=(128, 128)))
    photos = read_dataset(clothing / "labels.csv")
    rows = np.random.default_rng(0).permutation(len(photos))
    calibration = choose_calibration(photos.select(rows[:32]), ())
    shown = photos.select(rows[32:64])
    ways = every_way(module.eval(), spec, calibration, tmp_path)
    int8_of_openvino = {"int8 xml": ways.pop("int8 xml")}
    reference = torch_logits(module, spec, shown)
    assert not too_far(errors(ways, reference, shown), fp16=0.03, int8=0.25)
    skip_without_vnni()
    assert not too_far(errors(int8_of_openvino, reference, shown), fp16=0.03, int8=0.25)


def test_raw_frames_are_one_more_way(run: Path, test_part: Dataset, tmp_path: Path) -> None:
    module, spec = load_checkpoint(run)
    raw = onnx_from_module(module, spec, tmp_path / "raw.onnx", input="uint8")
    ways = {
        "fp32 raw, onnxruntime": (raw, "onnxruntime"),
        "fp32 raw, openvino": (raw, "openvino"),
        "fp32 raw xml": (openvino_from_onnx(raw, tmp_path / "raw.xml"), "openvino"),
        "fp16 raw onnx": (fp16_from_onnx(raw, tmp_path / "half.onnx"), "onnxruntime"),
    }
    found = errors(ways, torch_logits(module, spec, test_part), test_part)
    assert not too_far(found, fp16=0.01, int8=0.0)
    with Predictor(raw, spec=replace(spec, input="uint8")) as predictor:
        assert predictor.runtime.input_shape == (None, 40, 40, 3)

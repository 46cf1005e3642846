"""Steps of gpu_check.py: train in PyTorch, and write the networks that other steps run."""

from __future__ import annotations

import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import gpu_common as common
from benchmarks.gpu_common import Notes


def torch_(notes: Notes, work: Path) -> None:
    """PyTorch alone, for figures to compare with: a ResNet-18 of random weights."""
    common.require_gpu()
    import timm
    import torch

    common.no_tf32()
    torch.manual_seed(0)
    module = timm.create_model(common.COMMON, num_classes=17).eval()
    batch = torch.randn(8, 3, common.COMMON_SIZE, common.COMMON_SIZE)
    with torch.inference_mode():
        expected = module(batch)
        module = module.to(common.DEVICE)
        off = float(
            (module(batch.to(common.DEVICE)).cpu() - expected).abs().max() / expected.abs().max()
        )
        notes.figure("fp32_difference", off)
        notes.must("FP32 on the GPU is FP32 on the CPU", off <= common.TOLERANCE["fp32"])
        for kind in (torch.float32, torch.float16, torch.bfloat16):
            net = module.to(kind, memory_format=torch.channels_last)
            for count in (1, 32):
                given = torch.randn(count, *batch.shape[1:], device=common.DEVICE, dtype=kind)
                name = f"{str(kind).removeprefix('torch.')}_batch{count}_ms"
                notes.figure(name, common.latency(partial(_synchronous, net, given)))


def train(notes: Notes, work: Path) -> None:
    """Train the small network in bfloat16 on drawn apparel, and run it on both devices."""
    common.require_gpu()
    import numpy as np

    from edgeml.data import read_dataset
    from edgeml.predict.predictor import Predictor
    from edgeml.training.config import TrainConfig
    from edgeml.training.loop import train as train_model

    data = read_dataset(common.drawn(work))
    config = TrainConfig(
        model="cnn",
        epochs=common.EPOCHS,
        size=common.SIZE,
        batch=64,
        device=common.DEVICE,
        amp="bf16",
        seed=0,
    )
    begin = time.monotonic()
    result = train_model(data, config, work / "run", overwrite=True)
    notes.figure("seconds", round(time.monotonic() - begin, 1))
    notes.figure("epochs", [asdict(epoch) for epoch in result.history])
    test = result.metrics.to_dict()["metrics"]
    notes.figure("metrics", test)
    notes.must("it learns: mAP on the test side above 0.5", test["mAP"] > 0.5)
    common.no_tf32()
    with Predictor(work / "run") as here, Predictor(work / "run", device=common.DEVICE) as there:
        batch = common.pictures(here, work)
        expected, got = here.runtime.run(batch), there.runtime.run(batch)
        notes.figure("flips_per_1000", common.flips_per_1000(here, expected, got))
        off = float(np.abs(got - expected).max() / np.abs(expected).max())
        notes.figure("difference", off)
        notes.must("it computes the same on both devices", off <= common.TOLERANCE["fp32"])


def models(notes: Notes, work: Path) -> None:
    """Write both networks in three precisions, laid out for TensorRT; no GPU is needed."""
    import numpy as np
    import timm
    import torch

    from edgeml import ModelSpec, Preprocess
    from edgeml.data import read_dataset
    from edgeml.spec.model_spec import ModelSpec as Spec
    from edgeml_export.int8.calibration import choose_calibration
    from edgeml_export.int8.ranges import measure_ranges
    from edgeml_export.int8.to_int8 import int8_from_onnx
    from edgeml_export.to_fp16 import fp16_from_onnx
    from edgeml_export.to_onnx import onnx_from_checkpoint, onnx_from_module

    data = read_dataset(common.drawn(work))
    torch.manual_seed(0)
    spec: Spec = ModelSpec(
        labels=data.labels,
        thresholds=(0.5,) * len(data.labels),
        preprocess=Preprocess(size=(common.COMMON_SIZE, common.COMMON_SIZE)),
    )
    module = timm.create_model(common.COMMON, num_classes=len(data.labels)).eval()
    onnx_from_module(module, spec, work / common.FILES["resnet18", "fp32"])
    if (work / "run" / "model.safetensors").exists():
        onnx_from_checkpoint(work / "run", work / common.FILES["cnn", "fp32"])
    calibration = choose_calibration(data, data.labels, limit=64)
    for net in ("cnn", "resnet18"):
        source = work / common.FILES[net, "fp32"]
        if not source.exists():
            continue
        fp16_from_onnx(source, work / common.FILES[net, "fp16"])
        ranges = measure_ranges(source, calibration)
        int8_from_onnx(source, work / common.FILES[net, "int8"], ranges, layout="tensorrt")
    made = {f"{net} {kind}": (work / file).exists() for (net, kind), file in common.FILES.items()}
    notes.figure("files", made)
    notes.must("a ResNet-18 is there in three precisions", sum(made.values()) >= 3)
    notes.figure("numpy", np.__version__)


def _synchronous(module: Any, given: Any) -> None:
    import torch

    module(given)
    if common.DEVICE == "cuda":
        torch.cuda.synchronize()

"""Photos and networks that the scripts of this folder share.

Their files go to build/quantization; networks, photos and the files of other tools are written
once. Delete the folder to start again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from edgeml import ModelSpec, Preprocess
from edgeml.benchmark.environment import capture_host, capture_software
from edgeml.data import Dataset, read_dataset
from edgeml.image.reading import read_image
from edgeml.network.heads import Head
from edgeml.network.model import build_model, training_args
from edgeml.runtimes.onnx_file import read_onnx, spec_of_onnx
from edgeml.training.optim import parameter_groups, training_mode
from edgeml_export.int8.calibration import Calibration, choose_calibration
from edgeml_export.to_onnx import onnx_from_checkpoint, onnx_from_module

PHOTOS = Path("../shared/data/clothing_cc0/labels.csv")
SPLIT = Path("build/training/split.csv")
RUN = Path("build/training/edgeml/seed0")
OUT = Path("build/quantization")
REAL = "mobilenetv2_100, trained"

Images = NDArray[np.float32]


def require(*paths: Path) -> None:
    """Stop with one line where something is not there."""
    for path in paths:
        if not path.exists():
            raise SystemExit(
                f"There is no {str(path)!r}: run benchmarks/training/make_split.py and "
                "edgeml_recipe.py first, with the photos in ../shared, next to this checkout."
            )


@cache
def photos() -> Dataset:
    """The clothing photos with their split."""
    require(PHOTOS, SPLIT)
    return read_dataset(SPLIT)


@cache
def calibration() -> Calibration:
    """Return 300 photos of the train side: the same for every tool."""
    side = photos().part("train")
    return choose_calibration(side, side.labels)


def inputs_of(paths: Sequence[Path], spec: ModelSpec) -> Images:
    """Prepare photos as the Predictor does: (N, 3, H, W)."""
    size = spec.preprocess.min_decode_size
    parts = [
        spec.preprocess([read_image(path, at_least=size) for path in paths[start : start + 32]])
        for start in range(0, len(paths), 32)
    ]
    return np.concatenate(parts)


def fp32(name: str, size: int = 224) -> Path:
    """Return a network as FP32 ONNX: the trained one, or timm's `name` with random weights."""
    target = OUT / "nets" / f"{'real' if name == REAL else name}.onnx"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    if name == REAL:
        require(RUN)
        return onnx_from_checkpoint(RUN, target)
    module, spec = random_network(name, size)
    return onnx_from_module(module, spec, target)


def spec_of(path: Path) -> ModelSpec:
    return spec_of_onnx(read_onnx(path), path)


def random_network(name: str, size: int, head: Head = "linear") -> tuple[nn.Module, ModelSpec]:
    """Build one of timm's networks with random weights, and train it a little on real photos.

    Three steps of training, then batch normalisation gets statistics of the photos, and scales
    and shifts that are not 1 and 0: as it is initialised, folding it would be right however it
    were done, and the logits of a deep network would say nothing of the photo.
    """
    torch.manual_seed(0)
    side = photos().part("train")
    spec = ModelSpec(
        labels=side.labels,
        thresholds=(0.5,) * len(side.labels),
        preprocess=Preprocess(size=(size, size)),
        groups=side.label_groups,
    )
    args = training_args(name, {})
    model = build_model(name, labels=len(side.labels), args=args, head=head)
    few = np.random.default_rng(0).choice(len(side), 24, replace=False)
    images = torch.from_numpy(inputs_of([side.paths[row] for row in few], spec))
    targets = torch.from_numpy(side.targets[few]).float()
    training_mode(model)
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.05), lr=1e-3)
    for start in (0, 8, 16):
        part = slice(start, start + 8)
        loss = binary_cross_entropy_with_logits(model(images[part]), targets[part])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    _set_statistics(model, images)
    return model.eval(), spec


def _set_statistics(model: nn.Module, images: torch.Tensor) -> None:
    generator = torch.Generator().manual_seed(7)
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    with torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over what comes
            norm.weight.uniform_(0.5, 1.5, generator=generator)
            norm.bias.uniform_(-0.2, 0.2, generator=generator)
        model.train()(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def cached(path: Path, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """Keep an array as .npy."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{os.getpid()}.{path.name}")
        np.save(temporary, make())
        temporary.replace(path)
    array: NDArray[Any] = np.load(path, mmap_mode="r")
    return array


def machine() -> dict[str, Any]:
    """Return the machine and the versions that figures belong to."""
    return {"host": asdict(capture_host()), "software": capture_software()}


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")

"""Models of timm and torchvision."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from edgeml.errors import SpecError
from edgeml.spec.foreign.values import Facts, _cut, _is_size, _names, _one_of, _positive, _three

_FILTERS = {"bilinear": "linear", "bicubic": "cubic", "lanczos": "lanczos", "nearest": "nearest"}


def timm(config: Mapping[str, Any], where: str, size: tuple[int, int] | None) -> Facts:
    """Read the config.json that timm writes for a hub, or a dict with `pretrained_cfg` in it.

    Args:
        config: What it says.
        where: Its name.
        size: (height, width) of the graph's input where it is fixed, which timm's transform would
            be made for; None takes that of the file.

    Raises:
        SpecError: It says what cannot be understood, or wants what edgeml does not do.
    """
    told = config.get("pretrained_cfg")
    if not isinstance(told, Mapping):
        raise SpecError(f"{where}: pretrained_cfg is no table.")
    shape = told.get("input_size")
    if not (isinstance(shape, Sequence) and len(shape) == 3 and _is_size(shape[1:])):
        raise SpecError(f"{where}: input_size is {shape!r}; expected for example [3, 224, 224].")
    says = f"{where}: pretrained_cfg."
    sides = size or (shape[1], shape[2])
    share = _positive(told.get("crop_pct", 0.875), says + "crop_pct")
    mode = told.get("crop_mode") or "center"
    way = _one_of({"center": "crop", "squash": "squash_crop"}, mode, says + "crop_mode")
    if share > 1:
        raise SpecError(f"{says}crop_pct is {share}; above 1 it would pad, which is not served.")
    if sides[0] != sides[1]:
        raise SpecError(f"{says}input_size is {sides}; only square ones are served.")
    # timm rounds the whole picture's side down, and then cuts.
    resized = math.floor(sides[0] / share)
    name = told.get("interpolation", "bilinear")
    convention = f"{where}: timm's classifiers are of one label"
    facts: Facts = {
        "size": (sides, "the graph" if size else says + "input_size"),
        "resize": (way, says + "crop_mode"),
        "crop": (sides[0] / resized, says + "crop_pct"),
        "interpolation": (_one_of(_FILTERS, name, says + "interpolation"), says + "interpolation"),
        "antialias": (True, f"{where}: timm resizes with Pillow"),
        "mean": (tuple(_three(told.get("mean"), says + "mean")), says + "mean"),
        "std": (tuple(_three(told.get("std"), says + "std")), says + "std"),
        "channels": ("rgb", f"{where}: timm's networks take it so"),
        "layout": ("nchw", f"{where}: timm's networks take it so"),
        "task": ("multiclass", convention),
        "activation": ("softmax", convention),
    }
    names = config.get("label_names", told.get("label_names"))
    if names:
        facts["labels"] = (_names(names, f"{where}: label_names"), f"{where}: label_names")
    return facts


def torchvision(weights: Any) -> Facts:
    """Read a member of one of torchvision's enums, such as `ResNet50_Weights.IMAGENET1K_V2`.

    Only its attributes are read, so torchvision is not imported here.

    Raises:
        SpecError: It is no classifier's weights.
    """
    says = f"torchvision: {type(weights).__name__}.{getattr(weights, 'name', '')}"
    try:
        made = weights.transforms()
        size, whole = made.crop_size[0], made.resize_size[0]
        name, antialias = str(made.interpolation.value), made.antialias
        mean, std, labels = made.mean, made.std, weights.meta["categories"]
    except (AttributeError, KeyError, IndexError, TypeError) as err:
        raise SpecError(f"{says} are no weights of a classifier: {err}.") from err
    convention = f"{says}: of one label"
    return _cut((size, size), whole, "crop", says, says) | {
        "labels": (_names(labels, says), says),
        "interpolation": (_one_of(_FILTERS, name, f"{says}: interpolation"), says),
        "antialias": (bool(antialias), says),
        "mean": (tuple(_three(mean, says)), says),
        "std": (tuple(_three(std, says)), says),
        "channels": ("rgb", says),
        "layout": ("nchw", says),
        "task": ("multiclass", convention),
        "activation": ("softmax", convention),
    }

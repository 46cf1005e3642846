"""Models of timm and torchvision."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from edgeml.errors import SpecError
from edgeml.image.modes import Resize
from edgeml.spec.foreign.hugging_face import problem_fields
from edgeml.spec.foreign.label_names import names_by_index, unique_names
from edgeml.spec.foreign.partial import PartialSpec, merge, stated
from edgeml.spec.foreign.values import (
    centre_cut,
    is_size,
    one_of,
    positive,
    three_numbers,
)

_FILTERS = {"bilinear": "linear", "bicubic": "cubic", "lanczos": "lanczos", "nearest": "nearest"}
_CROP_MODES: Mapping[str, Resize] = {"center": "crop", "squash": "squash_crop"}


def spec_of_timm(
    config: Mapping[str, Any], source: str, graph_size: tuple[int, int] | None
) -> PartialSpec:
    """Read the config.json that timm writes for a hub, a table with `pretrained_cfg` in it.

    `graph_size` is the (height, width) of the graph's input if it is fixed, for which timm would
    make its transform; None takes the size in the file.
    """
    cfg = config.get("pretrained_cfg")
    if not isinstance(cfg, Mapping):
        raise SpecError(f"{source}: pretrained_cfg is not a table.")
    shape = cfg.get("input_size")
    if not (isinstance(shape, Sequence) and len(shape) == 3 and is_size(shape[1:])):
        raise SpecError(f"{source}: input_size is {shape!r}; expected for example [3, 224, 224].")
    key = f"{source}: pretrained_cfg."
    size = graph_size or (shape[1], shape[2])
    share = positive(cfg.get("crop_pct", 0.875), key + "crop_pct")
    resize = one_of(_CROP_MODES, cfg.get("crop_mode") or "center", key + "crop_mode")
    if share > 1:
        raise SpecError(f"{key}crop_pct is {share}; above 1 it would pad, which edgeml does not.")
    if size[0] != size[1]:
        raise SpecError(f"{key}input_size is {size}; edgeml reads only square ones.")
    # timm rounds the side of the resized image down, and then cuts.
    resized = math.floor(size[0] / share)
    filter_ = one_of(_FILTERS, cfg.get("interpolation", "bilinear"), key + "interpolation")
    key_of_names = "id2label" if config.get("id2label") else "label_names"
    names = config.get(key_of_names) or cfg.get(key_of_names)
    names_key = f"{source}: {key_of_names}"
    labels = names_by_index(names, names_key) if names else None
    return merge(
        stated("the graph" if graph_size else key + "input_size", size=size),
        stated(key + "crop_mode", resize=resize),
        stated(key + "crop_pct", crop=size[0] / resized),
        stated(key + "interpolation", interpolation=filter_),
        stated(f"{source}: timm resizes with Pillow", antialias=True),
        stated(key + "mean", mean=three_numbers(cfg.get("mean"), key + "mean")),
        stated(key + "std", std=three_numbers(cfg.get("std"), key + "std")),
        stated(f"{source}: the input of timm's networks", channels="rgb", layout="nchw"),
        _task(config, source, labels=len(labels or ())),
        stated(names_key, labels=labels),
    )


def _task(config: Mapping[str, Any], source: str, *, labels: int) -> PartialSpec:
    """Return task and activation: those of transformers' TimmWrapper, if it wrote the file."""
    if any(key in config for key in ("problem_type", "architectures", "model_type")):
        return problem_fields(config, source, labels=labels)
    return stated(
        f"{source}: timm's classifiers have one label an image",
        task="multiclass",
        activation="softmax",
    )


def spec_of_torchvision(weights: Any) -> PartialSpec:
    """Read a member of one of torchvision's enums, such as `ResNet50_Weights.IMAGENET1K_V2`.

    Only its attributes are read, so torchvision is not imported here.
    """
    source = f"torchvision: {type(weights).__name__}.{getattr(weights, 'name', '')}"
    try:
        transform = weights.transforms()
        size, resized = transform.crop_size[0], transform.resize_size[0]
        filter_, antialias = str(transform.interpolation.value), transform.antialias
        mean, std, labels = transform.mean, transform.std, weights.meta["categories"]
    except (AttributeError, KeyError, IndexError, TypeError) as err:
        raise SpecError(f"{source} is not the weights of a classifier: {err}.") from err
    return merge(
        centre_cut((size, size), resized, "crop", source=source, crop_source=source),
        stated(
            source,
            labels=unique_names(labels, source),
            interpolation=one_of(_FILTERS, filter_, f"{source}: interpolation"),
            antialias=bool(antialias),
            mean=three_numbers(mean, source),
            std=three_numbers(std, source),
            channels="rgb",
            layout="nchw",
        ),
        stated(f"{source}: one label an image", task="multiclass", activation="softmax"),
    )

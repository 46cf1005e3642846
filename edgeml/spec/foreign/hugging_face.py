"""Models exported from Hugging Face transformers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from edgeml.errors import SpecError
from edgeml.spec.foreign.label_names import names_by_index
from edgeml.spec.foreign.partial import PartialSpec, merge, stated
from edgeml.spec.foreign.values import (
    centre_cut,
    is_size,
    one_of,
    positive,
    three_numbers,
)
from edgeml.spec.model_spec import quoted_names

# The filter (PIL's number) and whether the centre is cut, where a file does not say; whether one
# number as size is the shorter side. Of transformers 4.57 and 5.24, models/*/image_processing_*.py.
_PROCESSORS: Mapping[str, tuple[int, bool, bool]] = {
    "Beit": (3, True, False),
    "Bit": (3, True, True),
    "CLIP": (3, True, True),
    "ConvNext": (2, False, True),
    "DINOv3ViT": (2, False, False),
    "DeiT": (3, True, False),
    "EfficientNet": (0, False, False),
    "Levit": (3, True, True),
    "MobileNetV1": (2, True, True),
    "MobileNetV2": (2, True, True),
    "MobileViT": (2, True, True),
    "Pvt": (2, False, False),
    "Segformer": (2, False, False),
    "Siglip": (3, False, False),
    "ViT": (2, False, False),
}

# Mean and deviation where a file does not say: ImageNet's.
_STATISTICS = {"DINOv3ViT": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}

_PIL_FILTERS = {0: "nearest", 1: "lanczos", 2: "linear", 3: "cubic"}


def spec_of_hugging_face(
    config: Mapping[str, Any], processor: Mapping[str, Any] | None, names: tuple[str, str]
) -> PartialSpec:
    """Read config.json and preprocessor_config.json of a Hugging Face image classifier.

    The activation is that of the pipeline `image-classification`. `names` are those of the files.
    """
    source, processor_source = names
    entry = config.get("architectures")
    kinds = [kind for kind in entry if isinstance(kind, str)] if isinstance(entry, list) else []
    if not any("ForImageClassification" in kind for kind in kinds):
        raise SpecError(
            f"{source}: the architecture is {', '.join(kinds) or 'unknown'}; edgeml runs "
            "classifiers, whose names contain ForImageClassification."
        )
    table, labels_key = config.get("id2label"), f"{source}: id2label"
    labels = names_by_index(table, labels_key) if table else None
    return merge(
        PartialSpec() if processor is None else _processor(processor, processor_source),
        stated(f"{source}: the input of Hugging Face networks", layout="nchw"),
        stated(f"{source}: the output of Hugging Face processors", channels="rgb"),
        stated(labels_key, labels=labels),
        problem_fields(config, source, labels=len(labels or ())),
    )


def problem_fields(config: Mapping[str, Any], source: str, *, labels: int) -> PartialSpec:
    """Return task and activation by `problem_type`, as the pipeline image-classification does."""
    problem = config.get("problem_type")
    if problem not in (None, "single_label_classification", "multi_label_classification"):
        raise SpecError(f"{source}: problem_type is {problem!r}, which is not classification.")
    multilabel = problem == "multi_label_classification" or labels == 1
    return stated(
        f"{source}: problem_type" + ("" if problem else " is not set"),
        task="multilabel" if multilabel else "multiclass",
        activation="sigmoid" if multilabel else "softmax",
    )


def _processor(config: Mapping[str, Any], source: str) -> PartialSpec:
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    name = re.sub(r"(ImageProcessor|FeatureExtractor)(Fast)?$", "", kind)
    name = {"ConvNeXT": "ConvNext", "LeViT": "Levit", "BEiT": "Beit"}.get(name, name)
    if name not in _PROCESSORS:
        raise SpecError(
            f"{source}: the processor is {kind or 'not named'}; edgeml knows those of "
            f"{quoted_names([*_PROCESSORS])}. "
            "State what it does with --size, --resize, --mean and --std."
        )
    resample, cut, shorter = _PROCESSORS[name]
    filter_ = one_of(_PIL_FILTERS, config.get("resample", resample), f"{source}: resample")
    flipped = config.get("do_flip_channel_order", name == "MobileViT")
    return merge(
        _size(config, source, name, cut=config.get("do_center_crop", cut), shorter=shorter),
        stated(f"{source}: resample", interpolation=filter_),
        stated(f"{source}: Pillow antialiases", antialias=True),
        stated(f"{source}: do_flip_channel_order", channels="bgr" if flipped else None),
        _scale(config, source, name),
    )


def _size(
    config: Mapping[str, Any], source: str, name: str, *, cut: Any, shorter: bool
) -> PartialSpec:
    """Read the size that an image is resized to, and the part of it that is cut out."""
    if not config.get("do_resize", True):
        raise SpecError(f"{source}: do_resize is false; edgeml gives a network one size.")
    key, crop_key = f"{source}: size", f"{source}: crop_size"
    sides = _sides(config.get("size"), key, shorter=shorter)
    if name == "ConvNext" and isinstance(sides, int):
        if sides >= 384:
            return stated(key, size=(sides, sides), resize="squash")
        pct_key = f"{source}: crop_pct"
        resized = int(sides / positive(config.get("crop_pct") or 224 / 256, pct_key))
        return centre_cut((sides, sides), resized, "crop", source=key, crop_source=pct_key)
    if name == "Levit" and isinstance(sides, int):
        sides = int(256 / 224 * sides)
    if not cut:
        if isinstance(sides, int):
            raise SpecError(
                f"{source} resizes the shorter side to {sides} and cuts nothing, so images have "
                "different sizes; edgeml gives a network one size. State it: --size, --resize."
            )
        return stated(key, size=sides, resize="squash")
    inner = _sides(config.get("crop_size"), crop_key, shorter=False)
    assert not isinstance(inner, int)
    if isinstance(sides, int):
        return centre_cut(inner, sides, "crop", source=crop_key, crop_source=key)
    if inner[0] * sides[1] != inner[1] * sides[0]:
        raise SpecError(f"{source} cuts {inner} from {sides}; the proportions must be the same.")
    return centre_cut(inner, sides[0], "squash_crop", source=crop_key, crop_source=key)


def _scale(config: Mapping[str, Any], source: str, name: str) -> PartialSpec:
    """Turn (pixel * rescale_factor - image_mean) / image_std into ours, on a scale of 0 to 1."""
    factor = 1.0
    if config.get("do_rescale", True):
        factor = positive(config.get("rescale_factor", 1 / 255), f"{source}: rescale_factor")
    offset = 1.0 if config.get("rescale_offset") and config.get("do_rescale", True) else 0.0
    mean_key, std_key = f"{source}: image_mean", f"{source}: image_std"
    normalised = config.get("do_normalize", name != "MobileViT")
    usual = _STATISTICS.get(name, (None, None))
    means, deviations = config.get("image_mean", usual[0]), config.get("image_std", usual[1])
    mean = three_numbers(means, mean_key) if normalised else (0.0,) * 3
    std = three_numbers(deviations, std_key) if normalised else (1.0,) * 3
    if name == "EfficientNet" and config.get("include_top", True):
        # A network with its last layer divides by the deviation a second time, whatever
        # do_normalize is.
        second = three_numbers(config.get("image_std"), std_key)
        std = tuple(one * two for one, two in zip(std, second, strict=True))
    scale = 1.0 if math.isclose(255 * factor, 1) else 255 * factor
    return merge(
        stated(mean_key, mean=tuple((value + offset) / scale for value in mean)),
        stated(std_key, std=tuple(value / scale for value in std)),
    )


def _sides(value: Any, source: str, *, shorter: bool) -> int | tuple[int, int]:
    """Return (height, width), or the shorter side, which one number is if `shorter`.

    The file has {height, width}, {shortest_edge}, a number, or two.
    """
    if isinstance(value, Mapping):
        if set(value) == {"shortest_edge"}:
            value, shorter = value["shortest_edge"], True
        elif set(value) == {"height", "width"}:
            value = [value["height"], value["width"]]
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 4096:
        return value if shorter else (value, value)
    if not is_size(value):
        raise SpecError(f"{source} is {value!r}; expected height and width, or shortest_edge.")
    return (value[0], value[1])

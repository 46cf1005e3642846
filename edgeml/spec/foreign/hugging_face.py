"""Models exported from Hugging Face transformers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from edgeml.errors import SpecError
from edgeml.spec.foreign.values import (
    Fact,
    Facts,
    _by_index,
    _cut,
    _is_size,
    _one_of,
    _positive,
    _three,
)


def hugging_face(
    config: Mapping[str, Any], processor: Mapping[str, Any] | None, names: tuple[str, str]
) -> Facts:
    """Read config.json and preprocessor_config.json of a Hugging Face image classifier.

    Which activation is applied is decided as the pipeline `image-classification` does.

    Args:
        config: What config.json says.
        processor: What preprocessor_config.json says, None where there is none.
        names: Of the two files, for errors and sources.

    Raises:
        SpecError: It is no image classifier, or its processor does what edgeml does not do.
    """
    where, beside = names
    told = config.get("architectures")
    kinds = [kind for kind in told if isinstance(kind, str)] if isinstance(told, list) else []
    if not any("ForImageClassification" in kind for kind in kinds):
        raise SpecError(
            f"{where} says that the architecture is {', '.join(kinds) or 'unknown'}; edgeml runs "
            "classifiers, whose names have ForImageClassification."
        )
    facts: Facts = {
        "layout": ("nchw", f"{where}: Hugging Face networks take it so"),
        "channels": ("rgb", f"{where}: Hugging Face processors give it so"),
    }
    labels = config.get("id2label")
    if labels:
        facts["labels"] = (_by_index(labels, f"{where}: id2label"), f"{where}: id2label")
    problem = config.get("problem_type")
    if problem not in (None, "single_label_classification", "multi_label_classification"):
        raise SpecError(f"{where} says that problem_type is {problem!r}: that is no classifier.")
    one = isinstance(labels, Mapping) and len(labels) == 1
    several = problem == "multi_label_classification" or one
    said = f"{where}: problem_type" + ("" if problem else " is not set")
    facts["task"] = ("multilabel" if several else "multiclass", said)
    facts["activation"] = ("sigmoid" if several else "softmax", said)
    if processor is not None:
        facts |= _processor(processor, beside)
    return facts


# The filter (PIL's number) and whether the centre is cut, where a file does not say; whether one
# number as size is the shorter side. Of transformers 4.57, models/*/image_processing_*.py.
_PROCESSORS: Mapping[str, tuple[int, bool, bool]] = {
    "Beit": (3, True, False),
    "Bit": (3, True, True),
    "CLIP": (3, True, True),
    "ConvNext": (2, False, True),
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


_PIL_FILTERS = {0: "nearest", 1: "lanczos", 2: "linear", 3: "cubic"}


def _processor(told: Mapping[str, Any], where: str) -> Facts:
    kind = str(told.get("image_processor_type") or told.get("feature_extractor_type") or "")
    name = re.sub(r"(ImageProcessor|FeatureExtractor)(Fast)?$", "", kind)
    name = {"ConvNeXT": "ConvNext", "LeViT": "Levit", "BEiT": "Beit"}.get(name, name)
    if name not in _PROCESSORS:
        raise SpecError(
            f"{where} is of a {kind or 'kind that it does not name'}, which edgeml does not know; "
            f"it knows those of {', '.join(_PROCESSORS)}. Say what it does with --size, --resize, "
            "--mean and --std."
        )
    resample, cut, shorter = _PROCESSORS[name]
    resample = told.get("resample", resample)
    filter_ = _one_of(_PIL_FILTERS, resample, f"{where}: resample")
    facts = _hf_size(told, where, name, told.get("do_center_crop", cut), shorter)
    facts["interpolation"] = (filter_, f"{where}: resample")
    facts["antialias"] = (True, f"{where}: Pillow resizes so")
    if told.get("do_flip_channel_order", name == "MobileViT"):
        facts["channels"] = ("bgr", f"{where}: do_flip_channel_order")
    return facts | _hf_scale(told, where, name)


def _hf_size(
    told: Mapping[str, Any], where: str, name: str, cut: Any, shorter: bool
) -> dict[str, Fact]:
    """Read what is resized to what, and what of it is kept."""
    if not told.get("do_resize", True):
        raise SpecError(f"{where} says do_resize false: it takes pictures of any size as they are.")
    sides = _hf_sides(told.get("size"), f"{where}: size", shorter)
    said = f"{where}: size"
    if name == "ConvNext" and isinstance(sides, int):
        if sides >= 384:
            return {"size": ((sides, sides), said), "resize": ("squash", said)}
        share = _positive(told.get("crop_pct") or 224 / 256, f"{where}: crop_pct")
        whole = int(sides / share)
        return _cut((sides, sides), whole, "crop", said, f"{where}: crop_pct")
    if name == "Levit" and isinstance(sides, int):
        sides = int(256 / 224 * sides)
    if not cut:
        if isinstance(sides, int):
            raise SpecError(
                f"{where} resizes the shorter side to {sides} and cuts nothing, so pictures have "
                "different sizes; edgeml gives a network one size. Say which: --size, --resize."
            )
        return {"size": (sides, said), "resize": ("squash", said)}
    kept = _hf_sides(told.get("crop_size"), f"{where}: crop_size", False)
    assert not isinstance(kept, int)
    if isinstance(sides, int):
        return _cut(kept, sides, "crop", f"{where}: crop_size", said)
    if kept[0] * sides[1] != kept[1] * sides[0]:
        raise SpecError(f"{where} cuts {kept} of {sides}, which is not of the same proportions.")
    return _cut(kept, sides[0], "squash_crop", f"{where}: crop_size", said)


def _hf_scale(told: Mapping[str, Any], where: str, name: str) -> Facts:
    """Turn (pixel * rescale_factor - image_mean) / image_std into ours, on a scale of 0 to 1."""
    factor = 1.0
    if told.get("do_rescale", True):
        factor = _positive(told.get("rescale_factor", 1 / 255), f"{where}: rescale_factor")
    offset = 1.0 if told.get("rescale_offset") and told.get("do_rescale", True) else 0.0
    normalised = told.get("do_normalize", name != "MobileViT")
    mean = _three(told.get("image_mean"), f"{where}: image_mean") if normalised else [0.0] * 3
    std = _three(told.get("image_std"), f"{where}: image_std") if normalised else [1.0] * 3
    if name == "EfficientNet" and told.get("include_top", True):
        # What has its last layer divides by the deviation once more, whatever do_normalize says.
        again = _three(told.get("image_std"), f"{where}: image_std")
        std = [one * two for one, two in zip(std, again, strict=True)]
    scale = 255 * factor
    if math.isclose(scale, 1):
        scale = 1.0
    return {
        "mean": (tuple((value + offset) / scale for value in mean), f"{where}: image_mean"),
        "std": (tuple(value / scale for value in std), f"{where}: image_std"),
    }


def _hf_sides(told: Any, where: str, shorter: bool) -> int | tuple[int, int]:
    """Read a size: {height, width}, {shortest_edge}, a number, or two."""
    if isinstance(told, Mapping):
        if set(told) == {"shortest_edge"}:
            told, shorter = told["shortest_edge"], True
        elif set(told) == {"height", "width"}:
            told = [told["height"], told["width"]]
    if isinstance(told, int) and not isinstance(told, bool) and 0 < told <= 4096:
        return told if shorter else (told, told)
    if not _is_size(told):
        raise SpecError(f"{where} is {told!r}; expected height and width, or shortest_edge.")
    return (told[0], told[1])

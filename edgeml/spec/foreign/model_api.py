"""The metadata of OpenVINO's model_api: what its models state, and ours for it to run them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import median

from edgeml.errors import SpecError
from edgeml.spec.foreign.label_names import unique_names
from edgeml.spec.foreign.partial import PartialSpec, merge, stated
from edgeml.spec.foreign.values import one_of, three_numbers
from edgeml.spec.model_spec import ModelSpec

_RESIZES = {"standard": "squash", "fit_to_window_letterbox": "letterbox", "crop": "crop"}
_FILTERS = {"LINEAR": "linear", "CUBIC": "cubic", "NEAREST": "nearest"}


def model_info(spec: ModelSpec) -> dict[str, str]:
    """Return the spec in the keys that OpenVINO's model_api reads, as far as they can express it.

    There is one threshold for all labels, no groups, and a space in a name becomes `_` because
    labels are split at spaces: see model_api, docs/source/guides/model-configuration.md.
    openvino-model-api 0.4.7 returned the same scores for our files in float32 and uint8, RGB and
    BGR, .xml and .onnx, except for the bfloat16 that it lets a CPU use. It infers NHWC from the
    shape; `layout` is for older versions.
    The result is empty for a model with softmax groups, since model_api would return a sigmoid of
    their logits as a probability, and for an input that model_api cannot prepare.
    """
    preprocess = spec.preprocess
    resize = next((key for key, ours in _RESIZES.items() if ours == preprocess.resize), None)
    if spec.softmax_groups() or spec.raw_channels != "bgr" or resize is None:
        return {}
    info = {
        "model_type": "Classification",
        "task_type": "classification",
        "labels": " ".join("_".join(label.split()) for label in spec.labels),
        "multilabel": str(spec.task == "multilabel"),
        "confidence_threshold": f"{median(spec.thresholds):.4f}",
        "resize_type": resize,
        "pad_value": str(preprocess.pad),
    }
    if spec.input == "uint8":
        return {**info, "layout": "NHWC"}
    return {
        **info,
        "mean_values": " ".join(f"{255 * value:.6g}" for value in preprocess.mean),
        "scale_values": " ".join(f"{255 * value:.6g}" for value in preprocess.std),
        "reverse_input_channels": str(preprocess.channels == "rgb"),
    }


def spec_of_model_api(info: Mapping[str, str], source: str) -> PartialSpec:
    """Read the keys of OpenVINO's model_api, without their prefix `model_info`.

    It resizes as OpenVINO does, without antialiasing, and takes frames in BGR as OpenCV reads them.
    """
    kind = info.get("model_type", "")
    if kind.lower() not in ("classification", "classificationmodel"):
        raise SpecError(f"{source}: model_type is {kind!r}; edgeml runs classifiers.")
    if _flag(info, "hierarchical"):
        raise SpecError(f"{source}: hierarchical is set; edgeml does not run a tree of labels.")
    multilabel = _flag(info, "multilabel")
    task_source = f"{source}: multilabel" + ("" if "multilabel" in info else " is not set")
    names, labels_key = info.get("labels", "").split(), f"{source}: labels"
    threshold, threshold_key = None, f"{source}: confidence_threshold"
    if multilabel:
        numbers = _numbers(info.get("confidence_threshold") or "0.5", threshold_key)
        if len(numbers) != 1:
            raise SpecError(f"{threshold_key} is {numbers}; expected one number.")
        threshold = numbers[0]
    return merge(
        stated(
            task_source,
            task="multilabel" if multilabel else "multiclass",
            activation="sigmoid" if multilabel else "softmax",
        ),
        stated(labels_key, labels=unique_names(names, labels_key) if names else None),
        stated(threshold_key, threshold=threshold),
        _embedded(info, source) if _flag(info, "embedded_processing") else _outside(info, source),
        _resize(info, source),
    )


def _embedded(info: Mapping[str, str], source: str) -> PartialSpec:
    """The graph resizes and normalises: a frame that has its size already passes unchanged."""
    channels = stated(f"{source}: embedded_processing", channels="bgr")
    for keys in (("input_frame_height", "input_frame_width"), ("orig_height", "orig_width")):
        sides = [info.get(key, "") for key in keys]
        if all(side.isdecimal() and len(side) < 10 for side in sides):
            size = (int(sides[0]), int(sides[1]))
            return merge(stated(f"{source}: orig_height, _width", size=size), channels)
    return channels


def _outside(info: Mapping[str, str], source: str) -> PartialSpec:
    mode = info.get("intensity_mode") or "none"
    if mode != "none":
        raise SpecError(f"{source}: intensity_mode is {mode!r}; edgeml knows none.")
    order = "rgb" if _flag(info, "reverse_input_channels") else "bgr"
    return merge(
        stated(f"{source}: reverse_input_channels", channels=order),
        stated(f"{source}: mean_values", mean=_levels(info, "mean_values", "0", source)),
        stated(f"{source}: scale_values", std=_levels(info, "scale_values", "1", source)),
    )


def _levels(info: Mapping[str, str], key: str, default: str, source: str) -> tuple[float, ...]:
    numbers = _numbers(info.get(key) or default, f"{source}: {key}")
    return tuple(level / 255 for level in three_numbers(numbers, f"{source}: {key}"))


def _resize(info: Mapping[str, str], source: str) -> PartialSpec:
    kind = info.get("resize_type") or "standard"
    if kind not in _RESIZES:
        raise SpecError(
            f"{source}: resize_type is {kind!r}; edgeml knows {', '.join(_RESIZES)}. "
            "If one of them does as well, name it: --resize."
        )
    key = f"{source}: resize_type"
    name = info.get("interpolation_mode") or "LINEAR"
    filter_key, pad_key = f"{source}: interpolation_mode", f"{source}: pad_value"
    pad = _numbers(info.get("pad_value") or "0", pad_key)
    return merge(
        stated(key if "resize_type" in info else f"{key} is not set", resize=_RESIZES[kind]),
        stated(filter_key, interpolation=one_of(_FILTERS, name, filter_key)),
        stated(f"{source}: OpenVINO does not antialias", antialias=False),
        stated(key, crop=1.0),
        stated(pad_key, pad=int(pad[0]) if pad else 0),
    )


def _numbers(text: str, source: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.replace(",", " ").split()]
    except ValueError as err:
        raise SpecError(f"{source} is {text[:60]!r}; expected numbers.") from err
    if not all(map(math.isfinite, numbers)):
        raise SpecError(f"{source} is {text[:60]!r}; expected numbers, not NaN or infinity.")
    return numbers


def _flag(info: Mapping[str, str], key: str) -> bool:
    return info.get(key) in ("True", "YES", "true")

"""Models with the metadata of OpenVINO's model_api."""

from __future__ import annotations

from collections.abc import Mapping

from edgeml.errors import SpecError
from edgeml.spec.foreign.values import Facts, _one_of, _three


def model_api(told: Mapping[str, str], where: str) -> Facts:
    """Read the keys of OpenVINO's model_api, without their first word `model_info`.

    It resizes as OpenVINO does, without antialiasing, and takes frames in BGR as OpenCV gives.

    Raises:
        SpecError: It is no classifier, or wants what edgeml does not do.
    """
    kind = told.get("model_type", "")
    if kind.lower() not in ("classification", "classificationmodel"):
        raise SpecError(f"{where} says that model_type is {kind!r}; edgeml runs classifiers.")
    if _flag(told, "hierarchical"):
        raise SpecError(f"{where} says 'hierarchical': a tree of labels is not served.")
    facts: Facts = {}
    if told.get("labels"):
        facts["labels"] = (told["labels"].split(), f"{where}: labels")
    several = _flag(told, "multilabel")
    said = f"{where}: multilabel" + ("" if "multilabel" in told else " is not set")
    facts["task"] = ("multilabel" if several else "multiclass", said)
    facts["activation"] = ("sigmoid" if several else "softmax", said)
    if several:
        threshold = _floats(told.get("confidence_threshold") or "0.5", f"{where}: confidence")
        if len(threshold) != 1:
            raise SpecError(f"{where}: confidence_threshold is no number.")
        facts["threshold"] = (threshold[0], f"{where}: confidence_threshold")
    return facts | (
        _embedded(told, where) if _flag(told, "embedded_processing") else _outside(told, where)
    )


def _embedded(told: Mapping[str, str], where: str) -> Facts:
    """The graph resizes and normalises: a frame that has its size already passes unchanged."""
    means = f"{where}: embedded_processing"
    sides = [told.get("input_frame_height"), told.get("input_frame_width")]
    if not all(side and side.isdecimal() for side in sides):
        sides = [told.get("orig_height"), told.get("orig_width")]
    facts = _resize_type(told, where) | {"channels": ("bgr", means)}
    if all(side and side.isdecimal() for side in sides):
        facts["size"] = (tuple(int(str(side)) for side in sides), f"{where}: orig_height, _width")
    return facts


def _outside(told: Mapping[str, str], where: str) -> Facts:
    mode = told.get("intensity_mode") or "none"
    if mode != "none":
        raise SpecError(f"{where} says that intensity_mode is {mode!r}, which is not served.")
    facts = _resize_type(told, where)
    order = "rgb" if _flag(told, "reverse_input_channels") else "bgr"
    facts["channels"] = (order, f"{where}: reverse_input_channels")
    mean = _three(_floats(told.get("mean_values") or "0", f"{where}: mean_values"), where)
    std = _three(_floats(told.get("scale_values") or "1", f"{where}: scale_values"), where)
    facts["mean"] = (tuple(value / 255 for value in mean), f"{where}: mean_values")
    facts["std"] = (tuple(value / 255 for value in std), f"{where}: scale_values")
    return facts


def _resize_type(told: Mapping[str, str], where: str) -> Facts:
    ways = {"standard": "squash", "fit_to_window_letterbox": "letterbox", "crop": "crop"}
    kind = told.get("resize_type") or "standard"
    if kind not in ways:
        raise SpecError(
            f"{where} says that resize_type is {kind!r}; edgeml knows {', '.join(ways)}. "
            "If another does as well, say so: --resize."
        )
    filters = {"LINEAR": "linear", "CUBIC": "cubic", "NEAREST": "nearest"}
    name = told.get("interpolation_mode") or "LINEAR"
    said = f"{where}: resize_type"
    pad = _floats(told.get("pad_value") or "0", f"{where}: pad_value")
    return {
        "resize": (ways[kind], said if "resize_type" in told else f"{said} is not set"),
        "interpolation": (
            _one_of(filters, name, f"{where}: interpolation_mode"),
            f"{where}: interpolation_mode",
        ),
        "antialias": (False, f"{where}: OpenVINO resizes so"),
        "crop": (1.0, said),
        "pad": (int(pad[0]) if pad else 0, f"{where}: pad_value"),
    }


def _floats(text: str, where: str) -> list[float]:
    try:
        return [float(part) for part in text.replace(",", " ").split()]
    except ValueError as err:
        raise SpecError(f"{where} is {text[:60]!r}; expected numbers.") from err


def _flag(told: Mapping[str, str], key: str) -> bool:
    return told.get(key) in ("True", "YES", "true")

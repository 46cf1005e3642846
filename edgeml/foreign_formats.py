"""What other tools write about their models: each reader turns it into facts, and guesses nothing.

A fact is a field of `ModelSpec` or `Preprocess`, by its name, with the words that say where it was
found. Files are untrusted: a value of the wrong type is a `SpecError` that names it.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeml.errors import SpecError

Fact = tuple[Any, str]
"""A value, and where it comes from."""

Facts = dict[str, Fact]

_LARGEST = 1 << 24
"""Bytes of a file."""

_LONGEST = 1 << 20
"""Characters of a literal, whose reading takes many times as much memory."""


def ultralytics(told: Mapping[str, str], where: str) -> Facts:
    """Read the metadata of an Ultralytics export: of an .onnx, or of a metadata.yaml.

    Their classifiers see the centre of the picture, its shorter side resized to the input's, as
    RGB from 0 to 1; the network ends in a softmax.

    Raises:
        SpecError: It is no classifier, or says what cannot be understood.
    """
    if told.get("task") != "classify":
        raise SpecError(
            f"{where} says that the task is {told.get('task')!r}; edgeml runs classifiers, "
            "which Ultralytics calls 'classify'."
        )
    names = _literal(told.get("names", ""), f"{where}: names")
    sides = _literal(told.get("imgsz", ""), f"{where}: imgsz")
    sides = [sides, sides] if isinstance(sides, int) else sides
    if not _is_size(sides):
        raise SpecError(f"{where} says that imgsz is {told.get('imgsz')!r}, which is no size.")
    says, means = f"{where}: names", f"{where}: task classify"
    return {
        "labels": (_by_index(names, says), says),
        "size": (tuple(sides), f"{where}: imgsz"),
        "task": ("multiclass", means),
        "resize": ("crop", means),
        "crop": (1.0, means),
        "interpolation": ("linear", means),
        "antialias": (True, means),
        "mean": ((0.0, 0.0, 0.0), means),
        "std": ((1.0, 1.0, 1.0), means),
        "channels": ("rgb", means),
        "layout": ("nchw", means),
    }


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

_FILTERS = {"bilinear": "linear", "bicubic": "cubic", "lanczos": "lanczos", "nearest": "nearest"}

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


def _cut(size: tuple[int, int], whole: int, resize: str, said: str, of: str) -> dict[str, Fact]:
    least = min(size) if resize == "crop" else size[0]
    if whole < least or (resize == "crop" and size[0] != size[1]):
        raise SpecError(f"{of}: {size} of {whole} pixels is no crop that edgeml makes.")
    return {"size": (size, said), "resize": (resize, said), "crop": (least / whole, of)}


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


def read_json(path: Path) -> Mapping[str, Any]:
    """Read a JSON file that holds a table.

    Raises:
        SpecError: It cannot be read, is too large, or holds something else.
    """
    try:
        told = json.loads(_text(path))
    except (ValueError, RecursionError) as err:
        raise SpecError(f"{path.name} is not JSON: {err}.") from err
    if not isinstance(told, dict):
        raise SpecError(f"{path.name} holds no table of names and values.")
    return told


def read_labels(path: Path) -> list[str]:
    """Read names of labels: one a line, or a JSON list, or a JSON table of numbers and names.

    Raises:
        SpecError: It cannot be read, or is none of these.
    """
    text = _text(path)
    if path.suffix.lower() != ".json":
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        told = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise SpecError(f"{path.name} is not JSON: {err}.") from err
    return _by_index(told, path.name) if isinstance(told, dict) else _names(told, path.name)


def read_simple_yaml(path: Path) -> dict[str, str]:
    """Read the metadata.yaml that Ultralytics writes: values of one line, lists, one table.

    A list or table is given as the text of one in Python, as the same facts stand in an .onnx.

    Raises:
        SpecError: It is something else.
    """
    told: dict[str, Any] = {}
    key = ""
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        inside = line[0] in " -"
        if inside and key and (item := re.fullmatch(r"\s*-\s+(.*)", line)):
            told[key] = [*(told[key] or []), _scalar(item[1])]
        elif inside and key and (pair := re.fullmatch(r"\s+([\w.]+):\s*(.*)", line)):
            told[key] = (told[key] or {}) | {_scalar(pair[1]): _scalar(pair[2])}
        elif not inside and (pair := re.fullmatch(r"([\w.]+):\s*(.*)", line)):
            key = pair[1]
            told[key] = _scalar(pair[2]) if pair[2] else None
        else:
            raise SpecError(f"{path.name}, line {number}: {line[:60]!r} cannot be understood.")
    return {name: value if isinstance(value, str) else repr(value) for name, value in told.items()}


def _scalar(text: str) -> Any:
    """Read a plain or quoted scalar; integers as such."""
    text = text.strip()
    if len(text) >= 2 and text[0] == text[-1] == "'":
        return text[1:-1].replace("''", "'")
    if text.startswith('"'):
        try:
            return str(json.loads(text))
        except ValueError as err:
            raise SpecError(f"{text[:60]!r} is quoted in a way that is not known.") from err
    return int(text) if re.fullmatch(r"-?\d{1,9}", text) else text


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise SpecError(f"{path.name} has more than {_LARGEST:,} bytes; refused.")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as err:
        raise SpecError(f"{path.name} is not UTF-8 text.") from err
    except OSError as err:
        raise SpecError(f"{path.name} cannot be read: {err.strerror}.") from err


def _literal(text: str, where: str) -> Any:
    """Read a literal of Python, which is how Ultralytics writes tables into an .onnx."""
    try:
        if len(text) > _LONGEST:
            raise SpecError(f"{where} has more than {_LONGEST:,} characters; refused.")
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError) as err:
        raise SpecError(f"{where} is {text[:60]!r}, which cannot be understood.") from err


def _by_index(told: Any, where: str) -> list[str]:
    """Order names by their numbers, which must be 0, 1, 2 and so on."""
    if isinstance(told, (list, tuple)):
        return _names(told, where)
    if not isinstance(told, Mapping):
        raise SpecError(f"{where} is no table of numbers and names.")
    by_number = {str(number): name for number, name in told.items()}
    try:
        return _names([by_number[str(i)] for i in range(len(by_number))], where)
    except KeyError as err:
        raise SpecError(f"{where} has {len(by_number)} names but none for {err}.") from err


def _names(told: Any, where: str) -> list[str]:
    """Check names; those that occur twice get their number, since labels are told by name.

    ImageNet has two cranes, a bird and a machine.
    """
    if not isinstance(told, (list, tuple)) or not all(isinstance(name, str) for name in told):
        raise SpecError(f"{where} is no list of names.")
    times = Counter(told)
    return [f"{name} {i}" if times[name] > 1 else name for i, name in enumerate(told)]


def _one_of(table: Mapping[Any, str], told: Any, where: str) -> str:
    if isinstance(told, (str, int)) and told in table:
        return table[told]
    raise SpecError(f"{where} is {told!r}; edgeml knows {', '.join(map(str, table))}.")


def _is_size(told: Any) -> bool:
    return (
        isinstance(told, (list, tuple))
        and len(told) == 2
        and all(isinstance(side, int) and 0 < side <= 4096 for side in told)
    )


def _positive(told: Any, where: str) -> float:
    if isinstance(told, bool) or not isinstance(told, (int, float)) or not 0 < told < math.inf:
        raise SpecError(f"{where} is {told!r}; it must be a number above 0.")
    return float(told)


def _three(told: Any, where: str) -> list[float]:
    """Read a number for each channel, or one for all."""
    told = [told] if isinstance(told, (int, float)) else told
    if not isinstance(told, (list, tuple)) or len(told) not in (1, 3):
        raise SpecError(f"{where} is {told!r}; expected three numbers.")
    if not all(isinstance(v, (int, float)) and math.isfinite(v) for v in told):
        raise SpecError(f"{where} is {told!r}; expected three numbers.")
    return [float(value) for value in told] * (3 if len(told) == 1 else 1)


def _floats(text: str, where: str) -> list[float]:
    try:
        return [float(part) for part in text.replace(",", " ").split()]
    except ValueError as err:
        raise SpecError(f"{where} is {text[:60]!r}; expected numbers.") from err


def _flag(told: Mapping[str, str], key: str) -> bool:
    return told.get(key) in ("True", "YES", "true")

"""Models that Ultralytics exported."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeml.errors import SpecError
from edgeml.spec.foreign.values import _LONGEST, Facts, _by_index, _is_size, _text


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


def _literal(text: str, where: str) -> Any:
    """Read a literal of Python, which is how Ultralytics writes tables into an .onnx."""
    try:
        if len(text) > _LONGEST:
            raise SpecError(f"{where} has more than {_LONGEST:,} characters; refused.")
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError) as err:
        raise SpecError(f"{where} is {text[:60]!r}, which cannot be understood.") from err

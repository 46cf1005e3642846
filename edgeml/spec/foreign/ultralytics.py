"""Models that Ultralytics exported."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeml.errors import SpecError
from edgeml.spec.foreign.label_names import names_by_index, parse_literal
from edgeml.spec.foreign.partial import PartialSpec, merge, stated
from edgeml.spec.foreign.values import is_size, read_text


def spec_of_ultralytics(metadata: Mapping[str, str], source: str) -> PartialSpec:
    """Read the metadata of an Ultralytics export: of an .onnx, or of a metadata.yaml.

    Their classifiers see the centre of the image, its shorter side resized to the input's, as
    RGB from 0 to 1; an input that is not square gets the image resized to both its sides. The
    network ends in a softmax.
    """
    if metadata.get("task") != "classify":
        raise SpecError(
            f"{source}: task is {metadata.get('task')!r}; edgeml runs classifiers, "
            "which Ultralytics calls 'classify'."
        )
    names = parse_literal(metadata.get("names", ""), f"{source}: names")
    sides = parse_literal(metadata.get("imgsz", ""), f"{source}: imgsz")
    sides = [sides, sides] if isinstance(sides, int) else sides
    if not is_size(sides):
        raise SpecError(f"{source}: imgsz is {metadata.get('imgsz')!r}, which is not a size.")
    return merge(
        stated(f"{source}: names", labels=names_by_index(names, f"{source}: names")),
        stated(f"{source}: imgsz", size=(sides[0], sides[1])),
        stated(
            f"{source}: task classify",
            task="multiclass",
            resize="crop" if sides[0] == sides[1] else "squash",
            crop=1.0,
            interpolation="linear",
            antialias=True,
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            channels="rgb",
            layout="nchw",
        ),
    )


def read_simple_yaml(path: Path) -> dict[str, str]:
    """Read the metadata.yaml that Ultralytics writes: values of one line, lists, one table.

    A list or table is returned as a Python literal, which is how an .onnx stores the same values.
    """
    values: dict[str, Any] = {}
    key = ""
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        inside, block = line[0] in " -", values.get(key)
        item = re.fullmatch(r"\s*-\s+(.*)", line)
        pair = re.fullmatch(r"\s+([\w.]+):\s*(.*)", line)
        if inside and key and item and (block is None or isinstance(block, list)):
            values[key] = [*(block or []), _scalar(item[1])]
        elif inside and key and pair and (block is None or isinstance(block, dict)):
            values[key] = (block or {}) | {_scalar(pair[1]): _scalar(pair[2])}
        elif not inside and (pair := re.fullmatch(r"([\w.]+):\s*(.*)", line)):
            key = pair[1]
            values[key] = _scalar(pair[2]) if pair[2] else None
        else:
            raise SpecError(f"{path.name}, line {number}: cannot parse {line[:60]!r}.")
    return {
        name: value if isinstance(value, str) else repr(value) for name, value in values.items()
    }


def _scalar(text: str) -> Any:
    """Read a plain or quoted scalar; integers as such."""
    text = text.strip()
    if len(text) >= 2 and text[0] == text[-1] == "'":
        return text[1:-1].replace("''", "'")
    if text.startswith('"'):
        try:
            return str(json.loads(text))
        except ValueError as err:
            raise SpecError(f"{text[:60]!r} is quoted in a way that edgeml does not know.") from err
    return int(text) if re.fullmatch(r"-?\d{1,9}", text) else text

"""What other tools write about their models: each reader turns it into facts, and guesses nothing.

A fact is a field of `ModelSpec` or `Preprocess`, by its name, with the words that say where it was
found. Files are untrusted: a value of the wrong type is a `SpecError` that names it.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
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


def _cut(size: tuple[int, int], whole: int, resize: str, said: str, of: str) -> dict[str, Fact]:
    least = min(size) if resize == "crop" else size[0]
    if whole < least or (resize == "crop" and size[0] != size[1]):
        raise SpecError(f"{of}: {size} of {whole} pixels is no crop that edgeml makes.")
    return {"size": (size, said), "resize": (resize, said), "crop": (least / whole, of)}


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


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise SpecError(f"{path.name} has more than {_LARGEST:,} bytes; refused.")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as err:
        raise SpecError(f"{path.name} is not UTF-8 text.") from err
    except OSError as err:
        raise SpecError(f"{path.name} cannot be read: {err.strerror}.") from err


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

"""Values from files of other tools."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeml.errors import SpecError
from edgeml.image.modes import Resize
from edgeml.spec.foreign.partial import PartialSpec, merge, stated

_MAX_BYTES = 1 << 24
"""Size of a file."""

_MIN_POSITIVE = 1e-9
"""A size divided by less is infinite, or larger than any image."""


def centre_cut(
    size: tuple[int, int], resized: int, resize: Resize, *, source: str, crop_source: str
) -> PartialSpec:
    """Return the fields of an image that is resized to `resized` pixels and cut to `size`."""
    if resized < size[0] or (resize == "crop" and size[0] != size[1]):
        raise SpecError(
            f"{crop_source}: edgeml cannot cut {size} from an image of {resized} pixels."
        )
    return merge(
        stated(source, size=size, resize=resize), stated(crop_source, crop=size[0] / resized)
    )


def read_json(path: Path) -> Mapping[str, Any]:
    """Read a JSON file that holds an object."""
    document = _parse_json(path)
    if not isinstance(document, dict):
        raise SpecError(f"{path.name} does not hold a table of names and values.")
    return document


def read_text(path: Path) -> str:
    """Read a text file."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise SpecError(f"{path.name} has more than {_MAX_BYTES:,} bytes; refused.")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as err:
        raise SpecError(f"{path.name} is not UTF-8 text.") from err
    except OSError as err:
        raise SpecError(f"{path.name} cannot be read: {err.strerror}.") from err


def _parse_json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as err:
        raise SpecError(f"{path.name} is not JSON: {err}.") from err


def one_of(table: Mapping[Any, str], value: Any, source: str) -> str:
    """Return the table's entry for a value."""
    if isinstance(value, (str, int)) and value in table:
        return table[value]
    raise SpecError(f"{source} is {value!r}; edgeml knows {', '.join(map(str, table))}.")


def is_size(value: Any) -> bool:
    """Return whether a value is a height and a width that edgeml can resize to."""
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and all(isinstance(side, int) and 0 < side <= 4096 for side in value)
    )


def positive(value: Any, source: str) -> float:
    """Check that a value is a finite number above 0, and return it."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not _is_finite(value) or value < _MIN_POSITIVE:
        raise SpecError(f"{source} is {value!r}; it must be a number above 0.")
    return float(value)


def three_numbers(value: Any, source: str) -> tuple[float, ...]:
    """Return a number for each channel, from three or from one for all."""
    numbers = [value] if isinstance(value, (int, float)) else value
    if (
        not isinstance(numbers, (list, tuple))
        or len(numbers) not in (1, 3)
        or not all(isinstance(number, (int, float)) and _is_finite(number) for number in numbers)
    ):
        raise SpecError(f"{source} is {value!r}; expected three numbers.")
    return tuple(map(float, numbers)) * (3 // len(numbers))


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # an integer that no float can hold
        return False

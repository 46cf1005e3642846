"""Read JSON into dataclasses without pydantic, whose import takes longer than many models run.

Only values that are right in every respect are read. For all others the caller turns to pydantic,
so that one place finds what is wrong and words it.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_MAX_EXACT = 1 << 53
"""Integers up to here are floats without loss."""


class UnusualValueError(ValueError):
    """A value is not as it is declared, or needs a closer look."""


def read_plain(kind: Any, value: Any) -> Any:
    """Convert a value from `json.loads` to the declared type.

    Reads dataclasses, str, int, float, bool, None, unions, Literal, tuple and Mapping. Raises
    UnusualValueError for others, or what a dataclass raises, which refuses its fields.
    """
    arguments = get_args(kind)
    match get_origin(kind) or kind:
        case declared if is_dataclass(declared):
            return _read_fields(declared, value)
        case declared if declared is Literal:
            if any(type(value) is type(one) and value == one for one in arguments):
                return value
        case declared if declared is Union or declared is types.UnionType:
            return _read_any(arguments, value)
        case declared if declared is tuple and type(value) is list:
            if arguments[-1] is ...:
                return tuple(read_plain(arguments[0], one) for one in value)
            if len(value) == len(arguments):
                return tuple(map(read_plain, arguments, value))
        case declared if declared is Mapping and type(value) is dict:
            return {
                read_plain(arguments[0], k): read_plain(arguments[1], v) for k, v in value.items()
            }
        case declared if declared is float and type(value) is int:
            if abs(value) <= _MAX_EXACT:
                return float(value)
        case declared if declared is float and type(value) is float:
            if math.isfinite(value):
                return value
        case declared if declared is str and type(value) is str:
            value.encode()  # raises for a lone surrogate, which JSON can hold
            return value
        case declared if declared in (int, bool, type(None)) and type(value) is declared:
            return value
    raise UnusualValueError(f"{value!r} for {kind}")


def _read_fields(kind: Any, value: Any) -> Any:
    declared = _declared(kind)
    if type(value) is not dict or not value.keys() <= declared.keys():
        raise UnusualValueError(f"{value!r} for {kind}")
    return kind(**{name: read_plain(declared[name], one) for name, one in value.items()})


def _read_any(kinds: tuple[Any, ...], value: Any) -> Any:
    for kind in kinds:
        try:
            return read_plain(kind, value)
        except UnusualValueError:
            continue
    raise UnusualValueError(f"{value!r} for any of {kinds}")


@cache
def _declared(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}

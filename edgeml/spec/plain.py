"""Read JSON into dataclasses without pydantic, whose import takes longer than many a model's.

Only what is right in every respect is read. Of anything else pydantic is asked, so that there is
one place that says what is wrong, and in what words.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_EXACT = 1 << 53
"""Whole numbers up to here are floats without loss."""


class OddError(ValueError):
    """A value is not as it is declared, or it is unusual enough to be looked at closely."""


def read_plain(kind: Any, value: Any) -> Any:
    """Make of what `json.loads` gave what a field's type declares.

    Knows dataclasses, str, int, float, bool, None, unions, Literal, tuple and Mapping. A field
    that is not declared is odd, as is one that is missing.

    Raises:
        OddError: The value needs a closer look.
        ValueError, TypeError: A dataclass refuses its fields.
    """
    arguments = get_args(kind)
    match get_origin(kind) or kind:
        case made if is_dataclass(made):
            return _read_fields(made, value)
        case made if made is Literal:
            if any(type(value) is type(one) and value == one for one in arguments):
                return value
        case made if made is Union or made is types.UnionType:
            return _read_any(arguments, value)
        case made if made is tuple and type(value) is list:
            if arguments[-1] is ...:
                return tuple(read_plain(arguments[0], one) for one in value)
            if len(value) == len(arguments):
                return tuple(map(read_plain, arguments, value))
        case made if made is Mapping and type(value) is dict:
            return {
                read_plain(arguments[0], k): read_plain(arguments[1], v) for k, v in value.items()
            }
        case made if made is float and type(value) is int:
            if abs(value) <= _EXACT:
                return float(value)
        case made if made is float and type(value) is float:
            if math.isfinite(value):
                return value
        case made if made is str and type(value) is str:
            value.encode()  # fails for half a character, which JSON can name
            return value
        case made if made in (int, bool, type(None)) and type(value) is made:
            return value
    raise OddError(f"{value!r} for {kind}")


def _read_fields(kind: Any, value: Any) -> Any:
    declared = _declared(kind)
    if type(value) is not dict or not value.keys() <= declared.keys():
        raise OddError(f"{value!r} for {kind}")
    return kind(**{name: read_plain(declared[name], one) for name, one in value.items()})


def _read_any(kinds: tuple[Any, ...], value: Any) -> Any:
    for kind in kinds:
        try:
            return read_plain(kind, value)
        except OddError:
            continue
    raise OddError(f"{value!r} for any of {kinds}")


@cache
def _declared(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}

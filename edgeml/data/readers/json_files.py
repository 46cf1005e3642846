"""JSON files: parsed within limits, without anything that JSON does not define."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from edgeml.data.readers.rows import read_text
from edgeml.errors import DataError

# instances_train2017.json has 448 MB.
_MAX_BYTES = 1 << 30

# Outlines are nine tenths of a file: they are dropped while it is parsed.
_OUTLINES = ("segmentation", "bbox", "keypoints", "points", "rle")


def read_json(file: Path, name: str) -> Any:
    """Read a .json file of at most 1 GiB; the outlines of objects are left out.

    Raises:
        DataError: It is not JSON, is nested too deeply, or a key occurs twice in an object.
    """
    return parse_json(read_text(file, limit=_MAX_BYTES), name, leave_out=_OUTLINES)


def parse_json(text: str, name: str, *, leave_out: Sequence[str] = ()) -> Any:
    """Parse a JSON text without some keys; `name` is that of the file. See `read_json`."""

    def checked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) != len(pairs):
            names = [name for name, _ in pairs]
            repeated = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"the key {repeated!r} is duplicated in an object")
        for key in leave_out:
            fields.pop(key, None)
        return fields

    try:
        return json.loads(text, object_pairs_hook=checked, parse_constant=_no_constant)
    except json.JSONDecodeError as err:
        raise DataError(f"{name}, line {err.lineno}: {err.msg}.") from err
    except RecursionError as err:
        raise DataError(f"{name}: it is nested too deeply.") from err
    except ValueError as err:  # ours, or an integer of thousands of digits
        raise DataError(f"{name}: it is not valid JSON: {str(err)[:200]}.") from err


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")

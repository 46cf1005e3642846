"""Names of labels, in order: of files of every format, and of values in other tools' metadata."""

from __future__ import annotations

import ast
import csv
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeml.errors import SpecError, needs
from edgeml.spec.foreign.values import read_text

_NESTED = ("id2label", "names", "labels", "label_names", "class_names", "classes", "categories",
           "label2id", "class_to_idx", "class_indices")  # fmt: skip
_NAME_COLUMNS = ("name", "label", "display_name", "label_name", "class_name", "class", "names",
                 "labels", "classes", "category")  # fmt: skip
_NUMBERED = re.compile(r"(\d{1,6})(?:\s*[:,;\t]\s*|\s+)(\S.*)")
_SYNSET = re.compile(r"n\d+")
_MAX_LITERAL = 1 << 20
"""Characters of a literal, whose reading takes many times as much memory."""


def read_labels(path: Path) -> list[str]:
    """Read names of labels in the order of the outputs.

    A text has one name a line, perhaps after its number or its synset. JSON and YAML hold a list,
    or a table of numbers and names in either direction, perhaps under a key such as `names`, and
    perhaps with synsets, as ImageNet's. A .csv or .tsv has a column of names, and may have one of
    numbers. A name that occurs twice gets its number, whatever the format.

    Raises:
        SpecError: The file cannot be read, or does not state one name for each number.
    """
    text, source = read_text(path), path.name
    match path.suffix.lower():
        case ".json":
            return list(names_by_index(_parse_json(text, source), source))
        case ".yaml" | ".yml":
            return list(names_by_index(_parse_yaml(text, source), source))
        case ".csv" | ".tsv":
            return list(_names_of_table(text, source))
    if text.lstrip().startswith(("{", "[")):
        return list(names_by_index(parse_literal(text, source), source))
    return list(_names_of_lines(text, source))


def names_by_index(value: Any, source: str) -> tuple[str, ...]:
    """Return a list of names, or a table's names ordered by their numbers 0, 1, 2 and so on.

    The table is of numbers and names, or of names and numbers.
    """
    if isinstance(value, (list, tuple)) and value and all(isinstance(v, Mapping) for v in value):
        return _names_of_entries(value, source)
    if not isinstance(value, Mapping):
        return unique_names(value, source)
    for key in _NESTED:
        if isinstance(value.get(key), (list, tuple, Mapping)):
            return names_by_index(value[key], f"{source}: {key}")
    keys, values = [*value.keys()], [*value.values()]
    orders = [
        _in_order(numbers, names)
        for numbers, names in ((keys, values), (values, keys))
        if _are_numbers(numbers)
    ]
    if not orders and all(re.fullmatch(r"\d+", str(key)) for key in keys):
        missing = next(i for i in range(len(keys)) if str(i) not in set(map(str, keys)))
        raise SpecError(f"{source} has {len(keys)} names but none for {str(missing)!r}.")
    if not orders:
        raise SpecError(f"{source} is not a table of names and their numbers 0 to {len(keys) - 1}.")
    if any(list(map(str, order)) != list(map(str, orders[0])) for order in orders):
        raise SpecError(f"{source} has numbers on both sides: it is open which are the names.")
    return unique_names(orders[0], source)


def unique_names(value: Any, source: str) -> tuple[str, ...]:
    """Return a list of names; a name that occurs twice gets its number, since labels are unique.

    ImageNet has two cranes, a bird and a machine, and two maillots. A name may be a number, or
    stand behind its synset.
    """
    if not isinstance(value, (list, tuple)) or not value:
        raise SpecError(f"{source} is not a list of names.")
    names = [_name(one, source) for one in value]
    counts = Counter(names)
    return tuple(f"{name} {i}" if counts[name] > 1 else name for i, name in enumerate(names))


def _name(value: Any, source: str) -> str:
    if isinstance(value, (list, tuple)) and len(value) == 2 and _SYNSET.fullmatch(str(value[0])):
        value = value[1]
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise SpecError(f"{source} is not a list of names: {value!r:.60} is none.")
    if not value.strip():
        raise SpecError(f"{source} has an empty name; each output needs one.")
    return value


def _are_numbers(values: Sequence[Any]) -> bool:
    """Return whether values are 0, 1, 2 and so on, in any order, as numbers or as text."""
    return not any(isinstance(value, bool) for value in values) and set(map(str, values)) == set(
        map(str, range(len(values)))
    )


def _in_order(numbers: Sequence[Any], names: Sequence[Any]) -> list[Any]:
    by_number = dict(zip(map(str, numbers), names, strict=True))
    return [by_number[str(i)] for i in range(len(names))]


def _ordered(numbers: Sequence[Any], names: Sequence[Any]) -> list[Any] | None:
    """Return names by their numbers from 0, or as they are if the numbers count from 1."""
    if _are_numbers(numbers):
        return _in_order(numbers, names)
    counted = [str(number) for number in range(1, len(names) + 1)]
    return list(names) if list(map(str, numbers)) == counted else None


def _names_of_entries(entries: Sequence[Mapping[str, Any]], source: str) -> tuple[str, ...]:
    """Read entries such as {"id": 0, "name": "cat"}."""
    key = next((key for key in _NAME_COLUMNS if all(key in one for one in entries)), None)
    if key is None:
        raise SpecError(f"{source} has entries without a name; expected the key 'name' in each.")
    names: list[Any] | None = [one[key] for one in entries]
    for number in ("id", "index"):
        if names and all(number in one for one in entries):
            names = _ordered([one[number] for one in entries], names)
            break
    if names is None:
        raise SpecError(f"{source}: the numbers are not 0 to {len(entries) - 1}.")
    return unique_names(names, source)


def _names_of_lines(text: str, source: str) -> tuple[str, ...]:
    lines = [line.strip() for line in text.rstrip().splitlines()]
    if "" in lines:
        raise SpecError(
            f"{source}, line {lines.index('') + 1} is empty: each output needs a name. Remove the "
            "line if it stands for no output."
        )
    numbered = [match for line in lines if (match := _NUMBERED.fullmatch(line))]
    if numbered and len(numbered) == len(lines):
        numbers = [str(int(match[1])) for match in numbered]
        if ordered := _ordered(numbers, [match[2] for match in numbered]):
            lines = ordered
    if lines and all(re.fullmatch(r"n\d{8}\s+\S.*", line) for line in lines):
        lines = [line.split(None, 1)[1] for line in lines]
    return unique_names(lines, source)


def _names_of_table(text: str, source: str) -> tuple[str, ...]:
    """Read a table with a column of names, with or without numbers and a line of column names."""
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    rows = [
        [cell.strip() for cell in row]
        for row in csv.reader(text.splitlines(), delimiter=delimiter)
        if any(cell.strip() for cell in row)
    ]
    if not rows or any(len(row) != len(rows[0]) for row in rows):
        raise SpecError(
            f"{source} has rows of different lengths; put names with {delimiter!r} in quotes."
        )
    head = [cell.lower() for cell in rows[0]]
    named = [head.index(name) for name in _NAME_COLUMNS if name in head]
    for body in (rows, rows[1:]):
        columns = [list(column) for column in zip(*body, strict=True)]
        ordered = [_ordered(column, list(range(len(body)))) for column in columns]
        by_number = next((order for order in ordered if order), None)
        if by_number:
            break
    else:
        body = rows[1:] if named else rows
        columns, by_number = [list(column) for column in zip(*body, strict=True)], None
        ordered = [None] * len(columns)
    others = [i for i, order in enumerate(ordered) if order is None]
    if len(others) != 1 and not (named and columns):
        raise SpecError(
            f"{source} has {len(others)} columns of text; name the one with the names 'name'."
        )
    names = columns[others[0] if len(others) == 1 else named[0]]
    return unique_names([names[i] for i in by_number] if by_number else names, source)


def _parse_json(text: str, source: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as err:
        raise SpecError(f"{source} is not JSON: {err}.") from err


def _parse_yaml(text: str, source: str) -> Any:
    with needs("yaml", extra="train", to="read names from a .yaml"):
        import yaml
    try:
        # All values as text: `no` and `on` are names.
        return yaml.load(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError) as err:
        raise SpecError(f"{source} is not YAML: {' '.join(str(err).split())}.") from err


def parse_literal(text: str, source: str) -> Any:
    """Parse a Python literal: a table of ImageNet's names, or metadata of Ultralytics."""
    if len(text) > _MAX_LITERAL:
        raise SpecError(f"{source} has more than {_MAX_LITERAL:,} characters; refused.")
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError) as err:
        raise SpecError(f"{source} is {text[:60]!r}, which is not a Python literal.") from err

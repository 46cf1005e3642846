"""The labels in a cell of a table: separated, or written as a list."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Collection, Iterable

from edgeml.data.readers.rows import SEPARATOR, label_name, label_parts
from edgeml.errors import InputError

_NAMED_SEPARATORS = {"tab": "\t", "\\t": "\t", "space": " "}

# A label rarely contains one of these; any cell that does may hold several labels.
_PLAIN_SEPARATORS = (",", "|", "\t")

# These are common within one label: "hot dog", "t-shirt/top". The labels must show the separator.
_WORD_SEPARATORS = (" ", "/", "+", "&", ":")

_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
# numpy writes no comma between the items of a list.
_LIST = re.compile(rf"[\[({{]\s*(?:(?:{_QUOTED}|\d+\b)[\s,]*)*[\])}}]")
_ITEM = re.compile(rf"{_QUOTED}|\d+")
_MISSING = ("nan", "null", "n/a", "<na>", "#n/a")
"""How tools write a missing value: hardly ever the name of a label."""

_EMPTY = ("set()", "list()", "tuple()")


def checked_separator(separator: str | None) -> str | None:
    """Return a separator as one text: `tab` and `space` are names for what a shell swallows.

    Raises:
        InputError: It is empty, or longer than three characters.
    """
    if separator is None:
        return None
    text = _NAMED_SEPARATORS.get(separator.lower(), separator)
    if not 1 <= len(text) <= 3 or text.isalnum():
        raise InputError(f"The separator is {separator!r}; expected such as ';', ',', '|' or tab.")
    return text


def labels_in(cell: str, separator: str) -> tuple[str, ...]:
    """Return the labels in a cell, without empty ones and repetitions."""
    if not is_list(cell):
        return label_parts(cell, separator)
    items = (label_name(_unquoted(item)) for item in _ITEM.findall(cell))
    return tuple(dict.fromkeys(item for item in items if item))


def is_list(cell: str) -> bool:
    """Whether a cell is a list of quoted texts or numbers, as Python, numpy and JSON write them."""
    text = cell.strip()
    return text in _EMPTY or (text[:1] in ("[", "(", "{") and bool(_LIST.fullmatch(text)))


def _unquoted(item: str) -> str:
    if item.isdecimal():
        return item
    try:
        return str(ast.literal_eval(item))
    except (ValueError, SyntaxError):  # a line feed or a NUL
        return item[1:-1]


def cell_fault(cell: str) -> str | None:
    """Return why a cell that looks like a list cannot be read as one; None if nothing is wrong."""
    text = cell.strip()
    if text[:1] in ("[", "{") and text[-1:] in ("]", "}") and not is_list(cell):
        return (
            f"{text[:80]!r} looks like a list, but its items are not quoted texts: add quotes, or "
            "separate the labels by ';' without brackets."
        )
    return None


def missing_values(labels: Iterable[str]) -> list[str]:
    """Return labels that rather mean a missing value: `nan`, `N/A`."""
    return sorted(label for label in labels if label.lower() in _MISSING)


def other_separator(cells: Iterable[str], separator: str) -> str | None:
    """Return a separator that cells appear to use in place of the one in use; None if none.

    A comma, a bar or a tab counts if it is in a cell, and the separator in use is in none. Blanks
    and signs that occur within one label count only where the labels show it: all parts of a cell
    are also parts of other cells ("scab complex", "scab", "complex"), or one is a cell itself.
    """
    distinct = {cell.strip() for cell in cells if not is_list(cell) and not cell_fault(cell)}
    distinct.discard("")
    used = any(separator in cell.strip(separator) for cell in distinct)
    for other in _PLAIN_SEPARATORS:
        if other == separator:
            continue
        if any(other in cell for cell in distinct) and (not used or _shared(distinct, other)):
            return other
    if not used:
        return next((o for o in _WORD_SEPARATORS if o != separator and _shared(distinct, o)), None)
    return None


def refused_separator(cells: Iterable[str], separator: str | None) -> str | None:
    """Return a separator that cells appear to use although another is given, or none is.

    `;` is always accepted if it is given: it lets a label contain any other sign.
    """
    listed = list(cells)
    if separator is None:
        return other_separator(listed, SEPARATOR)
    if separator == SEPARATOR or any(separator in cell for cell in listed):
        return None
    plain = (SEPARATOR, *_PLAIN_SEPARATORS)
    texts = [cell for cell in listed if not is_list(cell) and not cell_fault(cell)]
    return next((other for other in plain if any(other in cell for cell in texts)), None)


def shares_words(names: Collection[str], separator: str) -> bool:
    """Whether the words of some name, joined by a separator, all occur in other names."""
    return _shared(set(names), separator)


def _shared(distinct: Collection[str], separator: str) -> bool:
    parts_of = {cell: label_parts(cell, separator) for cell in distinct}
    counts = Counter(part for parts in parts_of.values() for part in parts)
    alone = {parts[0] for parts in parts_of.values() if len(parts) == 1}
    several = [parts for parts in parts_of.values() if len(parts) > 1]
    return any(
        all(counts[part] > 1 for part in parts) or not alone.isdisjoint(parts) for parts in several
    )


def check_no_separator(table: str, separator: str | None) -> None:
    """Refuse a separator for a table in which each label has its own column."""
    if separator is not None:
        raise InputError(
            f"--separator {separator!r} would have no effect: in {table!r}, each label has its own "
            "column."
        )

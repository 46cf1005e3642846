"""Checks on all cells of a table that name labels: the separator, and values that are no labels."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from edgeml.data.readers.label_cells import (
    cell_fault,
    is_list,
    labels_in,
    missing_values,
    refused_separator,
)
from edgeml.data.readers.rows import printable
from edgeml.errors import DataError


def check_separator(table: Path, cells: Sequence[str], separator: str | None) -> None:
    """Refuse cells that appear to be separated by another text, and name the option.

    Raises:
        DataError: There are such cells.
    """
    other = refused_separator(cells, separator)
    if other is None:
        return
    example = next(c for c in cells if other in c.strip() and not is_list(c) and not cell_fault(c))
    written = {"\t": "tab", " ": "' '"}.get(other, f"'{other}'")
    raise DataError(
        f"{printable(table)!r}: the labels {printable(example[:80])!r} appear to be separated by "
        f"{other!r}: add --separator {written}, or --separator ';' if that is one label."
    )


def check_missing(
    table: Path, cells: Sequence[str], separator: str, stated: Collection[str]
) -> None:
    """Refuse labels such as `nan`, unless the user states them or a list has them in quotes.

    Raises:
        DataError: There are such cells.
    """
    plain = {cell for cell in cells if not is_list(cell)}
    labels = {label for cell in plain for label in labels_in(cell, separator)}
    if missing := missing_values(labels - set(stated)):
        raise DataError(
            f"{printable(table)!r} has the label {missing[0]!r}, which rather is a missing value: "
            f"leave the cell empty if the image has no label, or add --ignore-labels {missing[0]}."
        )

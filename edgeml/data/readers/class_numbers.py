"""Names for labels that a table gives as numbers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from edgeml.data.readers.columns import Columns, origin_of_names
from edgeml.data.readers.rows import Row, label_fault, label_name, printable
from edgeml.errors import DataError, SpecError
from edgeml.spec.foreign.label_names import read_labels
from edgeml.spec.model_spec import quoted_names

_FILES = ("classes.txt", "labels.txt", "class_names.txt", "names.txt", "obj.names")


def with_class_names(
    rows: list[Row], names: Sequence[str] | None, folder: Path, notes: list[str]
) -> list[Row]:
    """Replace labels that are numbers from 0 by the names with these numbers.

    Args:
        rows: All rows of a table.
        names: The names that the table itself states; None: those of a `classes.txt` next to it.
        folder: That of the table.
        notes: Gets a line with the file that was used.

    Raises:
        DataError: A number has no name.
    """
    if names is not None and any("-1" in row.present for row in rows):
        labelled = [row for row in rows if "-1" not in row.present]
        notes.append(f"{len(rows) - len(labelled)} images with the label -1 are left out: no label")
        rows = labelled
    numbers = {label for row in rows for label in row.present}
    if not numbers or not all(n.isdecimal() and n.isascii() and len(n) < 7 for n in numbers):
        return rows
    if names is None:
        file = next((folder / name for name in _FILES if os.path.isfile(folder / name)), None)
        # Without a 0, the numbers may count from 1.
        if file is None or "0" not in numbers:
            return rows
        try:
            names = read_labels(file)
        except SpecError as err:
            raise DataError(f"The labels are numbers, and {err}") from err
        notes.append(f"the labels are numbers, named by {file.name}")
    last = max(map(int, numbers))
    if last >= len(names):
        raise DataError(f"The label {last} has no name: there are {len(names)}, from 0.")
    names = [label_name(name) for name in names]
    if faults := [fault for name in names if (fault := label_fault(name))]:
        raise DataError(f"The name of a class cannot be a label: {faults[0]}.")
    return [
        replace(row, present=tuple(dict.fromkeys(names[int(number)] for number in row.present)))
        for row in rows
    ]


def column_with_classes(
    table: Path, columns: Columns, numbers: Mapping[str, Sequence[str]]
) -> Columns:
    """Read a column as one of labels if the table states names for its numbers."""
    classed = [name for name in columns.named if name in numbers]
    if len(classed) > 1:
        raise DataError(
            f"{printable(table)!r}: {quoted_names(classed)} have classes of their own: choose "
            f"one with --labels {classed[0]}."
        )
    if not classed:
        return columns
    origin, at = origin_of_names(classed), columns.named[classed[0]]
    return replace(columns, labels=at, named={}, origin=origin)

"""A data set as a table: .csv or .parquet."""

from __future__ import annotations

import csv
import io
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path

from edgeml.data.dataset import SIDES, Dataset
from edgeml.data.readers.parquet import LONGEST_CELL, parquet_header, parquet_rows
from edgeml.data.readers.rows import (
    SEPARATOR,
    Row,
    SkipLog,
    dataset_from_rows,
    label_fault,
    label_name,
    label_parts,
    printable,
    read_text,
    skip_or_raise,
    text_fault,
    usable_rows,
)
from edgeml.errors import DataError
from edgeml.spec.labels import LabelGroup

logger = logging.getLogger(__name__)

_MAX_BYTES = 1 << 28

_PATH = ("path", "filename", "file_name", "image")
_EXTRAS = ("label_groups", "group", "split")
RESERVED = {"path", "labels", *_EXTRAS}
"""Names of columns that cannot be the name of a label with a column of its own."""

_BOX = ("xmin", "ymin", "xmax", "ymax")

_MEANINGS = {
    "1": 1, "1.0": 1, "true": 1, "0": 0, "0.0": 0, "-0": 0, "-0.0": 0, "false": 0,
    "": -1, "-1": -1, "-1.0": -1, "nan": -1,
}  # fmt: skip

_Cells = Iterator[tuple[str, list[str]]]
"""The location of a row, and its cells in the order of the columns."""


@dataclass(frozen=True, kw_only=True)
class _Columns:
    """The indices of the columns."""

    path: int
    labels: int | None  # all labels of an image; None where each label has its own column
    named: dict[str, int]  # the columns of single labels
    boxes: bool  # whether a row is a bounding box of one object, so that an image has many rows
    extras: dict[str, int]  # the optional columns: label_groups, group and split


def read_table(table: Path, *, skips: SkipLog) -> Dataset:
    """Read a .csv or .parquet with one row per image.

    The column `path` (or filename, file_name, image) is relative to the folder of the table. Labels
    are in one column `labels`, separated by `;`, or each has its own column, whose cells are 1 or
    true, 0 or false, and empty or -1 for unknown. Optional: `group`, `split` and `label_groups`,
    which names the group of each label of its row, or of each column of a label. A table of
    bounding boxes (class, xmin, ymin, xmax, ymax) has a row for each box.
    """
    if table.suffix.lower() == ".csv":
        cells = _csv_cells(table, skips)
        columns = _columns(table, next(cells, ("", []))[1])
    else:
        names = parquet_header(table)
        columns = _columns(table, names)
        cells = _parquet_cells(table, names, columns, skips)
    if columns.labels is None:
        candidates, groups = _rows_by_column(table, columns, cells, skips)
        rows = _with_one_of_each(usable_rows(candidates, skips), groups, skips)
        labels = list(columns.named)
    else:
        named = _rows(table, columns, cells, skips)
        rows = usable_rows(_merged(named) if columns.boxes else named, skips)
        rows, groups = _collect_groups(rows, skips)
        labels = None
    if not rows and not skips:
        raise DataError(f"{printable(table)!r} has no rows below its header.")
    return dataset_from_rows(
        rows, root=table.parent, labels=labels, label_groups=groups, skips=skips
    )


def _parquet_cells(table: Path, names: list[str], columns: _Columns, skips: SkipLog) -> _Cells:
    """Read the columns that have a meaning; others may be large, for example encoded images."""
    wanted = [columns.path, *columns.named.values(), *columns.extras.values()]
    wanted += [] if columns.labels is None else [columns.labels]
    for number, cells in enumerate(parquet_rows(table, [names[at] for at in wanted]), start=1):
        where = f"{printable(table.name)}, row {number}"
        if max(map(len, cells)) > LONGEST_CELL:
            skip_or_raise(skips, where, f"a cell has more than {LONGEST_CELL} characters.")
            continue
        row = [""] * len(names)
        for at, cell in zip(wanted, cells, strict=True):
            row[at] = cell
        yield where, row


def _csv_cells(table: Path, skips: SkipLog) -> _Cells:
    """Yield the header of a .csv, then its rows without empty lines.

    A row that cannot be parsed ends with its first line: after a quote that never closes, the rest
    of the file would be one cell.
    """
    text = read_text(table, limit=_MAX_BYTES, keep_bad=skips is not None)
    lines = list(io.StringIO(text, newline=""))
    start, width = 0, 0
    while start < len(lines):
        reader = csv.reader((lines[at] for at in range(start, len(lines))), strict=True)
        first = start
        fault = ""
        try:
            for cells in reader:
                if cells and width and len(cells) != width:
                    fault = f"it has {len(cells)} fields, the first line has {width}."
                    break
                if cells:
                    width = width or len(cells)
                    yield f"{printable(table.name)}, line {first + 1}", cells
                first = start + reader.line_num
        except csv.Error as err:
            fault = f"{err}."
            if "unexpected end" in str(err):
                fault = "a quote opens that never closes."
        if not fault:
            return
        skip_or_raise(skips, f"{printable(table.name)}, line {first + 1}", fault)
        start = first + 1


def _columns(table: Path, header: list[str]) -> _Columns:
    names = [label_name(name) for name in header]
    path = next((name for name in _PATH if name in names), None)
    missing = [] if path else ["path"]
    extras = {name: names.index(name) for name in _EXTRAS if name in names}
    others = [name for name in names if name and name != path and name not in extras]
    boxes = "labels" not in names and "class" in names and set(_BOX) <= set(names)
    one = "labels" if "labels" in names else "class" if boxes else None
    if one is None and not (others and path):
        missing.append("labels")
    if missing:
        raise DataError(
            f"{printable(table)!r}, line 1: it has no column "
            f"{' and no column '.join(map(repr, missing))}; its first line is "
            f"{','.join(names)[:80]!r}. Expected path,labels[,group][,split], or path and a column "
            "for each label."
        )
    repeated = sorted({name for name in names if name and names.count(name) > 1})
    if repeated:
        raise DataError(f"{printable(table)!r}, line 1: the column {repeated[0]!r} is duplicated.")
    unused = [name for name in others if name != one] if one else []
    if unused or "" in names:
        unused += ["one without a name"] * ("" in names)
        logger.warning("%s: columns that are not used: %s", printable(table), ", ".join(unused))
    named = [] if one else others
    for name in named:
        if fault := label_fault(name):
            raise DataError(
                f"{printable(table)!r}, line 1: {name[:80]!r} cannot be a label: {fault}."
            )
    assert path is not None
    return _Columns(
        path=names.index(path),
        labels=names.index(one) if one else None,
        named={name: names.index(name) for name in named},
        boxes=boxes,
        extras=extras,
    )


def _rows(table: Path, columns: _Columns, cells: _Cells, skips: SkipLog) -> Iterator[Row]:
    assert columns.labels is not None
    groups_at = None if columns.boxes else columns.extras.get("label_groups")
    for where, texts in cells:
        labels = label_parts(texts[columns.labels])
        groups = _group_names(texts[groups_at]) if groups_at is not None else ()
        fault = _fault(texts, columns)
        if not fault and groups and len(groups) != len(labels):
            fault = f"{len(labels)} labels but {len(groups)} label groups."
        if fault:
            skip_or_raise(skips, where, fault)
        else:
            yield _row(table, where, texts, columns, present=labels, label_groups=groups)


def _rows_by_column(
    table: Path, columns: _Columns, cells: _Cells, skips: SkipLog
) -> tuple[list[Row], tuple[LabelGroup, ...]]:
    labels, places = list(columns.named), list(columns.named.values())
    groups_at = columns.extras.get("label_groups")
    groups: tuple[str, ...] = ()
    rows: list[Row] = []
    any_absent = False
    for where, texts in cells:
        values = [_MEANINGS.get(texts[at]) for at in places]
        if None in values:
            values = [_MEANINGS.get(texts[at].strip().lower()) for at in places]
        named = _group_names(texts[groups_at]) if groups_at is not None else ()
        fault = _fault(texts, columns)
        if not fault and None in values:
            at = values.index(None)
            fault = (
                f"the column {labels[at]!r} has {texts[places[at]][:80]!r}; without a column "
                "'labels' it must be 1, 0, or empty for unknown."
            )
        elif not fault and named and (len(named) != len(labels) or named != (groups or named)):
            fault = (
                f"label_groups must name a group, or none, for each of {len(labels)} labels, the "
                "same in all rows."
            )
        if fault:
            skip_or_raise(skips, where, fault)
            continue
        groups = groups or named
        any_absent = any_absent or 0 in values
        present = tuple(compress(labels, [value == 1 for value in values]))
        unknown = tuple(compress(labels, [value == -1 for value in values]))
        rows.append(_row(table, where, texts, columns, present=present, unknown=unknown))
    if rows and not any_absent:
        logger.warning("%s: no cell is 0; -1 or empty means unknown, not absent", printable(table))
    return rows, _groups_of_labels(dict(zip(labels, groups, strict=False)))


def _fault(texts: list[str], columns: _Columns) -> str | None:
    """Return what is wrong with a row apart from its labels; None if nothing is."""
    if fault := text_fault("".join(texts)):
        return f"{fault}."
    if not texts[columns.path].strip():
        return "the path is empty."
    split = _extra("split", texts, columns)
    if split and split not in SIDES:
        return f"the split is {split[:80]!r}; it must be one of {', '.join(SIDES)}."
    return None


def _row(
    table: Path,
    where: str,
    texts: list[str],
    columns: _Columns,
    *,
    present: tuple[str, ...],
    unknown: tuple[str, ...] = (),
    label_groups: tuple[str, ...] = (),
) -> Row:
    return Row(
        where=where,
        path=os.path.join(table.parent, texts[columns.path]),
        present=present,
        unknown=unknown,
        label_groups=label_groups,
        group=_extra("group", texts, columns),
        split=_extra("split", texts, columns),
    )


def _extra(name: str, texts: list[str], columns: _Columns) -> str:
    return texts[columns.extras[name]].strip() if name in columns.extras else ""


def _merged(rows: Iterator[Row]) -> list[Row]:
    """Merge the rows of each image, one per box, into one row."""
    merged: dict[tuple[str, str, str], Row] = {}
    for row in rows:
        key = row.path, row.group, row.split
        first = merged.setdefault(key, row)
        present = tuple(dict.fromkeys([*first.present, *row.present]))
        merged[key] = replace(first, present=present)
    return list(merged.values())


def _group_names(text: str) -> tuple[str, ...]:
    """Split a cell into names of label groups; return none if all are empty."""
    names = tuple(part.strip() for part in text.split(SEPARATOR))
    return names if any(names) else ()


def _collect_groups(rows: list[Row], skips: SkipLog) -> tuple[list[Row], tuple[LabelGroup, ...]]:
    """Return the label groups that the rows name, and the rows that fit them."""
    group_of: dict[str, str] = {}
    consistent = []
    for row in rows:
        names = row.label_groups or ("",) * len(row.present)
        stated = dict(zip(row.present, names, strict=True))
        other = [label for label, name in stated.items() if group_of.get(label, name) != name]
        if other:
            why = (
                f"{other[0]!r} is in the label group {stated[other[0]]!r}, "
                f"but in {group_of[other[0]]!r} before."
            )
            skip_or_raise(skips, row.where, why)
        else:
            group_of |= stated
            consistent.append(row)
    rows = _with_one_of_each(consistent, _groups_of_labels(group_of), skips)
    used = {label for row in rows for label in row.present}
    return rows, _groups_of_labels({label: group_of[label] for label in group_of if label in used})


def _with_one_of_each(
    rows: Sequence[Row], groups: tuple[LabelGroup, ...], skips: SkipLog
) -> list[Row]:
    """Leave out rows with two labels of a group, or with none though all its labels are known."""
    if not groups:
        return list(rows)
    members = [(group.name, frozenset(group.labels)) for group in groups]
    usable = []
    for row in rows:
        present, unknown = frozenset(row.present), frozenset(row.unknown)
        wrong = [
            name
            for name, labels in members
            if len(labels & present) != 1 and (labels & present or not labels & unknown)
        ]
        if wrong:
            why = f"it must have exactly one label of the group {wrong[0]!r}."
            skip_or_raise(skips, row.where, why)
        else:
            usable.append(row)
    return usable


def _groups_of_labels(group_of: Mapping[str, str]) -> tuple[LabelGroup, ...]:
    """Return label groups from the name of each label's group; an empty name means no group."""
    names = dict.fromkeys(name for name in group_of.values() if name)
    return tuple(
        LabelGroup(
            name=name,
            labels=tuple(sorted(label for label in group_of if group_of[label] == name)),
            rule="one",
        )
        for name in names
    )

"""A data set as a table, .csv or .parquet. Reading, and writing what reads back equal."""

from __future__ import annotations

import csv
import io
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path

import numpy as np

from edgeml.data.dataset import SIDES, Dataset, relative_name
from edgeml.data.readers.parquet import LONGEST_CELL, parquet_header, parquet_rows
from edgeml.data.readers.rows import (
    SEPARATOR,
    Row,
    Skips,
    dataset_from_rows,
    label_fault,
    label_name,
    label_parts,
    leave_out,
    read_text,
    shown,
    text_fault,
    usable_rows,
)
from edgeml.errors import DataError
from edgeml.files import write_text
from edgeml.spec.labels import LabelGroup

logger = logging.getLogger(__name__)

_MOST_BYTES = 1 << 28

_PATH = ("path", "filename", "file_name", "image")
_EXTRAS = ("label_groups", "group", "split")
_BOX = ("xmin", "ymin", "xmax", "ymax")

_MEANINGS = {
    "1": 1, "1.0": 1, "true": 1, "0": 0, "0.0": 0, "-0": 0, "-0.0": 0, "false": 0,
    "": -1, "-1": -1, "-1.0": -1, "nan": -1,
}  # fmt: skip

_Cells = Iterator[tuple[str, list[str]]]
"""Where a row stands, and its cells in the order of the columns."""


@dataclass(frozen=True, kw_only=True)
class _Columns:
    """Which column says what.

    Attributes:
        path: The picture.
        labels: All labels of a picture in one cell; None where each has a column of its own.
        named: The columns of single labels.
        boxes: Whether a row is one box around one thing, so that a picture has many.
        extras: Those of label_groups, group and split that there are.
    """

    path: int
    labels: int | None
    named: dict[str, int]
    boxes: bool
    extras: dict[str, int]


def read_table(table: Path, *, skips: Skips) -> Dataset:
    """Read a .csv or .parquet, one row a picture.

    The column `path` (or filename, file_name, image) is seen from the folder of the table. Labels
    stand in one column `labels`, separated by `;`, or each in a column of its own, whose cells are
    1 or true, 0 or false, and empty or -1 for unknown. Optional: `group`, `split` and
    `label_groups`, which names the group of each label that its row names, or of each column of a
    label. A table of boxes (class, xmin, ymin, xmax, ymax) has a row for each box.

    Raises:
        DataError: No such table, or a row that cannot be used; names file and line, or row.
    """
    if table.suffix.lower() == ".csv":
        cells = _csv_cells(table, skips)
        columns = _columns(table, next(cells, ("", []))[1])
    else:
        names = parquet_header(table)
        columns = _columns(table, names)
        cells = _parquet_cells(table, names, columns, skips)
    if columns.labels is None:
        found, groups = _rows_by_column(table, columns, cells, skips)
        rows = _keep_one_of_each(usable_rows(found, skips), groups, skips)
        labels = list(columns.named)
    else:
        told = _rows(table, columns, cells, skips)
        rows = usable_rows(_merged(told) if columns.boxes else told, skips)
        rows, groups = _label_groups(rows, skips)
        labels = None
    if not rows and not skips:
        raise DataError(f"{shown(table)!r} has no rows below its header.")
    return dataset_from_rows(
        rows, root=table.parent, labels=labels, label_groups=groups, skips=skips
    )


def write_split(dataset: Dataset, path: Path) -> None:
    """Write a divided data set as a .csv that `read_dataset` reads back, whole or not at all.

    Paths are relative to the folder of the .csv if they are below it, else absolute. Each label
    gets a column of its own if anything is unknown, or if no picture has it.

    Raises:
        DataError: It is not divided, or a name in it cannot be written.
        InputError: The folder of `path` cannot be written to.
    """
    if dataset.split is None:
        raise DataError("The data are not split yet: there is no split to write.")
    folder = Path(os.path.abspath(path)).parent
    columns = {"path": [relative_name(picture, folder) for picture in dataset.paths]}
    if dataset.known.all() and dataset.present.any(axis=0).all():
        columns |= _labels_in_one_column(dataset)
    else:
        columns |= _labels_in_columns(dataset)
    if dataset.groups is not None:
        columns["group"] = list(dataset.groups)
    columns["split"] = list(dataset.split)
    # The csv module quotes a line feed of its own accord, but not a lone carriage return.
    unusual = any("\r" in cell for name, column in columns.items() for cell in (name, *column))
    text = io.StringIO()
    writer = csv.writer(
        text, lineterminator="\n", quoting=csv.QUOTE_ALL if unusual else csv.QUOTE_MINIMAL
    )
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    try:
        write_text(Path(path), text.getvalue())
    except UnicodeEncodeError as err:
        name = text.getvalue()[err.start : err.end]
        raise DataError(f"A file name holds {name!r}, which is not UTF-8: rename it.") from err


def _labels_in_one_column(dataset: Dataset) -> dict[str, list[str]]:
    columns: dict[str, list[str]] = {"labels": [], "label_groups": []}
    group_of = _group_of_label(dataset)
    # Labels stand in the order of their groups: the first row then tells the order of the groups.
    order = list(dict.fromkeys([*group_of, *dataset.labels]))
    for row in range(len(dataset)):
        names = sorted(dataset.labels_of(row), key=order.index)
        columns["labels"].append(SEPARATOR.join(names))
        columns["label_groups"].append(SEPARATOR.join(group_of.get(name, "") for name in names))
    if not group_of:
        del columns["label_groups"]
    return columns


def _labels_in_columns(dataset: Dataset) -> dict[str, list[str]]:
    reserved = {"path", "labels", *_EXTRAS} & set(dataset.labels)
    if reserved:
        raise DataError(
            f"A label is named {min(reserved)!r}, as a column of the table is, and each label "
            "needs a column here, since some are unknown or have no picture: rename it."
        )
    group_of = _group_of_label(dataset)
    order = list(dict.fromkeys([*group_of, *dataset.labels]))
    words = np.array(["0", "1", ""])  # 0, 1 and -1, which is the last
    columns = {
        name: words[dataset.targets[:, dataset.labels.index(name)]].tolist() for name in order
    }
    if group_of:
        groups = SEPARATOR.join(group_of.get(name, "") for name in order)
        columns["label_groups"] = [groups] * len(dataset)
    return columns


def _group_of_label(dataset: Dataset) -> dict[str, str]:
    return {
        label: group.name
        for group in dataset.label_groups
        if group.rule == "one"
        for label in group.labels
    }


def _parquet_cells(table: Path, names: list[str], columns: _Columns, skips: Skips) -> _Cells:
    """Read the columns that mean something; a data set may keep whole pictures in others."""
    wanted = [columns.path, *columns.named.values(), *columns.extras.values()]
    wanted += [] if columns.labels is None else [columns.labels]
    for number, cells in enumerate(parquet_rows(table, [names[at] for at in wanted]), start=1):
        where = f"{shown(table.name)}, row {number}"
        if max(map(len, cells)) > LONGEST_CELL:
            leave_out(skips, where, f"a cell has more than {LONGEST_CELL} characters.")
            continue
        row = [""] * len(names)
        for at, cell in zip(wanted, cells, strict=True):
            row[at] = cell
        yield where, row


def _csv_cells(table: Path, skips: Skips) -> _Cells:
    """Give the header of a .csv, then its rows, empty lines left out.

    A row that cannot be taken apart ends with its first line: behind a quote that never closes
    the rest of the file would be one cell.
    """
    lines = list(
        io.StringIO(
            read_text(table, most=_MOST_BYTES, keep_bad=bool(skips is not None)), newline=""
        )
    )
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
                    yield f"{shown(table.name)}, line {first + 1}", cells
                first = start + reader.line_num
        except csv.Error as err:
            fault = _NEVER_CLOSES if "unexpected end" in str(err) else f"{err}."
        if not fault:
            return
        leave_out(skips, f"{shown(table.name)}, line {first + 1}", fault)
        start = first + 1


_NEVER_CLOSES = "a quote opens that never closes."


def _columns(table: Path, header: list[str]) -> _Columns:
    names = [label_name(name) for name in header]
    found = next((name for name in _PATH if name in names), None)
    absent = [] if found else ["path"]
    extras = {name: names.index(name) for name in _EXTRAS if name in names}
    others = [name for name in names if name and name != found and name not in extras]
    boxes = "labels" not in names and "class" in names and set(_BOX) <= set(names)
    one = "labels" if "labels" in names else "class" if boxes else None
    if one is None and not (others and found):
        absent.append("labels")
    if absent:
        said = " and no column ".join(map(repr, absent))
        raise DataError(
            f"{shown(table)!r}, line 1: it has no column {said}; its first line is "
            f"{','.join(names)[:80]!r}. Expected path,labels[,group][,split], or path and a column "
            "for each label."
        )
    again = sorted({name for name in names if name and names.count(name) > 1})
    if again:
        raise DataError(f"{shown(table)!r}, line 1: it names the column {again[0]!r} twice.")
    unused = [name for name in others if name != one] if one else []
    if unused or "" in names:
        said = ", ".join(unused + ["one without a name"] * ("" in names))
        logger.warning("%s: columns that are not used: %s", shown(table), said)
    named = [] if one else others
    for name in named:
        if fault := label_fault(name):
            raise DataError(f"{shown(table)!r}, line 1: {name[:80]!r} is no label: {fault}.")
    assert found is not None
    return _Columns(
        path=names.index(found),
        labels=names.index(one) if one else None,
        named={name: names.index(name) for name in named},
        boxes=boxes,
        extras=extras,
    )


def _rows(table: Path, columns: _Columns, cells: _Cells, skips: Skips) -> Iterator[Row]:
    assert columns.labels is not None
    groups_at = None if columns.boxes else columns.extras.get("label_groups")
    for where, texts in cells:
        labels = label_parts(texts[columns.labels])
        kinds = _kinds(texts[groups_at]) if groups_at is not None else ()
        fault = _fault(texts, columns)
        if not fault and kinds and len(kinds) != len(labels):
            fault = f"{len(labels)} labels but {len(kinds)} label groups."
        if fault:
            leave_out(skips, where, fault)
        else:
            yield _row(table, where, texts, columns, present=labels, kinds=kinds)


def _rows_by_column(
    table: Path, columns: _Columns, cells: _Cells, skips: Skips
) -> tuple[list[Row], tuple[LabelGroup, ...]]:
    labels, places = list(columns.named), list(columns.named.values())
    groups_at = columns.extras.get("label_groups")
    kinds: tuple[str, ...] = ()
    rows: list[Row] = []
    absent = False
    for where, texts in cells:
        values = [_MEANINGS.get(texts[at]) for at in places]
        if None in values:
            values = [_MEANINGS.get(texts[at].strip().lower()) for at in places]
        said = _kinds(texts[groups_at]) if groups_at is not None else ()
        fault = _fault(texts, columns)
        if not fault and None in values:
            at = values.index(None)
            fault = (
                f"the column {labels[at]!r} has {texts[places[at]][:80]!r}; without a column "
                "'labels' it must be 1, 0, or empty for unknown."
            )
        elif not fault and said and (len(said) != len(labels) or said != (kinds or said)):
            fault = (
                f"label_groups must name a group, or none, for each of {len(labels)} labels, the "
                "same in all rows."
            )
        if fault:
            leave_out(skips, where, fault)
            continue
        kinds = kinds or said
        absent = absent or 0 in values
        present = tuple(compress(labels, [value == 1 for value in values]))
        unknown = tuple(compress(labels, [value == -1 for value in values]))
        rows.append(_row(table, where, texts, columns, present=present, unknown=unknown))
    if rows and not absent:
        logger.warning("%s: no cell is 0; -1 or empty means unknown, not absent", shown(table))
    return rows, _groups_from(dict(zip(labels, kinds, strict=False)))


def _fault(texts: list[str], columns: _Columns) -> str | None:
    """Say what is wrong with a row, whatever columns its labels are in."""
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
    kinds: tuple[str, ...] = (),
) -> Row:
    return Row(
        where=where,
        path=os.path.join(table.parent, texts[columns.path]),
        present=present,
        unknown=unknown,
        kinds=kinds,
        group=_extra("group", texts, columns),
        split=_extra("split", texts, columns),
    )


def _extra(name: str, texts: list[str], columns: _Columns) -> str:
    return texts[columns.extras[name]].strip() if name in columns.extras else ""


def _merged(rows: Iterator[Row]) -> list[Row]:
    """Make one row of the boxes of each picture."""
    merged: dict[tuple[str, str, str], Row] = {}
    for row in rows:
        key = row.path, row.group, row.split
        first = merged.setdefault(key, row)
        present = tuple(dict.fromkeys([*first.present, *row.present]))
        merged[key] = replace(first, present=present)
    return list(merged.values())


def _kinds(text: str) -> tuple[str, ...]:
    """Take the names of label groups apart; none where all are empty."""
    groups = tuple(part.strip() for part in text.split(SEPARATOR))
    return groups if any(groups) else ()


def _label_groups(rows: list[Row], skips: Skips) -> tuple[list[Row], tuple[LabelGroup, ...]]:
    """Find the label groups that the rows name, and leave out the rows that break them."""
    group_of: dict[str, str] = {}
    agreed = []
    for row in rows:
        kinds = row.kinds or ("",) * len(row.present)
        said = dict(zip(row.present, kinds, strict=True))
        other = [name for name, kind in said.items() if group_of.get(name, kind) != kind]
        if other:
            why = (
                f"{other[0]!r} is in the label group {said[other[0]]!r}, "
                f"but in {group_of[other[0]]!r} before."
            )
            leave_out(skips, row.where, why)
        else:
            group_of |= said
            agreed.append(row)
    groups = _groups_from(group_of)
    kept = _keep_one_of_each(agreed, groups, skips)
    left = {name for row in kept for name in row.present}
    return kept, _groups_from({name: kind for name, kind in group_of.items() if name in left})


def _keep_one_of_each(
    rows: Sequence[Row], groups: tuple[LabelGroup, ...], skips: Skips
) -> list[Row]:
    """Leave out rows that have two labels of a group, or none though all of it is known."""
    if not groups:
        return list(rows)
    members = [(group.name, frozenset(group.labels)) for group in groups]
    kept = []
    for row in rows:
        present, unknown = frozenset(row.present), frozenset(row.unknown)
        wrong = [
            name
            for name, labels in members
            if len(labels & present) != 1 and (labels & present or not labels & unknown)
        ]
        if wrong:
            leave_out(skips, row.where, f"it must have one label of the group {wrong[0]!r}.")
        else:
            kept.append(row)
    return kept


def _groups_from(group_of: dict[str, str]) -> tuple[LabelGroup, ...]:
    names = list(dict.fromkeys(group for group in group_of.values() if group))
    return tuple(
        LabelGroup(
            name=name,
            labels=tuple(sorted(label for label, group in group_of.items() if group == name)),
            rule="one",
        )
        for name in names
    )

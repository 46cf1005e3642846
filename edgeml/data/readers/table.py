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
from edgeml.data.readers.columns import Columns, columns_of
from edgeml.data.readers.image_places import ImagePlaces
from edgeml.data.readers.label_cells import cell_fault, is_list, labels_in, refused_separator
from edgeml.data.readers.parquet import LONGEST_CELL, parquet_header, parquet_rows
from edgeml.data.readers.roots import with_root
from edgeml.data.readers.rows import (
    SEPARATOR,
    SIDE_OF_FOLDER,
    Row,
    SkipLog,
    dataset_from_rows,
    label_fault,
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

_MEANINGS = {
    "1": 1, "1.0": 1, "true": 1, "0": 0, "0.0": 0, "-0": 0, "-0.0": 0, "false": 0,
    "": -1, "-1": -1, "-1.0": -1, "nan": -1,
}  # fmt: skip

_Cells = Iterator[tuple[str, list[str]]]
"""The location of a row, and its cells in the order of the columns."""

_Listed = list[tuple[str, list[str]]]


@dataclass(frozen=True)
class TableOptions:
    """What the user states about a table.

    Attributes:
        separator: Separates the labels in a cell; None: `;`, unless the cells contradict it.
        labels: The names of the labels, or of their columns; empty: all.
        ignored: Labels, or their columns, that are not read.
        root: The folder that paths start from; None: the table's own.
    """

    separator: str | None = None
    labels: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    root: Path | None = None


def read_table(table: Path, *, skips: SkipLog, options: TableOptions | None = None) -> Dataset:
    """Read a .csv or .parquet with one row per image, or one row per image and label.

    The column `path` (or filename, image, image_path, ...) is relative to the folder of the table;
    a suffix may be missing, and blanks and backslashes are accepted. Labels are in one column
    `labels` (label, tags, class, ...), separated by `;` or written as a list, or each has its own
    column, whose cells are 1 or true, 0 or false, and empty or -1 for unknown. Optional: `group`,
    `split` or `is_valid`, `data_root`, the folder that the path starts from, and `label_groups`,
    which names the group of each label of its row, or of each column of a label. Rows of one image
    are joined if each has a single label, or is a bounding box (class, xmin, ymin, xmax, ymax).
    """
    options = options or TableOptions()
    named = {"labels": options.labels, "ignored": options.ignored}
    if table.suffix.lower() == ".csv":
        cells = _csv_cells(table, skips)
        columns = columns_of(table, next(cells, ("", []))[1], **named)
    else:
        names = parquet_header(table)
        columns = columns_of(table, names, **named)
        cells = _parquet_cells(table, names, columns, skips)
    listed, root = with_root(cells, columns, table=table, root=options.root)
    places = ImagePlaces(root)
    notes: list[str] = []
    if columns.labels is None:
        if options.separator is not None:
            raise DataError(
                f"--separator {options.separator!r} would have no effect: in {printable(table)!r}, "
                "each label has its own column."
            )
        candidates, groups = _rows_by_column(places, table, columns, listed, skips)
        rows = _with_one_of_each(usable_rows(candidates, skips), groups, skips)
        labels = list(columns.named)
    else:
        candidates = _rows(places, table, columns, listed, options, skips)
        if columns.boxes or all(len(row.present) < 2 for row in candidates):
            candidates = _joined(candidates, notes)
        rows, groups = _collect_groups(usable_rows(candidates, skips), skips)
        labels = None
    _check_ignored(table, options.ignored, {*columns.unused, *(labels or _names_of(rows))})
    if not rows and not skips:
        raise DataError(f"{printable(table)!r} has no rows below its header.")
    return replace(
        dataset_from_rows(rows, root=root, labels=labels, label_groups=groups, skips=skips),
        labels_from=columns.origin,
        notes=(*places.notes(), *notes),
    )


def _parquet_cells(table: Path, names: list[str], columns: Columns, skips: SkipLog) -> _Cells:
    """Read the columns that have a meaning; others may be large, for example encoded images."""
    wanted = columns.wanted()
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
        reader = csv.reader(
            (lines[at] for at in range(start, len(lines))), strict=True, skipinitialspace=True
        )
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


def _rows(
    places: ImagePlaces,
    table: Path,
    columns: Columns,
    listed: _Listed,
    options: TableOptions,
    skips: SkipLog,
) -> list[Row]:
    assert columns.labels is not None
    groups_at = None if columns.boxes else columns.extras.get("label_groups")
    _check_separator(table, [texts[columns.labels] for _, texts in listed], options.separator)
    separator = SEPARATOR if options.separator is None else options.separator
    rows = []
    for where, texts in listed:
        cell = texts[columns.labels]
        labels = labels_in(cell, separator)
        groups = _group_names(texts[groups_at]) if groups_at is not None else ()
        fault = _fault(texts, columns) or cell_fault(cell)
        if not fault and groups and len(groups) != len(labels):
            fault = f"{len(labels)} labels but {len(groups)} label groups."
        if not fault and (faults := [why for name in labels if (why := label_fault(name))]):
            fault = f"{cell[:80]!r} cannot be labels: {faults[0]}."
        if not fault and columns.confidence is not None:
            confidence = _MEANINGS.get(texts[columns.confidence].strip().lower())
            labels = labels if confidence == 1 else ()
            if confidence not in (0, 1):
                fault = f"the confidence is {texts[columns.confidence][:80]!r}; it must be 1 or 0."
        if fault:
            skip_or_raise(skips, where, fault)
        else:
            row = _row(places, where, texts, columns, present=labels, label_groups=groups)
            rows.append(row)
    return rows


def _names_of(rows: Sequence[Row]) -> set[str]:
    return {label for row in rows for label in row.present}


def _check_ignored(table: Path, ignored: Sequence[str], known: set[str]) -> None:
    missing = sorted(set(ignored) - known)
    if missing:
        raise DataError(f"{printable(table)!r} has neither a label nor a column {missing[0]!r}.")


def _check_separator(table: Path, cells: list[str], separator: str | None) -> None:
    other = refused_separator(cells, separator)
    if other is None:
        return
    example = next(cell for cell in cells if other in cell.strip() and not is_list(cell))
    written = {"\t": "tab", " ": "' '"}.get(other, f"'{other}'")
    raise DataError(
        f"{printable(table)!r}: the labels {printable(example[:80])!r} appear to be separated by "
        f"{other!r}: add --separator {written}, or --separator ';' if that is one label."
    )


def _rows_by_column(
    places: ImagePlaces, table: Path, columns: Columns, listed: _Listed, skips: SkipLog
) -> tuple[list[Row], tuple[LabelGroup, ...]]:
    labels, indices = list(columns.named), list(columns.named.values())
    groups_at = columns.extras.get("label_groups")
    groups: tuple[str, ...] = ()
    rows: list[Row] = []
    any_absent = False
    for where, texts in listed:
        values = [_MEANINGS.get(texts[at]) for at in indices]
        if None in values:
            values = [_MEANINGS.get(texts[at].strip().lower()) for at in indices]
        named = _group_names(texts[groups_at]) if groups_at is not None else ()
        fault = _fault(texts, columns)
        if not fault and None in values:
            at = values.index(None)
            fault = (
                f"the column {labels[at]!r} has {texts[indices[at]][:80]!r}; without a column "
                "'labels' it must be 1, 0, or empty for unknown; --ignore-labels leaves it out."
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
        rows.append(_row(places, where, texts, columns, present=present, unknown=unknown))
    if rows and not any_absent:
        logger.warning("%s: no cell is 0; -1 or empty means unknown, not absent", printable(table))
    return rows, _groups_of_labels(dict(zip(labels, groups, strict=False)))


def _fault(texts: list[str], columns: Columns) -> str | None:
    """Return what is wrong with a row apart from its labels; None if nothing is."""
    if fault := text_fault("".join(texts)):
        return f"{fault}."
    if not texts[columns.path].strip():
        return "the path is empty."
    split = _extra("split", texts, columns)
    if split and split.lower() not in SIDE_OF_FOLDER:
        return (
            f"the split is {split[:80]!r}; it must be one of {', '.join(SIDES)}; or "
            "leave the column out with --ignore-labels."
        )
    for at in columns.flags:
        if _MEANINGS.get(texts[at].strip().lower()) not in (0, 1):
            return f"{texts[at][:80]!r} does not say whether it is a {columns.flags[at]} image."
    return None


def _row(
    places: ImagePlaces,
    where: str,
    texts: list[str],
    columns: Columns,
    *,
    present: tuple[str, ...],
    unknown: tuple[str, ...] = (),
    label_groups: tuple[str, ...] = (),
) -> Row:
    return Row(
        where=where,
        path=places.find(texts[columns.path]),
        present=present,
        unknown=unknown,
        label_groups=label_groups,
        group=_extra("group", texts, columns),
        split=_side(texts, columns),
    )


def _side(texts: list[str], columns: Columns) -> str:
    if columns.flags:
        meant = [at for at in columns.flags if _MEANINGS[texts[at].strip().lower()] == 1]
        return columns.flags[meant[0]] if meant else "train"
    return SIDE_OF_FOLDER.get(_extra("split", texts, columns).lower(), "")


def _extra(name: str, texts: list[str], columns: Columns) -> str:
    return texts[columns.extras[name]].strip() if name in columns.extras else ""


def _joined(rows: list[Row], notes: list[str]) -> list[Row]:
    """Join the rows of each image into one row; add a note of how many there were."""
    joined: dict[tuple[str, str, str], Row] = {}
    for row in rows:
        key = os.path.normpath(row.path), row.group, row.split
        first = joined.setdefault(key, row)
        if first is row:
            continue
        groups = dict(zip(first.present, first.label_groups, strict=False))
        groups |= dict(zip(row.present, row.label_groups, strict=False))
        present = tuple(dict.fromkeys([*first.present, *row.present]))
        joined[key] = replace(
            first,
            present=present,
            label_groups=tuple(groups.get(label, "") for label in present) if groups else (),
        )
    if len(joined) < len(rows):
        notes.append(f"{len(rows)} rows are joined into {len(joined)}, one for each image")
    return list(joined.values())


def _group_names(text: str) -> tuple[str, ...]:
    """Split a cell into names of label groups; return none if all are empty."""
    names = tuple(part.strip() for part in text.split(SEPARATOR))
    if is_list(text):
        names = labels_in(text, SEPARATOR)
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

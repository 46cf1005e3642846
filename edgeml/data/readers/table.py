"""A data set as one or more tables: .csv, .tsv, .jsonl or .parquet."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, compress
from pathlib import Path

from edgeml.data.dataset import SIDES, Dataset, Side, relative_name
from edgeml.data.readers.cell_checks import check_missing, check_separator
from edgeml.data.readers.class_numbers import column_with_classes, with_class_names
from edgeml.data.readers.columns import Columns, columns_of, names_images, origin_of_names
from edgeml.data.readers.csv_text import Cells, csv_cells, json_cells, jsonl_cells
from edgeml.data.readers.image_places import ImagePlaces
from edgeml.data.readers.label_cells import cell_fault, check_no_separator, is_list, labels_in
from edgeml.data.readers.label_groups import collect_groups, groups_of_labels, with_one_of_each
from edgeml.data.readers.label_studio import is_label_studio_table, rows_of_table
from edgeml.data.readers.parquet import class_names, parquet_cells, parquet_header
from edgeml.data.readers.parquet_images import image_column, unpacked_rows
from edgeml.data.readers.roots import check_some_exist, usual_places, with_root
from edgeml.data.readers.rows import (
    SEPARATOR,
    SIDE_OF_FOLDER,
    Row,
    SkipLog,
    dataset_from_rows,
    joined_rows,
    label_fault,
    printable,
    rows_on_side,
    skip_or_raise,
    split_by_folder,
    text_fault,
    usable_rows,
)
from edgeml.errors import DataError
from edgeml.spec.labels import LabelGroup
from edgeml.spec.model_spec import some_names

logger = logging.getLogger(__name__)

MEANINGS = {
    "1": 1, "1.0": 1, "1,0": 1, "true": 1, "yes": 1, "y": 1,
    "0": 0, "0.0": 0, "0,0": 0, "-0": 0, "-0.0": 0, "false": 0, "no": 0, "n": 0,
    "": -1, "-1": -1, "-1.0": -1, "-1,0": -1, "nan": -1,
}  # fmt: skip
"""What a cell of a column of one label means, in lower case: 1, 0, or -1 for unknown."""

_NUMBERED = re.compile(r"(label|class|tag|category|attribute)s?[\s_-]*\d+", re.IGNORECASE)


@dataclass(frozen=True)
class TableOptions:
    """What the user states about a table.

    Attributes:
        separator: Separates the labels in a cell; None: `;`, unless the cells contradict it.
        labels: The names of the labels, or of their columns; empty: all.
        ignored: Labels, or their columns, that are not read.
        unpack: A folder to write images to that a table contains; None: that is an error.
        root: The folder that paths start from; None: the one that the table states, or its own.
    """

    separator: str | None = None
    labels: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    unpack: Path | None = None
    root: Path | None = None


@dataclass(frozen=True)
class _Content:
    """The rows of a table and the root of its paths; `labels` are columns, None if in cells."""

    rows: list[Row]
    labels: tuple[str, ...] | None
    groups: tuple[LabelGroup, ...]
    unused: tuple[str, ...]
    origin: str
    root: Path


def read_table(table: Path, *, skips: SkipLog, options: TableOptions | None = None) -> Dataset:
    """Read a table with one row per image, or one row per image and label.

    The column `path` (or filename, image, image_path, ...) is relative to the folder of the table;
    a suffix may be missing, and blanks and backslashes are accepted. Labels are in one column
    `labels` (label, tags, class, ...), separated by `;` or written as a list, or each has its own
    column, whose cells are 1, true or yes; 0, false or no; and empty or -1 for unknown. Optional:
    `group`, `split` or `is_valid`, `data_root`, the folder that the path starts from, and
    `label_groups`, which names the group of each label of its row, or of each column of a label.
    Rows of one image are joined if each has a single label, or is a bounding box (class, xmin,
    ymin, xmax, ymax).
    """
    return read_tables({table: None}, root=table.parent, skips=skips, options=options)


def read_tables(
    tables: Mapping[Path, Side | None],
    *,
    root: Path,
    skips: SkipLog,
    options: TableOptions | None = None,
    split_by_path: bool = False,
) -> Dataset:
    """Read tables as one data set; each may have the side of the split that its images are on.

    With `split_by_path`, the first folder of a path (`train/1.jpg`) is a side if all are.
    """
    options = options or TableOptions()
    notes: list[str] = []
    contents = [
        _content(table, side, printable(relative_name(table, root)), notes, skips, options)
        for table, side in tables.items()
    ]
    candidates, labels = _with_all_columns(list(tables), contents)
    rows = usable_rows(candidates, skips)
    if labels is not None:
        groups = contents[0].groups
        rows = with_one_of_each(rows, groups, skips)
    else:
        rows, groups = collect_groups(rows, skips)
    if split_by_path and not any(row.split for row in rows):
        rows = split_by_folder(rows, root)
    unused = {name for content in contents for name in content.unused}
    first = next(iter(tables))
    _check_ignored(first, options.ignored, unused.union(labels or _names_of(rows)))
    if not rows and not skips:
        raise DataError(f"{printable(first)!r} has no rows below its header.")
    if contents[0].root != first.parent:
        root = contents[0].root
    return replace(
        dataset_from_rows(rows, root=root, labels=labels, label_groups=groups, skips=skips),
        labels_from=contents[0].origin,
        notes=tuple(notes),
    )


def _with_all_columns(
    tables: Sequence[Path], contents: Sequence[_Content]
) -> tuple[list[Row], list[str] | None]:
    """Return the rows of all tables, and the labels that have columns; None if cells name them.

    A label without a column in one of the tables is unknown for its images.
    """
    rows = list(chain.from_iterable(content.rows for content in contents))
    if all(content.labels is None for content in contents):
        return rows, None
    labels = sorted({label for content in contents for label in content.labels or ()})
    rows = []
    for table, content in zip(tables, contents, strict=True):
        if content.labels is None:
            raise DataError(
                f"{printable(table)!r} has a column of labels, but other tables do not."
            )
        missing = tuple(label for label in labels if label not in content.labels)
        rows += [replace(row, unknown=(*row.unknown, *missing)) for row in content.rows]
    return rows, labels


def _content(
    table: Path,
    side: Side | None,
    name: str,
    notes: list[str],
    skips: SkipLog,
    options: TableOptions,
) -> _Content:
    places = ImagePlaces(options.root or table.parent, usual_places(table))
    header, cells, numbers = _open(table, name, skips, options)
    if is_label_studio_table(header):
        rows, origin = rows_of_table(header, cells, places, options.ignored, notes, skips)
        notes += places.notes()
        sided = rows_on_side(rows, side)
        return _Content(sided, None, (), options.ignored, origin, table.parent)
    columns = columns_of(table, header, labels=options.labels, ignored=options.ignored)
    if columns.unused:
        unused = some_names(columns.unused)
        logger.warning("%s: columns that are not used: %s", printable(table), unused)
    columns = column_with_classes(table, columns, numbers)
    if columns.labels is None:
        columns, cells = _names_in_columns(columns, cells, bool(options.labels))
    cells, start = with_root(cells, columns, table=table, root=options.root)
    groups: tuple[LabelGroup, ...] = ()
    if columns.labels is None:
        check_no_separator(printable(table), options.separator)
        rows, groups = _rows_by_column(places, table, columns, cells, skips)
    else:
        rows = _rows(places, table, columns, cells, options, skips)
        rows = with_class_names(rows, numbers.get(header[columns.labels]), table.parent, notes)
        if columns.boxes or all(len(row.present) < 2 for row in rows):
            rows = joined_rows(rows, notes)
    if skips is None:
        check_some_exist(rows)
    notes += places.notes()
    named = None if columns.labels is not None else tuple(columns.named)
    sided = rows_on_side(rows, side)
    return _Content(sided, named, groups, columns.unused, columns.origin, start)


def _open(
    table: Path, name: str, skips: SkipLog, options: TableOptions
) -> tuple[list[str], Cells, Mapping[str, Sequence[str]]]:
    """Return the header, the cells of the rows, and names for the numbers in some columns."""
    suffix = table.suffix.lower()
    if suffix != ".parquet":
        cells = {".jsonl": jsonl_cells, ".json": json_cells}.get(suffix, csv_cells)(
            table, name, skips
        )
        return next(cells, ("", []))[1], cells, {}
    images = image_column(table)
    header = parquet_header(table, images=images is not None)
    if images is not None:
        header = ["path" if n == images else "" if names_images(n) else n for n in header]
    wanted = columns_of(table, header, labels=options.labels, ignored=options.ignored).wanted()
    if images is not None:
        cells = unpacked_rows(table, name, images, wanted, options.unpack, skips)
    else:
        cells = parquet_cells(table, name, header, wanted, skips)
    return header, cells, class_names(table)


def _names_in_columns(columns: Columns, cells: Cells, chosen: bool) -> tuple[Columns, Cells]:
    """Read columns such as label_1 and label_2, or chosen ones, as one if labels are in them."""
    numbered = len(columns.named) > 1 and all(map(_NUMBERED.fullmatch, columns.named))
    if not chosen and not numbered:
        return columns, cells
    at, listed = list(columns.named.values()), list(cells)
    filled = {texts[n].strip().lower() for _, texts in listed for n in at} - {""}
    if not filled or filled & set(MEANINGS):
        return columns, iter(listed)
    if len(at) > 1:
        for _, texts in listed:
            texts[at[0]] = json.dumps([texts[n] for n in at], ensure_ascii=False)
    origin = origin_of_names([*columns.named])
    return replace(columns, labels=at[0], named={}, origin=origin), iter(listed)


def _rows(
    places: ImagePlaces,
    table: Path,
    columns: Columns,
    cells: Cells,
    options: TableOptions,
    skips: SkipLog,
) -> list[Row]:
    assert columns.labels is not None
    groups_at = None if columns.boxes else columns.extras.get("label_groups")
    listed = list(cells)
    separator = SEPARATOR if options.separator is None else options.separator
    label_cells = [texts[columns.labels] for _, texts in listed]
    check_separator(table, label_cells, options.separator)
    check_missing(table, label_cells, separator, (*options.labels, *options.ignored))
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
            confidence = MEANINGS.get(texts[columns.confidence].strip().lower())
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


def _rows_by_column(
    places: ImagePlaces, table: Path, columns: Columns, cells: Cells, skips: SkipLog
) -> tuple[list[Row], tuple[LabelGroup, ...]]:
    labels, indices = list(columns.named), list(columns.named.values())
    groups_at = columns.extras.get("label_groups")
    groups: tuple[str, ...] = ()
    rows: list[Row] = []
    any_absent = any_empty = False
    for where, texts in cells:
        values = [MEANINGS.get(texts[at]) for at in indices]
        if None in values:
            values = [MEANINGS.get(texts[at].strip().lower()) for at in indices]
        named = _group_names(texts[groups_at]) if groups_at is not None else ()
        fault = _fault(texts, columns)
        if not fault and None in values:
            at = values.index(None)
            fault = (
                f"the column {labels[at]!r} has {texts[indices[at]][:80]!r}; without a column "
                "'labels' it must be 1, 0, or empty for unknown; --ignore-labels leaves it out, "
                "and --labels names the columns to read."
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
        any_empty = any_absent or any_empty or any(not texts[at].strip() for at in indices)
        present = tuple(compress(labels, [value == 1 for value in values]))
        unknown = tuple(compress(labels, [value == -1 for value in values]))
        rows.append(_row(places, where, texts, columns, present=present, unknown=unknown))
    if any(row.unknown for row in rows) and not any_empty:
        raise DataError(
            f"{printable(table)!r}: no cell is 0, and -1 means unknown here. Write 0 where a "
            "label is absent, as -1 means in CelebA's, or leave cells of unknown labels empty."
        )
    if rows and not any_absent:
        logger.warning("%s: no cell is 0; -1 or empty means unknown, not absent", printable(table))
    return rows, groups_of_labels(dict(zip(labels, groups, strict=False)))


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
        if MEANINGS.get(texts[at].strip().lower()) not in (0, 1):
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
        meant = [at for at in columns.flags if MEANINGS[texts[at].strip().lower()] == 1]
        return columns.flags[meant[0]] if meant else "train"
    return SIDE_OF_FOLDER.get(_extra("split", texts, columns).lower(), "")


def _extra(name: str, texts: list[str], columns: Columns) -> str:
    return texts[columns.extras[name]].strip() if name in columns.extras else ""


def _group_names(text: str) -> tuple[str, ...]:
    """Split a cell into names of label groups; return none if all are empty."""
    names = tuple(part.strip() for part in text.split(SEPARATOR))
    if is_list(text):
        names = labels_in(text, SEPARATOR)
    return names if any(names) else ()

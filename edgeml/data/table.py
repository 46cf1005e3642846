"""A data set as a .csv: one row a picture. Reading, and writing what reads back equal."""

from __future__ import annotations

import csv
import io
import logging
import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from edgeml.data.dataset import SIDES, Dataset, Side, relative_name, targets_from_names
from edgeml.errors import DataError
from edgeml.files import write_text
from edgeml.spec import LabelGroup

logger = logging.getLogger(__name__)

SEPARATOR = ";"
"""Between the labels of a picture."""

_COLUMNS = ("path", "labels", "label_groups", "group", "split")


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One picture, and where the table says so."""

    where: str
    path: Path
    labels: tuple[str, ...]
    label_groups: tuple[str, ...]
    group: str
    split: str

    def says(self) -> tuple[object, ...]:
        """Give what two rows of one picture must agree on."""
        return frozenset(self.labels), self.group, self.split


def read_table(table: Path) -> Dataset:
    """Read a .csv with the columns path, labels and perhaps label_groups, group, split.

    Raises:
        DataError: No such table, or a row that cannot be used; names file and line.
    """
    rows = _without_repeats(_rows(table))
    if not rows:
        raise DataError(f"{str(table)!r} has no rows below its header.")
    missing = [row for row in rows if not row.path.is_file()]
    if missing:
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"{missing[0].where}: there is no picture {str(missing[0].path)!r}{more}.")
    labels, targets = targets_from_names([row.labels for row in rows])
    groups = tuple(row.group for row in rows)
    return Dataset(
        root=table.parent,
        paths=tuple(row.path for row in rows),
        labels=labels,
        targets=targets,
        groups=groups if any(groups) else None,
        split=_split_column(rows),
        label_groups=_label_groups(rows),
    )


def write_split(dataset: Dataset, path: Path) -> None:
    """Write a divided data set as a .csv that `read_dataset` reads back, whole or not at all.

    Paths are relative to the folder of the .csv if they are below it, else absolute.

    Raises:
        DataError: It is not divided, or a name in it cannot be written in UTF-8.
        InputError: The folder of `path` cannot be written to.
    """
    if dataset.split is None:
        raise DataError("The data are not divided yet: there is no split to write.")
    columns: dict[str, list[str]] = {"path": [], "labels": [], "label_groups": []}
    folder = Path(os.path.abspath(path)).parent
    group_of = {
        label: group.name
        for group in dataset.label_groups
        if group.rule == "one"
        for label in group.labels
    }
    # Labels stand in the order of their groups: the first row then tells the order of the groups.
    order = list(dict.fromkeys([*group_of, *dataset.labels]))
    for row, picture in enumerate(dataset.paths):
        names = sorted(dataset.labels_of(row), key=order.index)
        columns["path"].append(relative_name(picture, folder))
        columns["labels"].append(SEPARATOR.join(names))
        columns["label_groups"].append(SEPARATOR.join(group_of.get(name, "") for name in names))
    if not group_of:
        del columns["label_groups"]
    if dataset.groups is not None:
        columns["group"] = list(dataset.groups)
    columns["split"] = list(dataset.split)
    # The csv module quotes a line feed of its own accord, but not a lone carriage return.
    unusual = any("\r" in cell for column in columns.values() for cell in column)
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


def label_parts(text: str, separator: str = SEPARATOR) -> tuple[str, ...]:
    """Take labels apart: blanks around them and empty ones are dropped, each is named once.

    Letters with marks are composed (NFC): macOS writes them apart in file names.
    """
    parts = (unicodedata.normalize("NFC", part.strip()) for part in text.split(separator))
    return tuple(dict.fromkeys(part for part in parts if part))


def _rows(table: Path) -> Iterator[_Row]:
    try:
        # A byte order mark is what Excel begins UTF-8 with.
        with open(table, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            _check_header(table, [name or "" for name in reader.fieldnames or []])
            for cells in reader:
                yield _row(table, reader.line_num, cells)
    except OSError as err:
        raise DataError(f"Cannot read {str(table)!r}: {err.strerror}.") from err
    except UnicodeDecodeError as err:
        raise DataError(f"{str(table)!r} is no .csv in UTF-8: {err.reason}.") from err
    except csv.Error as err:
        raise DataError(f"{_where(table, reader.line_num)}: {err}.") from err


def _check_header(table: Path, names: list[str]) -> None:
    absent = [name for name in ("path", "labels") if name not in names]
    if absent:
        raise DataError(
            f"{str(table)!r} has no column {' and no column '.join(map(repr, absent))}; its first "
            f"line is {','.join(names)[:80]!r}. Expected path,labels[,group][,split]."
        )
    if len(set(names)) != len(names):
        raise DataError(f"{str(table)!r} names a column twice: {','.join(names)[:80]!r}.")
    unused = [name for name in names if name not in _COLUMNS]
    if unused:
        logger.warning("%s: columns that are not used: %s", table, ", ".join(unused))


def _row(table: Path, line: int, cells: dict[str | None, str | list[str] | None]) -> _Row:
    where = _where(table, line)
    if None in cells or None in cells.values():
        raise DataError(f"{where}: it has more or fewer fields than the first line.")
    texts = cast("dict[str, str]", cells)
    if not texts["path"].strip():
        raise DataError(f"{where}: the path is empty.")
    split = texts.get("split", "").strip()
    if split and split not in SIDES:
        raise DataError(f"{where}: the split is {split!r}; it must be one of {', '.join(SIDES)}.")
    labels = label_parts(texts["labels"])
    groups = [part.strip() for part in texts.get("label_groups", "").split(SEPARATOR)]
    if any(groups) and len(groups) != len(labels):
        raise DataError(f"{where}: {len(labels)} labels but {len(groups)} label groups.")
    return _Row(
        where=where,
        path=table.parent / texts["path"],
        labels=labels,
        label_groups=tuple(groups) if any(groups) else ("",) * len(labels),
        group=texts.get("group", "").strip(),
        split=split,
    )


def _without_repeats(rows: Iterator[_Row]) -> list[_Row]:
    kept: dict[str, _Row] = {}
    repeats = 0
    for row in rows:
        first = kept.setdefault(os.path.normpath(row.path), row)
        repeats += first is not row
        if first.says() != row.says():
            raise DataError(
                f"{row.where}: {str(row.path)!r} stands in {first.where} already, with other "
                "labels, group or split."
            )
    if repeats:
        logger.warning("%d rows repeat an earlier one and are left out", repeats)
    return list(kept.values())


def _split_column(rows: list[_Row]) -> tuple[Side, ...] | None:
    empty = [row for row in rows if not row.split]
    if len(empty) == len(rows):
        return None
    if empty:
        raise DataError(f"{empty[0].where}: the split is empty, but other rows have one.")
    return tuple(cast("Side", row.split) for row in rows)


def _label_groups(rows: list[_Row]) -> tuple[LabelGroup, ...]:
    group_of: dict[str, str] = {}
    for row in rows:
        for label, group in zip(row.labels, row.label_groups, strict=True):
            if group_of.setdefault(label, group) != group:
                raise DataError(
                    f"{row.where}: {label!r} is in the label group {group!r}, "
                    f"but in {group_of[label]!r} before."
                )
    names = list(dict.fromkeys(group for group in group_of.values() if group))
    for row in rows:
        for name in names:
            if row.label_groups.count(name) != 1:
                raise DataError(f"{row.where}: it must have one label of the group {name!r}.")
    return tuple(
        LabelGroup(
            name=name,
            labels=tuple(sorted(label for label, group in group_of.items() if group == name)),
            rule="one",
        )
        for name in names
    )


def _where(table: Path, line: int) -> str:
    return f"{table.name}, line {line}"

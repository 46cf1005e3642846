"""Rows that a reader found: what all readers check, and how rows become a data set."""

from __future__ import annotations

import codecs
import logging
import os
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from edgeml.data.dataset import Dataset, Side, Skipped
from edgeml.errors import DataError
from edgeml.spec.labels import UNKNOWN, LabelGroup

logger = logging.getLogger(__name__)

SEPARATOR = ";"
"""Between the labels of a picture in a table; therefore in no label's name."""

SIDE_OF_FOLDER: dict[str, Side] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
"""What the sides of a split are called where folders or files are named after them."""

Skips = list[Skipped] | None
"""Where bad things are noted as they are left out; None where the first of them is an error."""


@dataclass(frozen=True, slots=True)
class Row:
    """One picture, and where a data set says so.

    Attributes:
        where: File and line, or whatever leads a person there.
        path: Of the picture, absolute.
        present: Names of the labels that it has.
        unknown: Names of the labels of which nobody said whether it has them.
        kinds: The label group of each of `present`; empty for a label in none.
        group: Who sent it.
        split: Its side, or empty.
    """

    where: str
    path: str
    present: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    group: str = ""
    split: str = ""

    def says(self) -> tuple[object, ...]:
        """Give what two rows of one picture must agree on."""
        return frozenset(self.present), frozenset(self.unknown), self.group, self.split


def leave_out(skips: Skips, where: str, why: str) -> None:
    """Note something bad, which the caller then leaves out.

    Raises:
        DataError: Nothing may be left out.
    """
    if skips is None:
        raise DataError(f"{where}: {why}")
    skips.append(Skipped(where, why))


def usable_rows(rows: Iterable[Row], skips: Skips) -> list[Row]:
    """Leave out rows that contradict others, whose picture is absent, or that have no split.

    Raises:
        DataError: There is such a row, and nothing may be left out.
    """
    return _with_split(_with_pictures(_without_repeats(rows, skips), skips), skips)


def dataset_from_rows(
    rows: Sequence[Row],
    *,
    root: Path,
    labels: Iterable[str] | None = None,
    label_groups: tuple[LabelGroup, ...] = (),
    skips: Skips,
) -> Dataset:
    """Put rows together.

    Args:
        rows: What `usable_rows` let pass.
        root: The folder that relative paths start from.
        labels: All that there are; None: those that the rows name.
        label_groups: Labels of which every picture has exactly one.
        skips: What was left out.
    """
    named = labels if labels is not None else {name for row in rows for name in row.present}
    columns = tuple(sorted(named))
    column_of = {name: column for column, name in enumerate(columns)}
    targets = np.zeros((len(rows), len(columns)), np.int8)
    for number, row in enumerate(rows):
        targets[number, [column_of[name] for name in row.present]] = 1
        if row.unknown:
            targets[number, [column_of[name] for name in row.unknown]] = UNKNOWN
    nowhere = [columns[column] for column in np.flatnonzero(~(targets > 0).any(axis=0))]
    if nowhere and len(nowhere) < len(columns):
        logger.warning("%s: no picture has %s", shown(root), ", ".join(nowhere))
    groups = tuple(row.group for row in rows)
    splits = tuple(row.split for row in rows)
    return Dataset(
        root=root,
        paths=tuple(Path(row.path) for row in rows),
        labels=columns,
        targets=targets,
        groups=groups if any(groups) else None,
        split=cast("tuple[Side, ...]", splits) if any(splits) else None,
        label_groups=label_groups,
        skipped=tuple(skips or ()),
    )


def read_text(file: Path, *, most: int, keep_bad: bool = False) -> str:
    """Read a whole file as UTF-8, with or without a byte order mark.

    Args:
        file: Must not be a pipe, which would be waited for.
        most: Bytes that it may have.
        keep_bad: Give bytes that are not UTF-8 as lone surrogates, which `text_fault` finds.

    Raises:
        DataError: It cannot be read, is too large, or is not UTF-8; names file and line.
    """
    try:
        with open(file, "rb") as opened:
            data = opened.read(most + 1)
    except OSError as err:
        raise DataError(f"Cannot read {shown(file)!r}: {err.strerror}.") from err
    if len(data) > most:
        raise DataError(f"{shown(file)!r} has more than {most >> 20} MiB, the most that is read.")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{shown(file)!r}, line 1: it is UTF-16; save it as UTF-8.")
    try:
        return data.decode("utf-8-sig", "surrogateescape" if keep_bad else "strict")
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
        said = f"the byte 0x{data[err.start]:02x} is not UTF-8; save it as UTF-8."
        raise DataError(f"{shown(file.name)}, line {line}: {said}") from err


def label_name(text: str) -> str:
    """Bring a label's name into one form: no blanks around it, letters with marks composed (NFC).

    macOS writes letters and marks apart in file names.
    """
    return unicodedata.normalize("NFC", text.strip()).strip()


def label_parts(text: str, separator: str = SEPARATOR) -> tuple[str, ...]:
    """Take labels apart: empty ones are dropped, each is named once."""
    parts = (label_name(part) for part in text.split(separator))
    return tuple(dict.fromkeys(part for part in parts if part))


def label_fault(name: str) -> str | None:
    """Say what keeps a name from being a label's, if anything does."""
    if not name:
        return "it is empty"
    if SEPARATOR in name:
        return f"it holds {SEPARATOR!r}, which stands between labels"
    return text_fault(name)


def text_fault(text: str) -> str | None:
    """Say what keeps a text from being written and read again, if anything does."""
    if "\0" in text:
        return "it holds a NUL byte"
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return "it is not UTF-8"
    return None


def shown(path: str | os.PathLike[str]) -> str:
    """Give a path as text that can be printed, whatever bytes are in it."""
    return os.fspath(path).encode("utf-8", "backslashreplace").decode()


def _without_repeats(rows: Iterable[Row], skips: Skips) -> list[Row]:
    kept: dict[str, Row] = {}
    repeats = 0
    for row in rows:
        first = kept.setdefault(os.path.normpath(row.path), row)
        if first is row:
            continue
        if first.says() == row.says():
            repeats += 1
            continue
        why = (
            f"{shown(row.path)!r} stands in {first.where} already, with other labels, "
            "group or split."
        )
        leave_out(skips, row.where, why)
    if repeats:
        logger.warning("%d rows repeat an earlier one and are left out", repeats)
    return list(kept.values())


def _with_pictures(rows: list[Row], skips: Skips) -> list[Row]:
    missing = [row for row in rows if not os.path.isfile(row.path)]
    if not missing:
        return rows
    if skips is None:
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        path = shown(missing[0].path)
        raise DataError(f"{missing[0].where}: there is no picture {path!r}{more}.")
    for row in missing:
        leave_out(skips, row.where, f"there is no picture {shown(row.path)!r}.")
    gone = set(map(id, missing))
    return [row for row in rows if id(row) not in gone]


def _with_split(rows: list[Row], skips: Skips) -> list[Row]:
    divided = [row for row in rows if row.split]
    if len(divided) in (0, len(rows)):
        return rows
    for row in rows:
        if not row.split:
            leave_out(skips, row.where, "the split is empty, but other rows have one.")
    return divided

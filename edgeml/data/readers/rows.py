"""The rows of a data set: the checks that all readers share, and how rows become a data set."""

from __future__ import annotations

import codecs
import logging
import os
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np

from edgeml.data.dataset import Dataset, Side, Skipped
from edgeml.errors import DataError
from edgeml.spec.labels import UNKNOWN, LabelGroup
from edgeml.spec.model_spec import some_names

logger = logging.getLogger(__name__)

SEPARATOR = ";"
"""Separates the labels of an image in a table; so no label may contain it."""

SIDE_OF_FOLDER: dict[str, Side] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "training": "train",
    "testing": "test",
}
"""The names that folders and files give the sides of a split."""

SkipLog = list[Skipped] | None
"""Bad entries that were left out; None if the first is a DataError, naming file and line."""


@dataclass(frozen=True, slots=True)
class Row:
    """One image of a data set."""

    where: str  # the file and line of this entry, or another location that a person can find
    path: str  # of the image, absolute
    present: tuple[str, ...]  # the labels that it has
    unknown: tuple[str, ...] = ()  # the labels that it may have or not have
    label_groups: tuple[str, ...] = ()  # the label group of each of `present`; "" for none
    group: str = ""  # the source of the image
    split: str = ""  # its side, or empty

    def content(self) -> tuple[object, ...]:
        """Return what two rows of one image must agree on."""
        return frozenset(self.present), frozenset(self.unknown), self.group, self.split


def skip_or_raise(skips: SkipLog, where: str, why: str) -> None:
    """Record a bad entry, which the caller then leaves out, or raise it as a DataError."""
    if skips is None:
        raise DataError(f"{where}: {why}")
    skips.append(Skipped(where, why))


def usable_rows(rows: Iterable[Row], skips: SkipLog) -> list[Row]:
    """Leave out rows that contradict others, whose image is missing, or that lack a split."""
    return _with_split(_with_images(_without_repeats(rows, skips), skips), skips)


def dataset_from_rows(
    rows: Sequence[Row],
    *,
    root: Path,
    labels: Iterable[str] | None = None,
    label_groups: tuple[LabelGroup, ...] = (),
    skips: SkipLog,
) -> Dataset:
    """Build a data set from rows that `usable_rows` accepted; by default with their labels."""
    if labels is None:
        labels = {name for row in rows for name in row.present}
    columns = tuple(sorted(set(labels)))
    column_of = {name: column for column, name in enumerate(columns)}
    targets = np.zeros((len(rows), len(columns)), np.int8)
    for number, row in enumerate(rows):
        targets[number, [column_of[name] for name in row.present]] = 1
        if row.unknown:
            targets[number, [column_of[name] for name in row.unknown]] = UNKNOWN
    unused = [columns[column] for column in np.flatnonzero(~(targets > 0).any(axis=0))]
    if unused and len(unused) < len(columns):
        logger.warning("%s: no image has %s", printable(root), some_names(unused))
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


def described_dataset(
    rows: Iterable[Row],
    *,
    root: Path,
    labels: Iterable[str] | None = None,
    origin: str,
    notes: Iterable[str],
    skips: SkipLog,
) -> Dataset:
    """Build a data set from any rows, with where its labels come from and notes for the user."""
    dataset = dataset_from_rows(usable_rows(rows, skips), root=root, labels=labels, skips=skips)
    return replace(dataset, labels_from=origin, notes=tuple(notes))


def read_text(file: Path, *, limit: int, keep_bad: bool = False, allow_utf16: bool = False) -> str:
    """Read a file, not a pipe, of at most `limit` bytes as UTF-8; a byte order mark is dropped.

    With `keep_bad`, bytes that are not UTF-8 become lone surrogates, which `text_fault` finds.
    With `allow_utf16`, a file with the byte order mark of UTF-16 is read as that.
    """
    try:
        with open(file, "rb") as opened:
            data = opened.read(limit + 1)
    except OSError as err:
        raise DataError(f"Cannot read {printable(file)!r}: {err.strerror}.") from err
    if len(data) > limit:
        raise DataError(f"{printable(file)!r} is larger than {limit >> 20} MiB, the limit.")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        with suppress(UnicodeDecodeError):
            if allow_utf16:
                return data.decode("utf-16")
        raise DataError(f"{printable(file)!r}, line 1: it is UTF-16; save it as UTF-8.")
    try:
        return data.decode("utf-8-sig", "surrogateescape" if keep_bad else "strict")
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
        raise DataError(
            f"{printable(file.name)}, line {line}: the byte 0x{data[err.start]:02x} is not UTF-8; "
            "save the file as UTF-8."
        ) from err


def rows_on_side(rows: Sequence[Row], side: Side | None) -> list[Row]:
    """Return rows with a side of the split, where they have none."""
    return [row if row.split or not side else replace(row, split=side) for row in rows]


def split_by_folder(rows: list[Row], root: Path) -> list[Row]:
    """Return rows with the sides that the first folders of their paths name, if all do."""
    firsts = [os.path.relpath(row.path, root).split(os.sep)[0].lower() for row in rows]
    if len(set(firsts)) < 2 or not all(first in SIDE_OF_FOLDER for first in firsts):
        return rows
    return [
        replace(row, split=SIDE_OF_FOLDER[first]) for row, first in zip(rows, firsts, strict=True)
    ]


def joined_rows(rows: list[Row], notes: list[str]) -> list[Row]:
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


def label_name(text: str) -> str:
    """Normalise a label's name: no blanks around it, accented letters composed (NFC).

    macOS decomposes accented letters in file names.
    """
    return unicodedata.normalize("NFC", text.strip()).strip()


def label_parts(text: str, separator: str = SEPARATOR) -> tuple[str, ...]:
    """Split a text into labels, without empty ones and repetitions."""
    parts = (label_name(part) for part in text.split(separator))
    return tuple(dict.fromkeys(part for part in parts if part))


def label_fault(name: str) -> str | None:
    """Return why a text cannot be the name of a label; None if it can."""
    if not name:
        return "it is empty"
    if SEPARATOR in name:
        return f"it contains {SEPARATOR!r}, which separates labels"
    return text_fault(name)


def text_fault(text: str) -> str | None:
    """Return why a text could not be written and read again; None if it could."""
    if "\0" in text:
        return "it contains a NUL byte"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "it is not UTF-8"
    return None


def printable(path: str | os.PathLike[str]) -> str:
    """Return a path as text that can be printed, whatever bytes it contains."""
    return os.fspath(path).encode("utf-8", "backslashreplace").decode()


def _without_repeats(rows: Iterable[Row], skips: SkipLog) -> list[Row]:
    rows_by_path: dict[str, Row] = {}
    repeats = 0
    for row in rows:
        first = rows_by_path.setdefault(os.path.normpath(row.path), row)
        if first is row:
            continue
        if first.content() == row.content():
            repeats += 1
            continue
        why = f"{printable(row.path)!r} has other labels, group or split in {first.where}."
        skip_or_raise(skips, row.where, why)
    if repeats:
        logger.warning("%d rows repeat an earlier one and are left out", repeats)
    return list(rows_by_path.values())


def _with_images(rows: list[Row], skips: SkipLog) -> list[Row]:
    missing = [row for row in rows if not os.path.isfile(row.path)]
    if not missing:
        return rows
    if skips is None:
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        path = printable(missing[0].path)
        raise DataError(f"{missing[0].where}: there is no image {path!r}{more}.")
    for row in missing:
        skip_or_raise(skips, row.where, f"there is no image {printable(row.path)!r}.")
    missing_ids = set(map(id, missing))
    return [row for row in rows if id(row) not in missing_ids]


def _with_split(rows: list[Row], skips: SkipLog) -> list[Row]:
    divided = [row for row in rows if row.split]
    if len(divided) in (0, len(rows)):
        return rows
    for row in rows:
        if not row.split:
            skip_or_raise(skips, row.where, "the split is empty, but other rows have one.")
    return divided

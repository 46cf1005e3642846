"""Dataset: labelled pictures, as paths and a table of targets."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import DataError
from edgeml.files import sha256_of_file
from edgeml.progress import Progress
from edgeml.spec.labels import UNKNOWN, LabelGroup, Targets

Side = Literal["train", "val", "test"]
SIDES: tuple[Side, ...] = ("train", "val", "test")

_MOST_TOLD = 10


@dataclass(frozen=True)
class Skipped:
    """Something bad that was left out of a data set: where it stands, and what is wrong with it."""

    where: str
    why: str

    def __str__(self) -> str:
        return f"{self.where}: {self.why}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Labelled pictures; none is opened before it is asked for.

    Attributes:
        root: The folder that relative paths start from.
        paths: Absolute, one a picture.
        labels: Sorted names; the columns of `targets`.
        targets: (N, L) int8: 1 present, 0 absent, -1 unknown.
        groups: Who sent the picture; the rows of one group stay on one side of a split. An empty
            name is nobody's.
        split: The side of each row; None before it is divided.
        label_groups: Labels of which every picture has exactly one.
        skipped: What was bad and therefore left out; it stays when rows are selected.
        known_hashes: Digests of pictures that were read before; shared by what is derived.
        known_thumbnails: The same for what `edgeml.data.thumbnails` made of them.
    """

    root: Path
    paths: tuple[Path, ...]
    labels: tuple[str, ...]
    targets: Targets
    groups: tuple[str, ...] | None = None
    split: tuple[Side, ...] | None = None
    label_groups: tuple[LabelGroup, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    known_hashes: dict[Path, str] = field(default_factory=dict, repr=False)
    known_thumbnails: dict[Path, NDArray[np.uint8]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        rows = len(self.paths)
        if self.targets.shape != (rows, len(self.labels)):
            raise DataError(
                f"{rows} pictures with {len(self.labels)} labels need targets of shape "
                f"{(rows, len(self.labels))}, not {self.targets.shape}."
            )
        # Unsigned targets are welcome: what could not be unknown is not.
        object.__setattr__(self, "targets", self.targets.astype(np.int8))
        for name, column in (("groups", self.groups), ("split", self.split)):
            if column is not None and len(column) != rows:
                raise DataError(f"{name} has {len(column)} entries for {rows} pictures.")

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def present(self) -> NDArray[np.bool_]:
        """(N, L): where a picture is known to have a label."""
        present: NDArray[np.bool_] = self.targets > 0
        return present

    @property
    def known(self) -> NDArray[np.bool_]:
        """(N, L): where somebody said whether a picture has a label."""
        known: NDArray[np.bool_] = self.targets != UNKNOWN
        return known

    def labels_of(self, row: int) -> tuple[str, ...]:
        """Give the names of the labels that the picture in `row` has."""
        return tuple(self.labels[column] for column in np.flatnonzero(self.present[row]))

    def select(self, indices: Sequence[int] | NDArray[np.integer] | NDArray[np.bool_]) -> Dataset:
        """Keep some rows, by position or by a mask of N booleans; all columns stay."""
        rows = np.arange(len(self))[np.asarray(indices, dtype=None if len(indices) else np.intp)]
        return replace(
            self,
            paths=tuple(self.paths[row] for row in rows),
            targets=self.targets[rows],
            groups=None if self.groups is None else tuple(self.groups[row] for row in rows),
            split=None if self.split is None else tuple(self.split[row] for row in rows),
        )

    def part(self, name: Literal["train", "val", "test", "all"]) -> Dataset:
        """Give the rows on one side of the split, perhaps none; `all` is the whole.

        Raises:
            DataError: The data set is not divided.
        """
        if name == "all":
            return self
        if self.split is None:
            raise DataError(f"The data have no {name!r} part: they are not divided yet.")
        return self.select(np.array(self.split, dtype=str) == name)

    def hashes(self) -> tuple[str, ...]:
        """Give the SHA-256 of each file's bytes, 64 hexadecimal digits; each is read once.

        Raises:
            DataError: A file cannot be read; names it.
        """
        new = [path for path in dict.fromkeys(self.paths) if path not in self.known_hashes]
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            self.known_hashes.update(zip(new, pool.map(_content_hash, new), strict=True))
        return tuple(self.known_hashes[path] for path in self.paths)

    def digest(self) -> str:
        """Give one SHA-256 for relative paths, contents and labels; order and split do not count.

        Raises:
            DataError: A file cannot be read; names it.
        """
        rows = sorted(
            "\0".join([relative_name(path, self.root), content, *self._told(row)])
            for row, (path, content) in enumerate(zip(self.paths, self.hashes(), strict=True))
        )
        return hashlib.sha256("\n".join(rows).encode("utf-8", "surrogateescape")).hexdigest()

    def _told(self, row: int) -> list[str]:
        """Give what is known of a picture as text; what is unknown is named only if anything is."""
        unknown = [self.labels[column] for column in np.flatnonzero(~self.known[row])]
        return [";".join(self.labels_of(row))] + [";".join(unknown)] * bool(unknown)


def tell_skipped(dataset: Dataset, progress: Progress) -> None:
    """Name what was left out of a data set, the first ten and then how many more."""
    count = len(dataset.skipped)
    for skipped in dataset.skipped[:_MOST_TOLD]:
        progress.note(f"Left out: {skipped}")
    if count > _MOST_TOLD:
        progress.note(f"Left out: {count - _MOST_TOLD} more, {count} in all")


def relative_name(path: Path, folder: Path) -> str:
    """Give `path` as seen from `folder` if it is below it, else whole; with forward slashes."""
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


def targets_from_names(
    rows: Sequence[Collection[str]],
) -> tuple[tuple[str, ...], Targets]:
    """Give the sorted labels of all rows and (N, L) int8 targets: what is not named is absent."""
    labels = tuple(sorted({name for names in rows for name in names}))
    column = {name: index for index, name in enumerate(labels)}
    targets = np.zeros((len(rows), len(labels)), np.int8)
    for row, names in enumerate(rows):
        targets[row, [column[name] for name in names]] = 1
    return labels, targets


def _content_hash(path: Path) -> str:
    try:
        return sha256_of_file(path)
    except OSError as err:
        raise DataError(f"Cannot read {str(path)!r}: {err.strerror}.") from err


def cooccurrence(targets: Targets) -> NDArray[np.int64]:
    """Count the pictures that are known to have both labels: (labels, labels), symmetric.

    The diagonal holds the positives of each label.
    """
    present = (targets > 0).astype(np.float64)  # floats have a fast product, exact up to 2^53
    return (present.T @ present).astype(np.int64)

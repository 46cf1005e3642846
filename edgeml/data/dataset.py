"""Dataset: labelled images, as paths and a table of targets."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import DataError
from edgeml.files import sha256_of_file
from edgeml.ordered import ordered_map, usable_cpus
from edgeml.progress import Progress
from edgeml.spec.labels import UNKNOWN, LabelGroup, Targets

Side = Literal["train", "val", "test"]
SIDES: tuple[Side, ...] = ("train", "val", "test")

_MAX_REPORTED = 10

_CHUNK = 16


@dataclass(frozen=True)
class Skipped:
    """Something that was left out of a data set: where it is, and what is wrong with it."""

    where: str
    why: str

    def __str__(self) -> str:
        return f"{self.where}: {self.why}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Labelled images; no image file is opened before its content is needed.

    Attributes:
        root: The folder that relative paths start from.
        paths: Absolute, one per image.
        labels: Sorted names; the columns of `targets`.
        targets: (N, L) int8: 1 present, 0 absent, -1 unknown.
        groups: The source of each image, for example its photographer; all images of a group stay
            on one side of a split. An empty name means no group.
        split: The side of each row; None before the split.
        label_groups: Labels of which every image has exactly one.
        skipped: Bad entries that were left out; they stay when rows are selected.
        labels_from: Where the labels come from, for the user: "the column 'labels'".
        notes: What a reader chose or joined, for the user.
        left_out: The number of files in the same folders that are no images edgeml can read, by
            format or suffix.
        known_hashes: SHA-256 of files that were read already, by path. Never changed in place:
            data sets derived from this one share it.
        known_thumbnails: The same for the thumbnails of `edgeml.data.screen`.
    """

    root: Path
    paths: tuple[Path, ...]
    labels: tuple[str, ...]
    targets: Targets
    groups: tuple[str, ...] | None = None
    split: tuple[Side, ...] | None = None
    label_groups: tuple[LabelGroup, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    labels_from: str = ""
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    known_hashes: Mapping[Path, str] = field(default_factory=dict, repr=False)
    known_thumbnails: Mapping[Path, NDArray[np.uint8]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        rows = len(self.paths)
        if self.targets.shape != (rows, len(self.labels)):
            raise DataError(
                f"{rows} images with {len(self.labels)} labels need targets of shape "
                f"{(rows, len(self.labels))}, not {self.targets.shape}."
            )
        # Unsigned and boolean targets are accepted: they state no unknown labels.
        object.__setattr__(self, "targets", self.targets.astype(np.int8))
        for name, column in (("groups", self.groups), ("split", self.split)):
            if column is not None and len(column) != rows:
                raise DataError(f"{name} has {len(column)} entries for {rows} images.")

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def present(self) -> NDArray[np.bool_]:
        """(N, L): whether an image is known to have a label."""
        return np.asarray(self.targets > 0)

    @property
    def known(self) -> NDArray[np.bool_]:
        """(N, L): whether it is known if an image has a label or not."""
        return np.asarray(self.targets != UNKNOWN)

    def labels_of(self, row: int) -> tuple[str, ...]:
        """Return the names of the labels that the image in `row` has."""
        return tuple(self.labels[column] for column in np.flatnonzero(self.present[row]))

    def select(self, indices: Sequence[int] | NDArray[np.integer] | NDArray[np.bool_]) -> Dataset:
        """Return some rows, by position or by a mask of N booleans; all columns stay."""
        rows = np.arange(len(self))[np.asarray(indices, dtype=None if len(indices) else np.intp)]
        return replace(
            self,
            paths=tuple(self.paths[row] for row in rows),
            targets=self.targets[rows],
            groups=None if self.groups is None else tuple(self.groups[row] for row in rows),
            split=None if self.split is None else tuple(self.split[row] for row in rows),
        )

    def part(self, name: Literal["train", "val", "test", "all"]) -> Dataset:
        """Return the rows on one side of the split, perhaps none; `all` returns all rows.

        Raises:
            DataError: The data set is not split.
        """
        if name == "all":
            return self
        if self.split is None:
            raise DataError(f"The data have no {name!r} part: they are not split yet.")
        return self.select(np.array(self.split, dtype=str) == name)

    def hashes(self) -> tuple[str, ...]:
        """Return the SHA-256 of each file's bytes, 64 hexadecimal digits, in the order of the rows.

        Files whose hash is not in `known_hashes` are read.

        Raises:
            DataError: A file cannot be read; names it.
        """
        known = self.with_hashes().known_hashes
        return tuple(known[path] for path in self.paths)

    def with_hashes(self) -> Dataset:
        """Return this data set with the hashes of all its files known.

        Raises:
            DataError: A file cannot be read; names it.
        """
        new = [path for path in dict.fromkeys(self.paths) if path not in self.known_hashes]
        if not new:
            return self
        # To hand a file to a thread costs more than to hash a small one.
        chunks = [new[start : start + _CHUNK] for start in range(0, len(new), _CHUNK)]
        hashed = ordered_map(_content_hashes, chunks, workers=min(8, usable_cpus()))
        hashes = chain.from_iterable(hashed)
        known = {**self.known_hashes, **dict(zip(new, hashes, strict=True))}
        return replace(self, known_hashes=known)

    def digest(self) -> str:
        """Return one SHA-256 of relative paths, contents and labels; order and split do not count.

        Raises:
            DataError: A file cannot be read; names it.
        """
        rows = sorted(
            "\0".join([relative_name(path, self.root), content, *self._labels_as_text(row)])
            for row, (path, content) in enumerate(zip(self.paths, self.hashes(), strict=True))
        )
        return hashlib.sha256("\n".join(rows).encode("utf-8", "surrogateescape")).hexdigest()

    def _labels_as_text(self, row: int) -> list[str]:
        """Return the labels of an image, then its unknown labels if there are any."""
        unknown = [self.labels[column] for column in np.flatnonzero(~self.known[row])]
        return [";".join(self.labels_of(row))] + [";".join(unknown)] * bool(unknown)


def report_skipped(dataset: Dataset, progress: Progress) -> None:
    """Note what was left out of a data set: the first ten entries and the number of others."""
    count = len(dataset.skipped)
    for skipped in dataset.skipped[:_MAX_REPORTED]:
        progress.note(f"Left out: {skipped}")
    if count > _MAX_REPORTED:
        progress.note(f"Left out: {count - _MAX_REPORTED} more, {count} in all")


def relative_name(path: Path, folder: Path) -> str:
    """Return `path` relative to `folder` if it is below it, else absolute; with forward slashes."""
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


def cooccurrence(targets: Targets) -> NDArray[np.int64]:
    """Count the images that are known to have both labels: (labels, labels), symmetric.

    The diagonal holds the positives of each label.
    """
    present = (targets > 0).astype(np.float64)  # floats have a fast product, exact up to 2^53
    return (present.T @ present).astype(np.int64)


def _content_hashes(paths: Sequence[Path]) -> list[str]:
    hashes = []
    for path in paths:
        try:
            hashes.append(sha256_of_file(path))
        except OSError as err:
            raise DataError(f"Cannot read {str(path)!r}: {err.strerror}.") from err
    return hashes

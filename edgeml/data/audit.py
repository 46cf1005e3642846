"""What is wrong with a data set, or odd about it, before anything is trained on it."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.data.dataset import Dataset, Skipped, cooccurrence, relative_name
from edgeml.data.duplicates import Duplicates, Groups, find_duplicates
from edgeml.data.readers.find import read_dataset
from edgeml.data.readers.folders import files_below, is_image
from edgeml.data.screen import thumbnails
from edgeml.errors import ImageError
from edgeml.image.kinds import Kind, kind_of
from edgeml.image.reading import read_file
from edgeml.ordered import ordered_map, usable_cpus
from edgeml.progress import SILENT, Progress

RARE = 20
"""A label with fewer positives is rare: its metrics are a matter of luck."""

ODDITIES = ("cmyk", "rgba", "palette", "grey", "16-bit", "rotated")
"""What pictures are that a model was seldom meant for: by colours, bits and EXIF rotation."""

_PERCENTILES = {"min": 0, "p5": 5, "median": 50, "p95": 95, "max": 100}


@dataclass(frozen=True, kw_only=True, eq=False)
class Audit:
    """What was found. Rows are numbers of rows of `dataset`.

    Attributes:
        source: What was looked at, as it was named.
        dataset: The rows that can be used: their labels could be read, and their pictures.
        skipped: Rows that could not be read, by file and line.
        unreadable: Pictures that could not be, damaged or cut short or missing.
        unnamed: Pictures beside the others that no row names.
        kinds: What the header of each picture says; None where it is not understood.
        bytes: (N,) the size of each file.
        duplicates: Pictures that are there more than once, and conflicts among them.
    """

    source: str
    dataset: Dataset
    skipped: tuple[Skipped, ...]
    unreadable: tuple[Skipped, ...]
    unnamed: tuple[Path, ...]
    kinds: tuple[Kind | None, ...]
    bytes: NDArray[np.int64]
    duplicates: Duplicates

    def name(self, row: int) -> str:
        """Give the path of a picture as seen from the data set's folder."""
        return relative_name(self.dataset.paths[row], self.dataset.root)

    def wrong_suffixes(self) -> list[int]:
        """Find pictures whose name promises another format than they have."""
        pairs = zip(self.kinds, self.dataset.paths, strict=True)
        return [row for row, (kind, path) in enumerate(pairs) if kind and not kind.matches(path)]

    def odd(self, oddity: str) -> list[int]:
        """Find pictures that are of one of the `ODDITIES`."""
        return [row for row, kind in enumerate(self.kinds) if kind and oddity in _oddities(kind)]

    def groups(self, of: Groups) -> list[list[int]]:
        """List groups of two or more rows, the largest first."""
        first, counts = np.unique(of, return_counts=True)
        chosen = first[counts > 1]
        members: dict[int, list[int]] = {row: [] for row in chosen.tolist()}
        for row in np.flatnonzero(np.isin(of, chosen)).tolist():
            members[int(of[row])].append(row)
        return sorted(members.values(), key=lambda rows: (-len(rows), rows))

    def across_sides(self) -> list[list[int]]:
        """List groups of near duplicates that stand on more than one side of the data's split."""
        split = self.dataset.split
        if split is None:
            return []
        near = self.groups(self.duplicates.near)
        return [rows for rows in near if len({split[row] for row in rows}) > 1]

    def label_counts(self) -> dict[str, dict[str, int]]:
        """Count the positives, negatives and unknowns of each label."""
        positives = self.dataset.present.sum(axis=0)
        known = self.dataset.known.sum(axis=0)
        return {
            label: {
                "positives": int(positives[column]),
                "negatives": int(known[column] - positives[column]),
                "unknown": len(self.dataset) - int(known[column]),
            }
            for column, label in enumerate(self.dataset.labels)
        }

    def labels_with(self, of: str, *, below: int) -> list[str]:
        """Name the labels with fewer than so many `positives` or `negatives`."""
        return [label for label, counts in self.label_counts().items() if counts[of] < below]

    def sizes(self) -> dict[str, dict[str, float]]:
        """Give percentiles of height, width, aspect ratio (width / height) and bytes."""
        sides = np.array([kind.size for kind in self.kinds if kind], float).reshape(-1, 2)
        columns = {
            "height": sides[:, 0],
            "width": sides[:, 1],
            "aspect": sides[:, 1] / sides[:, 0],
            "bytes": self.bytes,
        }
        return {
            name: {
                key: round(float(value), 4)
                for key, value in zip(
                    _PERCENTILES, np.percentile(column, list(_PERCENTILES.values())), strict=True
                )
            }
            for name, column in columns.items()
            if len(column)
        }

    def to_dict(self) -> dict[str, Any]:
        """Give all that was found as JSON can hold it. The keys are stable.

        * `schema`: `edgeml.audit/1`. `source`: what was looked at. `images`: how many pictures
          can be used; all that follows is about them, but for the next three.
        * `skipped`, `unreadable`: lists of `{"where", "why"}`, rows and pictures that cannot be
          used. `unnamed`: paths of pictures that no row names.
        * `labels`: by name `{"positives", "negatives", "unknown"}`. `rare`: names of those with
          fewer than 20 positives. `without_positives`, `without_negatives`: names.
          `unknown_share`: of all targets, a share of 1. `labels_per_image`: the mean.
        * `formats`: counts by `jpeg`, `png`, ... `wrong_extension`: lists of `{"path", "format"}`.
          `odd`: by `cmyk`, `rgba`, `palette`, `grey`, `16-bit`, `rotated`, lists of paths.
        * `duplicates`: `exact` and `near` are lists of groups, which are lists of paths;
          `across_sides` those of `near` that are on more than one side of the data's split.
        * `conflicts`: lists of `{"paths": [a, b], "labels": [[..], [..]]}`, the same picture with
          labels that contradict each other.
        * `sizes`: of `height`, `width`, `aspect` and `bytes`: `min`, `p5`, `median`, `p95`, `max`.
        * `cooccurrence`: `labels`, and `counts` (L, L) of pictures that have both labels.
        * `split`: how many pictures each side has; null if the data are not divided.
        """
        dataset = self.dataset
        return {
            "schema": "edgeml.audit/1",
            "source": self.source,
            "images": len(dataset),
            "skipped": _told(self.skipped),
            "unreadable": _told(self.unreadable),
            "unnamed": [relative_name(path, dataset.root) for path in self.unnamed],
            "labels": self.label_counts(),
            "rare": self.labels_with("positives", below=RARE),
            "without_positives": self.labels_with("positives", below=1),
            "without_negatives": self.labels_with("negatives", below=1),
            "unknown_share": _share(~dataset.known),
            "labels_per_image": round(float(dataset.present.sum() / max(len(dataset), 1)), 4),
            "formats": dict(Counter(kind.format for kind in self.kinds if kind).most_common()),
            "wrong_extension": [
                {"path": self.name(row), "format": kind.format}
                for row in self.wrong_suffixes()
                if (kind := self.kinds[row])
            ],
            "odd": {oddity: self._names(self.odd(oddity)) for oddity in ODDITIES},
            "duplicates": {
                "exact": [self._names(rows) for rows in self.groups(self.duplicates.exact)],
                "near": [self._names(rows) for rows in self.groups(self.duplicates.near)],
                "across_sides": [self._names(rows) for rows in self.across_sides()],
            },
            "conflicts": [
                {
                    "paths": self._names(pair),
                    "labels": [list(dataset.labels_of(row)) for row in pair],
                }
                for pair in self.duplicates.conflicts
            ],
            "sizes": self.sizes(),
            "cooccurrence": {
                "labels": list(dataset.labels),
                "counts": cooccurrence(dataset.targets).tolist(),
            },
            "split": None if dataset.split is None else dict(Counter(dataset.split)),
        }

    def summary(self) -> list[tuple[str, str]]:
        """Give what was found in lines for people: a name and a text."""
        exact = self.groups(self.duplicates.exact)
        near = self.groups(self.duplicates.near)
        odd = {oddity: len(self.odd(oddity)) for oddity in ODDITIES}
        sizes = self.sizes()
        told = [
            ("Pictures", f"{len(self.dataset)} that can be used"),
            ("Labels", f"{len(self.dataset.labels)}"),
            ("Rows left out", _first(map(str, self.skipped))),
            ("Unreadable pictures", _first(skipped.why for skipped in self.unreadable)),
            (
                "Pictures that no row names",
                _first(relative_name(path, self.dataset.root) for path in self.unnamed),
            ),
            ("Wrong extensions", _first(self._names(self.wrong_suffixes()))),
            ("Odd pictures", ", ".join(f"{n} {name}" for name, n in odd.items() if n) or "none"),
            ("Exact duplicates", _extra(exact)),
            ("Near duplicates", f"{_extra(near)}{', the exact ones included' if exact else ''}"),
            ("Label conflicts", _first(self._conflict(pair) for pair in self.duplicates.conflicts)),
            (
                f"Labels with fewer than {RARE} positives",
                _listed(self.labels_with("positives", below=RARE)),
            ),
            (
                "Labels without negatives",
                _listed(self.labels_with("negatives", below=1)),
            ),
            ("Unknown", f"{100 * _share(~self.dataset.known):.1f} % of the targets"),
        ]
        if "height" in sizes:
            height, width = (sizes[side] for side in ("height", "width"))
            told.append(
                (
                    "Height and width",
                    f"{height['min']:.0f} to {height['max']:.0f} and {width['min']:.0f} to "
                    f"{width['max']:.0f} pixels, median {height['median']:.0f} x "
                    f"{width['median']:.0f}",
                )
            )
        if self.dataset.split is not None:
            across = len(self.across_sides())
            told.append(("Near duplicates on two sides", f"{across} groups" if across else "none"))
        return told

    def _names(self, rows: Iterable[int]) -> list[str]:
        return [self.name(row) for row in rows]

    def _conflict(self, pair: tuple[int, int]) -> str:
        first, second = (
            f"{self.name(row)!r} is {'+'.join(self.dataset.labels_of(row)) or 'nothing'}"
            for row in pair
        )
        return f"{first}, {second}"


def audit(
    source: Dataset | Path,
    *,
    delimiter: str = "_",
    threads: int | None = None,
    cache: Path | None = None,
    progress: Progress = SILENT,
) -> Audit:
    """Look at every row and every picture of a data set. What is bad is listed, not raised.

    Args:
        source: A data set, or where to read one as `read_dataset` does.
        delimiter: Between the labels in a folder's name.
        threads: How many; None takes as many as there are cores.
        cache: A folder that keeps thumbnails.
        progress: Told what goes on.

    Raises:
        DataError: Nothing of it can be used.
    """
    name = str(source.root if isinstance(source, Dataset) else source)
    dataset = (
        source
        if isinstance(source, Dataset)
        else read_dataset(source, delimiter=delimiter, skip_bad=True)
    )
    dataset, kinds, sizes = _read_headers(dataset, threads, progress)
    small, faults = thumbnails(dataset, threads=threads, cache=cache, progress=progress)
    good = np.array([path not in faults for path in dataset.paths], bool)
    rows = np.flatnonzero(good)
    usable = dataset.select(good)
    return Audit(
        source=name,
        dataset=usable,
        skipped=dataset.skipped,
        unreadable=tuple(
            Skipped(relative_name(path, dataset.root), why) for path, why in faults.items()
        ),
        unnamed=_unnamed(dataset),
        kinds=tuple(kinds[row] for row in rows),
        bytes=sizes[rows],
        duplicates=find_duplicates(usable, small[rows]),
    )


def _read_headers(
    dataset: Dataset, threads: int | None, progress: Progress
) -> tuple[Dataset, list[Kind | None], NDArray[np.int64]]:
    """Read every file once; return the data set with its hashes, and headers and sizes in bytes."""

    def read(path: Path) -> tuple[str, Kind | None, int]:
        try:
            data = read_file(path)
        except ImageError:
            return "", None, 0
        return hashlib.sha256(data).hexdigest(), kind_of(data), len(data)

    hashes = dict(dataset.known_hashes)
    kinds: list[Kind | None] = []
    sizes: list[int] = []
    results = ordered_map(read, dataset.paths, workers=threads or usable_cpus())
    with progress.task("files", total=len(dataset)) as advance:
        for path, (content, kind, size) in zip(dataset.paths, results, strict=True):
            if content:
                hashes[path] = content
            kinds.append(kind)
            sizes.append(size)
            advance(1)
    return replace(dataset, known_hashes=hashes), kinds, np.array(sizes, np.int64)


def _unnamed(dataset: Dataset) -> tuple[Path, ...]:
    """List pictures in the folders where the others are that are not among them."""
    if not len(dataset):
        return ()
    folder = Path(os.path.commonpath([path.parent for path in dataset.paths]))
    if not folder.is_dir():
        return ()
    named = {os.path.normpath(path) for path in dataset.paths}
    found = (path for path in files_below(folder, []) if is_image(path))
    return tuple(sorted(path for path in found if os.path.normpath(path) not in named))


def _oddities(kind: Kind) -> set[str]:
    bits = "16-bit" if kind.bits == 16 else ""
    rotation = "rotated" if kind.orientation != 1 else ""
    return {kind.colours, bits, rotation} & set(ODDITIES)


def _told(skipped: Sequence[Skipped]) -> list[dict[str, str]]:
    return [{"where": one.where, "why": one.why} for one in skipped]


def _share(mask: NDArray[np.bool_]) -> float:
    return round(float(mask.mean()), 6) if mask.size else 0.0


def _first(texts: Iterable[str]) -> str:
    """Count texts and give the first."""
    listed = list(texts)
    if not listed:
        return "none"
    return f"{len(listed)}{': ' if len(listed) == 1 else ', the first: '}{listed[0]}"


def _listed(names: Sequence[str], most: int = 20) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more or "none"


def _extra(groups: Sequence[Sequence[int]]) -> str:
    if not groups:
        return "none"
    extra = sum(len(rows) - 1 for rows in groups)
    return f"{extra} beside the first of {len(groups)} group{'s' if len(groups) > 1 else ''}"

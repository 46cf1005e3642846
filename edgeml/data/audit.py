"""The audit of a data set: what is wrong or unusual about it, before anything is trained on it."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.data.dataset import Dataset, Skipped, cooccurrence, relative_name
from edgeml.data.duplicates import Duplicates, Groups, find_duplicates
from edgeml.data.exclusive import found_labels
from edgeml.data.readers.find import read_dataset
from edgeml.data.readers.folders import files_below
from edgeml.data.screen import thumbnails
from edgeml.errors import ImageError
from edgeml.image.file_kinds import is_image
from edgeml.image.headers import Header, header_or_none
from edgeml.image.reading import read_file
from edgeml.ordered import ordered_map, usable_cpus
from edgeml.progress import SILENT, Progress

RARE = 20
"""A label with fewer positives is rare: its metrics depend on chance."""

ODDITIES = ("cmyk", "rgba", "palette", "grey", "16-bit", "rotated")
"""Properties of images that few models expect: colours, bits and EXIF rotation."""

_PERCENTILES = {"min": 0, "p5": 5, "median": 50, "p95": 95, "max": 100}


@dataclass(frozen=True, kw_only=True, eq=False)
class Audit:
    """The findings of an audit. Rows are indices of rows of `dataset`.

    Attributes:
        source: The audited data set, as the user named it.
        dataset: The usable rows: their labels and images could be read.
        skipped: Rows that could not be read, by file and line.
        unreadable: Images that could not be read: damaged, cut short or missing.
        unnamed: Images in the same folders that no row names.
        kinds: The header of each image; None if it is not understood.
        bytes: (N,) the size of each file.
        duplicates: Images that exist more than once, and conflicts between them.
    """

    source: str
    dataset: Dataset
    skipped: tuple[Skipped, ...]
    unreadable: tuple[Skipped, ...]
    unnamed: tuple[Path, ...]
    kinds: tuple[Header | None, ...]
    bytes: NDArray[np.int64]
    duplicates: Duplicates

    def name(self, row: int) -> str:
        """Return the path of an image relative to the folder of the data set."""
        return relative_name(self.dataset.paths[row], self.dataset.root)

    def unnamed_names(self) -> list[str]:
        """Return the paths of `unnamed` relative to the folder of the data set."""
        return [relative_name(path, self.dataset.root) for path in self.unnamed]

    def wrong_suffixes(self) -> list[int]:
        """Return the rows of images whose suffix is that of another format."""
        pairs = zip(self.kinds, self.dataset.paths, strict=True)
        return [row for row, (kind, path) in enumerate(pairs) if kind and not kind.matches(path)]

    def odd(self, oddity: str) -> list[int]:
        """Return the rows of images with one of the `ODDITIES`."""
        return [row for row, kind in enumerate(self.kinds) if kind and oddity in _oddities(kind)]

    def groups(self, duplicates: Groups) -> list[list[int]]:
        """Return the groups of two or more rows, the largest first."""
        first, counts = np.unique(duplicates, return_counts=True)
        chosen = first[counts > 1]
        members: dict[int, list[int]] = {row: [] for row in chosen.tolist()}
        for row in np.flatnonzero(np.isin(duplicates, chosen)).tolist():
            members[int(duplicates[row])].append(row)
        return sorted(members.values(), key=lambda rows: (-len(rows), rows))

    def across_sides(self) -> list[list[int]]:
        """Return the groups of near duplicates that are on more than one side of the split."""
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

    def labels_with(self, kind: str, *, below: int) -> list[str]:
        """Return the labels with fewer than `below` targets of a kind, for example `positives`."""
        return [label for label, counts in self.label_counts().items() if counts[kind] < below]

    def sizes(self) -> dict[str, dict[str, float]]:
        """Return percentiles of height, width, aspect ratio (width / height) and bytes."""
        sides = np.array([kind.size for kind in self.kinds if kind], float).reshape(-1, 2)
        columns = {
            "height": sides[:, 0],
            "width": sides[:, 1],
            "aspect": sides[:, 1] / sides[:, 0],
            "bytes": self.bytes,
        }
        return {
            name: {
                key: round(float(np.percentile(column, percent)), 4)
                for key, percent in _PERCENTILES.items()
            }
            for name, column in columns.items()
            if len(column)
        }

    def to_dict(self) -> dict[str, Any]:
        """Return all findings for JSON. The keys are stable.

        * `schema`: `edgeml.audit/1`. `source`: the audited data set. `images`: the number of
          usable images; all other keys are about these, except the next four.
        * `skipped`, `unreadable`: lists of `{"where", "why"}`, rows and images that cannot be
          used. `unnamed`: paths of images that no row names.
          `left_out`: the number of files that are not read, by format or suffix (`.txt`).
        * `labels`: by name `{"positives", "negatives", "unknown"}`. `rare`: names of those with
          fewer than 20 positives. `without_positives`, `without_negatives`: names.
          `unknown_share`: of all targets, a share of 1. `labels_per_image`: the mean.
        * `formats`: counts by `jpeg`, `png`, ... `wrong_extension`: lists of `{"path", "format"}`.
          `odd`: lists of paths by `cmyk`, `rgba`, `palette`, `grey`, `16-bit`, `rotated`.
        * `duplicates`: `exact` and `near` are lists of groups, which are lists of paths;
          `across_sides` those of `near` that are on more than one side of the data's split.
        * `conflicts`: lists of `{"paths": [a, b], "labels": [[..], [..]]}`, the same image with
          labels that contradict each other.
        * `sizes`: `min`, `p5`, `median`, `p95`, `max` of `height`, `width`, `aspect` and `bytes`.
        * `cooccurrence`: `labels`, and `counts` (L, L) of images that have both labels.
        * `exclusive`: labels that never occur together, as `Exclusive.to_dict`, or null.
        * `split`: the number of images on each side; null if there is no split.
        """
        dataset = self.dataset
        return {
            "schema": "edgeml.audit/1",
            "source": self.source,
            "images": len(dataset),
            "skipped": _as_json(self.skipped),
            "unreadable": _as_json(self.unreadable),
            "unnamed": self.unnamed_names(),
            "left_out": dict(dataset.left_out),
            "labels": self.label_counts(),
            "rare": self.labels_with("positives", below=RARE),
            "without_positives": self.labels_with("positives", below=1),
            "without_negatives": self.labels_with("negatives", below=1),
            "unknown_share": _share(~dataset.known),
            "labels_per_image": round(float(dataset.present.sum() / max(len(dataset), 1)), 4),
            "formats": dict(Counter(kind.format for kind in self.kinds if kind).most_common()),
            "wrong_extension": self._formats_of(self.wrong_suffixes()),
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
            "exclusive": self._exclusive(),
            "split": None if dataset.split is None else dict(Counter(dataset.split)),
        }

    def summary(self) -> list[tuple[str, str]]:
        """Return the findings as text: pairs of a name and a description."""
        exact = self.groups(self.duplicates.exact)
        near = self.groups(self.duplicates.near)
        odd = {oddity: len(self.odd(oddity)) for oddity in ODDITIES}
        rare = self.labels_with("positives", below=RARE)
        sizes = self.sizes()
        lines = [
            ("Images", f"{len(self.dataset)} usable"),
            ("Labels", f"{len(self.dataset.labels)}"),
            ("Rows left out", _first(map(str, self.skipped))),
            ("Unreadable images", _first(skipped.why for skipped in self.unreadable)),
            ("Images that no row names", _first(self.unnamed_names())),
            ("Wrong extensions", _first(self._names(self.wrong_suffixes()))),
            ("Odd images", ", ".join(f"{n} {name}" for name, n in odd.items() if n) or "none"),
            ("Exact duplicates", _extra(exact)),
            ("Near duplicates", f"{_extra(near)}{', including the exact ones' if exact else ''}"),
            ("Label conflicts", _first(self._conflict(pair) for pair in self.duplicates.conflicts)),
            (f"Labels with fewer than {RARE} positives", _listed(rare)),
            ("Labels without negatives", _listed(self.labels_with("negatives", below=1))),
            ("Unknown", f"{100 * _share(~self.dataset.known):.1f} % of the targets"),
        ]
        if "height" in sizes:
            h, w = sizes["height"], sizes["width"]
            text = f"{h['min']:.0f} to {h['max']:.0f} and {w['min']:.0f} to {w['max']:.0f} pixels, "
            text += f"median {h['median']:.0f} x {w['median']:.0f}"
            lines.append(("Height and width", text))
        if self.dataset.split is not None:
            across = len(self.across_sides())
            lines.append(("Near duplicates on two sides", f"{across} groups" if across else "none"))
        return lines

    def _exclusive(self) -> dict[str, Any] | None:
        found = found_labels(self.dataset)
        return found.to_dict() if found else None

    def _names(self, rows: Iterable[int]) -> list[str]:
        return [self.name(row) for row in rows]

    def _formats_of(self, rows: Iterable[int]) -> list[dict[str, str]]:
        return [
            {"path": self.name(row), "format": kind.format}
            for row in rows
            if (kind := self.kinds[row])
        ]

    def _conflict(self, pair: tuple[int, int]) -> str:
        first, second = (
            f"{self.name(row)!r} is {'+'.join(self.dataset.labels_of(row)) or 'nothing'}"
            for row in pair
        )
        return f"{first}, {second}"


def audit(
    source: Dataset | Path,
    *,
    read: Callable[..., Dataset] = read_dataset,
    threads: int | None = None,
    cache: Path | None = None,
    progress: Progress = SILENT,
) -> Audit:
    """Check every row and every image of a data set. Bad ones are listed and raise no error.

    Args:
        source: A data set, or its path as for `read_dataset`.
        read: Reads a data set at a path; given `skip_bad=True`.
        threads: None uses as many as there are processors.
        cache: A folder that stores thumbnails.
        progress: Shown the work.

    Raises:
        DataError: Nothing in the data set can be used.
    """
    if isinstance(source, Dataset):
        name, dataset = str(source.root), source
    else:
        name, dataset = str(source), read(source, skip_bad=True)
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
) -> tuple[Dataset, list[Header | None], NDArray[np.int64]]:
    """Read every file once; return the data set with its hashes, and headers and sizes in bytes."""

    def read(path: Path) -> tuple[str, Header | None, int]:
        try:
            data = read_file(path)
        except ImageError:
            return "", None, 0
        return hashlib.sha256(data).hexdigest(), header_or_none(data), len(data)

    results = []
    with progress.task("files", total=len(dataset)) as advance:
        for result in ordered_map(read, dataset.paths, workers=threads or usable_cpus()):
            results.append(result)
            advance(1)
    contents = zip(dataset.paths, results, strict=True)
    hashes = {path: content for path, (content, _, _) in contents if content}
    dataset = replace(dataset, known_hashes={**dataset.known_hashes, **hashes})
    sizes = np.array([size for _, _, size in results], np.int64)
    return dataset, [kind for _, kind, _ in results], sizes


def _unnamed(dataset: Dataset) -> tuple[Path, ...]:
    """Return the images in the folders of the data set that are not part of it."""
    if not len(dataset):
        return ()
    folder = Path(os.path.commonpath([path.parent for path in dataset.paths]))
    if not folder.is_dir():
        return ()
    named = {os.path.normpath(path) for path in dataset.paths}
    images = (path for path in files_below(folder, []) if is_image(path))
    return tuple(sorted(path for path in images if os.path.normpath(path) not in named))


def _oddities(kind: Header) -> set[str]:
    bits = "16-bit" if kind.bits == 16 else ""
    rotation = "rotated" if kind.orientation != 1 else ""
    return {kind.colours, bits, rotation} & set(ODDITIES)


def _as_json(skipped: Sequence[Skipped]) -> list[dict[str, str]]:
    return [{"where": one.where, "why": one.why} for one in skipped]


def _share(mask: NDArray[np.bool_]) -> float:
    return round(float(mask.mean()), 6) if mask.size else 0.0


def _first(texts: Iterable[str]) -> str:
    """Return the number of texts and the first of them."""
    listed = list(texts)
    if not listed:
        return "none"
    return f"{len(listed)}{': ' if len(listed) == 1 else ', the first: '}{listed[0]}"


def _listed(names: Sequence[str], limit: int = 20) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more or "none"


def _extra(groups: Sequence[Sequence[int]]) -> str:
    if not groups:
        return "none"
    extra = sum(len(rows) - 1 for rows in groups)
    ending = "s" if len(groups) > 1 else ""
    return f"{extra} in addition to the first of {len(groups)} group{ending}"

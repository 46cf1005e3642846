"""Thumbnails: every picture read once and small, to know that it can be read and what it shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeml.data.dataset import Dataset, Skipped, relative_name
from edgeml.data.frames import content_hashes, frames_and_faults
from edgeml.errors import DataError
from edgeml.image.preprocess import Preprocess
from edgeml.progress import SILENT, Progress

SIDE = 24
"""Height and width of a thumbnail."""

Thumbnails = NDArray[np.uint8]
"""(N, SIDE, SIDE, 3) uint8 BGR."""

_MOST_NAMED = 3


def thumbnails(
    dataset: Dataset,
    *,
    threads: int | None = None,
    cache: Path | None = None,
    progress: Progress = SILENT,
) -> tuple[Thumbnails, dict[Path, str]]:
    """Shrink every picture, whole, to SIDE x SIDE; and say why, where that is not possible.

    Args:
        dataset: It remembers its thumbnails, and the digests of its pictures if there is a cache.
        threads: How many; None takes as many as there are cores.
        cache: A folder that keeps thumbnails, as `decoded_frames` says.
        progress: Told what goes on.

    Returns:
        Thumbnails in the order of the pictures, black where one cannot be read; and for each that
        cannot be, the reason.
    """
    known = dataset.known_thumbnails
    new = [path for path in dict.fromkeys(dataset.paths) if path not in known]
    faults: dict[Path, str] = {}
    if new:
        hashes = None if cache is None else [_hashes(dataset, new, threads)]
        sides = [(new, Preprocess(size=(SIDE, SIDE)))]
        with (
            progress.task("thumbnails", total=len(new)) as advance,
            frames_and_faults(
                sides, threads=threads, advance=advance, cache=cache, hashes=hashes
            ) as ((frames,), faults),
        ):
            good = np.flatnonzero(frames.rows >= 0)
            known.update(zip([new[row] for row in good], frames[good], strict=True))
    small = np.zeros((len(dataset), SIDE, SIDE, 3), np.uint8)
    for row, path in enumerate(dataset.paths):
        if path in known:
            small[row] = known[path]
    return small, faults


def _hashes(dataset: Dataset, paths: Sequence[Path], threads: int | None) -> list[str]:
    """Give the digests of pictures, empty for one that cannot be read; they become known."""
    new = [path for path in paths if path not in dataset.known_hashes]
    found = zip(new, content_hashes(new, threads), strict=True)
    dataset.known_hashes.update({path: content for path, content in found if content})
    return [dataset.known_hashes.get(path, "") for path in paths]


def readable(
    dataset: Dataset,
    *,
    skip_bad: bool = False,
    threads: int | None = None,
    cache: Path | None = None,
    progress: Progress = SILENT,
) -> Dataset:
    """Give a data set of which every picture can be read.

    Args:
        dataset: What to look at.
        skip_bad: Leave out what cannot be read, and say so in `skipped`.
        threads: As for `thumbnails`.
        cache: As for `thumbnails`.
        progress: Told what goes on.

    Raises:
        DataError: Pictures cannot be read, and they must not be skipped, or none is left.
    """
    _, faults = thumbnails(dataset, threads=threads, cache=cache, progress=progress)
    if not faults:
        return dataset
    bad = np.array([path in faults for path in dataset.paths])
    if skip_bad and not bad.all():
        skipped = tuple(
            Skipped(relative_name(path, dataset.root), why) for path, why in faults.items()
        )
        return replace(dataset.select(~bad), skipped=(*dataset.skipped, *skipped))
    reasons = " ".join(list(faults.values())[:_MOST_NAMED])
    more = f" And {len(faults) - _MOST_NAMED} more." if len(faults) > _MOST_NAMED else ""
    raise DataError(
        f"{bad.sum()} of {len(dataset)} pictures cannot be read. {reasons}{more} Mend or remove "
        "them; edgeml train and edgeml data split leave them out with --skip-bad."
    )

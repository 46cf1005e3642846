"""The screening of a data set: which images can be read, by a thumbnail of each.

Thumbnails are what near duplicates are found by, so each image is decoded once for both.
"""

from __future__ import annotations

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

_MAX_REASONS = 3


def without_unreadable(
    dataset: Dataset,
    *,
    skip_bad: bool = False,
    threads: int | None = None,
    cache: Path | None = None,
    progress: Progress = SILENT,
) -> Dataset:
    """Return a data set whose images can all be read, with their thumbnails known.

    With `skip_bad`, images that cannot be read are left out, and listed in `skipped`; otherwise,
    or if none is left, they are a DataError. The other arguments are those of `thumbnails`.
    """
    if cache is not None:
        dataset = _with_readable_hashes(dataset, threads)
    small, faults = thumbnails(dataset, threads=threads, cache=cache, progress=progress)
    good = np.array([path not in faults for path in dataset.paths], bool)
    if faults and not (skip_bad and good.any()):
        reasons = " ".join(list(faults.values())[:_MAX_REASONS])
        more = f" And {len(faults) - _MAX_REASONS} more." if len(faults) > _MAX_REASONS else ""
        raise DataError(
            f"{(~good).sum()} of {len(dataset)} images cannot be read. {reasons}{more} Fix or "
            "remove them; edgeml train and edgeml data split leave them out with --skip-bad."
        )
    screened = dataset.select(good) if faults else dataset
    skipped = tuple(Skipped(relative_name(path, dataset.root), why) for path, why in faults.items())
    return replace(
        screened,
        skipped=(*dataset.skipped, *skipped),
        known_thumbnails=dict(zip(screened.paths, small[good], strict=True)),
    )


def thumbnails(
    dataset: Dataset,
    *,
    threads: int | None = None,
    cache: Path | None = None,
    progress: Progress = SILENT,
) -> tuple[Thumbnails, dict[Path, str]]:
    """Shrink every image to SIDE x SIDE, without regard to its aspect ratio.

    Args:
        dataset: Thumbnails that it knows are not made again.
        threads: None uses as many as there are processors.
        cache: A folder that stores thumbnails, as for `decoded_frames`.
        progress: Shown the work.

    Returns:
        Thumbnails in the order of the images, black for an image that cannot be read; and the
        reason for each of these.
    """
    known = dict(dataset.known_thumbnails)
    new = [path for path in dict.fromkeys(dataset.paths) if path not in known]
    faults: dict[Path, str] = {}
    if new:
        hashes = None
        if cache is not None:
            contents = _with_readable_hashes(dataset, threads).known_hashes
            hashes = [[contents.get(path, "") for path in new]]
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


def _with_readable_hashes(dataset: Dataset, threads: int | None) -> Dataset:
    """Return a data set that knows the hashes of all files that can be read."""
    new = [path for path in dict.fromkeys(dataset.paths) if path not in dataset.known_hashes]
    contents = zip(new, content_hashes(new, threads), strict=True)
    hashes = {path: content for path, content in contents if content}
    return replace(dataset, known_hashes={**dataset.known_hashes, **hashes})

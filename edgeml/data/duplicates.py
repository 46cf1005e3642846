"""Duplicate images: the same bytes, or the same scene at another size or quality."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeml.data.dataset import Dataset
from edgeml.data.screen import SIDE, Thumbnails

Groups = NDArray[np.intp]
"""(N,) the first row of the group that each row belongs to; its own index if it is alone."""

NEAR = 0.985
"""Grey correlation above which two thumbnails show the same scene.

Among 3,211 photos of clothes, no two different garments reached 0.98, not even with the same
photographer and carpet. Copies that were compressed (JPEG quality 10), shrunk, brightened, tinted,
rotated by 1 degree or cropped by 1 pixel of 160 on each side reached it in 99 % of 400 cases;
copies cropped by 3 pixels in 35 %.
"""

_FLATTEST = 2.0
"""Standard deviation in grey levels below which a thumbnail is plain and shows no scene."""

# The largest distance of 98 of 100 points in CIELAB. Copies as above are closer, except after
# strong changes of light; the closest of 222 pairs of similar images among those photos is at 12.4.
_SAME_COLOUR = 12.0
_SAME_COLOUR_SHARE = 98

_BLOCK = 1024
_MAX_COMPARED = 64


@dataclass(frozen=True, eq=False)
class Duplicates:
    """Images that exist more than once.

    Conflicts are pairs of rows that also have the same colours, but one is known to have a label
    that the other is known not to have.
    """

    exact: Groups  # the same bytes
    near: Groups  # the same bytes or the same scene in grey, directly or through others
    conflicts: tuple[tuple[int, int], ...]


def find_duplicates(dataset: Dataset, thumbnails: Thumbnails) -> Duplicates:
    """Find images that exist more than once, and those of them that have different labels.

    All files of the data set can be read; the thumbnails are in the order of its images.
    """
    first: dict[str, int] = {}
    exact = np.array([first.setdefault(c, row) for row, c in enumerate(dataset.hashes())], np.intp)
    parents = exact.copy()
    conflicts = [
        (int(exact[row]), row)
        for row in np.flatnonzero(exact != np.arange(len(exact))).tolist()
        if _contradict(dataset, int(exact[row]), np.array([row])).any()
    ]
    firsts = np.flatnonzero(exact == np.arange(len(exact)))
    for position, later in near_pairs(thumbnails[firsts]):
        row, others = int(firsts[position]), firsts[later]
        _join(parents, row, others)
        against = others[_contradict(dataset, row, others)][:_MAX_COMPARED]
        if len(against):
            same = _same_in_colour(thumbnails[row], thumbnails[against])
            conflicts += [(row, other) for other in against[same].tolist()]
    return Duplicates(exact, roots_of(parents), tuple(sorted(conflicts)))


def near_duplicates(thumbnails: Thumbnails) -> Groups:
    """Group images that show the same scene in grey, directly or through others."""
    parents = np.arange(len(thumbnails))
    for row, later in near_pairs(thumbnails):
        _join(parents, row, later)
    return roots_of(parents)


def near_pairs(thumbnails: Thumbnails) -> Iterator[tuple[int, Groups]]:
    """Yield each row that shows the scene of later rows, with these rows.

    Thumbnails are compared by their correlation in grey. Candidates are found on averages of 3 x 3
    points: this orthogonal projection can only reduce distances, so no pair is missed.
    """
    unit = _unit_vectors(thumbnails)
    cells = SIDE // 3
    coarse = unit.reshape(-1, cells, 3, cells, 3).sum(axis=(2, 4)).reshape(-1, cells * cells) / 3
    # |a - b|^2 < 2 (1 - NEAR), as one product: a b - |a|^2 / 2 - |b|^2 / 2 > NEAR - 1.
    half = -(coarse**2).sum(axis=1, keepdims=True) / 2
    one = np.ones_like(half)
    left, right = np.hstack([coarse, half, one]), np.hstack([coarse, one, half]).T
    for start in range(0, len(unit), _BLOCK):
        stop = min(start + _BLOCK, len(unit))
        possible = left[start:stop] @ right[:, start:] > NEAR - 1 - 1e-5
        # A pair is compared at its first row only.
        possible &= ~np.tri(*possible.shape, dtype=np.bool_)
        columns = np.flatnonzero(possible.any(axis=0)) + start
        near = possible[:, columns - start] & (unit[start:stop] @ unit[columns].T > NEAR)
        for row in np.flatnonzero(near.any(axis=1)).tolist():
            yield start + row, columns[near[row]]


def _unit_vectors(thumbnails: Thumbnails) -> NDArray[np.float32]:
    """Return grey thumbnails (N, SIDE^2) of mean 0 and length 1; products are correlations."""
    # ITU-R BT.601, in BGR.
    weights = np.array([0.114, 0.587, 0.299], np.float32)
    grey: NDArray[np.float32] = thumbnails.reshape(len(thumbnails), SIDE * SIDE, 3) @ weights
    grey -= grey.mean(axis=1, keepdims=True)
    length = np.linalg.norm(grey, axis=1, keepdims=True)
    grey[length[:, 0] < _FLATTEST * SIDE] = 0
    grey /= np.maximum(length, 1)
    return grey


def _contradict(dataset: Dataset, row: int, others: Groups) -> NDArray[np.bool_]:
    """Return which other rows are known to differ from a row in a label: (len(others),)."""
    one, many = dataset.targets[row], dataset.targets[others]
    different: NDArray[np.bool_] = (one != many) & dataset.known[row] & dataset.known[others]
    return np.asarray(different.any(axis=1))


def _same_in_colour(one: Thumbnails, many: Thumbnails) -> NDArray[np.bool_]:
    """Return which of (n, SIDE, SIDE, 3) have the colours of one (SIDE, SIDE, 3): (n,)."""
    apart = np.linalg.norm(_lab(one[None]) - _lab(many), axis=-1)
    return np.asarray(np.percentile(apart, _SAME_COLOUR_SHARE, axis=1) <= _SAME_COLOUR)


def _lab(thumbnails: Thumbnails) -> NDArray[np.float32]:
    """Convert (n, SIDE, SIDE, 3) BGR to (n, SIDE^2, 3) CIELAB, where distances are perceptual."""
    flat = thumbnails.reshape(1, -1, 3).astype(np.float32) / 255
    lab = cv2.cvtColor(flat, cv2.COLOR_BGR2LAB).reshape(len(thumbnails), -1, 3)
    return cast("NDArray[np.float32]", lab)


def _join(parents: Groups, row: int, others: Groups) -> None:
    """Unite the groups of a row and of others, in place."""
    heads = {root_of(parents, head) for head in np.unique(parents[others]).tolist()}
    heads.add(root_of(parents, row))
    top = min(heads)
    parents[[*heads, *others, row]] = top


def root_of(parents: Groups, row: int) -> int:
    """Return the row at the top of a group, and shorten the way to it in place."""
    while parents[row] != row:
        parents[row] = parents[parents[row]]
        row = int(parents[row])
    return row


def roots_of(parents: Groups) -> Groups:
    """Return the row at the top of each row's group."""
    return np.array([root_of(parents, row) for row in range(len(parents))], np.intp)

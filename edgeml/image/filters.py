"""Pillow's filters: weights to resample an axis, in blocks that BLAS multiplies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from edgeml.image.modes import Interpolation

Matrix = NDArray[np.float32]
Products = list[tuple[Matrix, Matrix, Matrix]]
"""Blocks of weights, the data to multiply them by, and where the result goes."""

# Points of output computed together. Small blocks waste few multiplications outside the filter's
# band, large ones need fewer calls: the first size that needs few enough calls is used.
_BLOCKS = (2, 4, 8)
_MAX_RUNS = 16


@dataclass(frozen=True, eq=False)
class Run:
    """Blocks of output points at equal distances that have the same weights (points, taps).

    `first` is the first point and the first tap of the first block; `step`, those to the next.
    """

    count: int
    first: tuple[int, int]
    step: tuple[int, int]
    weights: Matrix


@dataclass(frozen=True, eq=False)
class Weights:
    """How to resample one axis: the points of the input that are used, and products of blocks."""

    source: slice
    count: int
    runs: tuple[Run, ...]

    @property
    def largest(self) -> int:
        """The size of the largest block."""
        return max(run.weights.size for run in self.runs)

    def products(self, source: Rows, out: Rows) -> Products:
        """Return the products that resample the rows of an image into those of `out`."""
        return [
            (
                run.weights,
                source.blocks(run.count, run.first[1], run.step[1], run.weights.shape[1]),
                out.blocks(run.count, run.first[0], run.step[0], run.weights.shape[0]),
            )
            for run in self.runs
        ]


@dataclass(frozen=True, eq=False)
class Rows:
    """Planes of rows of `length` floats in one piece of memory; distances are in bytes."""

    memory: Matrix
    row: int
    length: int
    planes: int = 1
    plane: int = 0
    at: int = 0

    def blocks(self, count: int, first: int, step: int, rows: int) -> Matrix:
        """View blocks of rows that may overlap: (count, planes, rows, length).

        Equal to `numpy.lib.stride_tricks.as_strided`, in a fraction of its time.
        """
        return np.ndarray(
            (count, self.planes, rows, self.length),
            np.float32,
            self.memory,
            self.at + first * self.row,
            (step * self.row, self.plane, self.row, 4),
        )


@lru_cache(maxsize=256)
def weights_of(
    count: int,
    length: float,
    target: int,
    start: int,
    stop: int,
    interpolation: Interpolation,
    plain: bool = False,
) -> Weights:
    """Return the weights for the points `start` to `stop` of an axis resampled to `target` points.

    Follows Pillow's `precompute_coeffs` (src/libImaging/Resample.c): output point i is a weighted
    mean of the input around (i + 0.5) * scale, with a kernel widened by max(scale, 1), or not
    widened if `plain`. The input has `count` points; `length` adds the fraction that was dropped.
    """
    scale = length / target
    stretch = 1.0 if plain else max(scale, 1.0)
    support = stretch * _SUPPORTS[interpolation]
    centre = (np.arange(start, stop) + 0.5) * scale
    low = np.maximum((centre - support + 0.5).astype(int), 0)
    high = np.minimum((centre + support + 0.5).astype(int), count)
    point = low[:, None] + np.arange((high - low).max())
    taps = _kernel((point + 0.5 - centre[:, None]) / stretch, interpolation, plain)
    taps *= point < high[:, None]
    taps /= taps.sum(axis=1, keepdims=True)
    low, high = low - low[0], high - low[0]
    for size in _BLOCKS:
        runs = _runs(low, high, taps, size)
        if len(runs) <= _MAX_RUNS:
            break
    return Weights(slice(int(point[0, 0]), int(point[0, 0] + high[-1])), stop - start, runs)


def _runs(
    low: NDArray[np.int_], high: NDArray[np.int_], taps: NDArray[np.float64], size: int
) -> tuple[Run, ...]:
    """Cut points into blocks of `size`, and gather blocks that differ by their place alone.

    Where the sides of an image have a simple ratio, as those of cameras do, few products remain.
    """
    groups: dict[bytes, list[tuple[int, int, Matrix]]] = {}
    for first in range(0, len(low), size):
        last = min(first + size, len(low))
        block = np.zeros((last - first, high[last - 1] - low[first]))
        for row, i in zip(block, range(first, last), strict=True):
            row[low[i] - low[first] : high[i] - low[first]] = taps[i, : high[i] - low[i]]
        # Differences behind the sixth digit come from rounding the block's place.
        key = np.append(block.round(6), block.shape).tobytes()
        groups.setdefault(key, []).append((first, int(low[first]), block.astype(np.float32)))
    runs = []
    for blocks in groups.values():
        while blocks:
            count = _equally_spaced([(first, tap) for first, tap, _ in blocks])
            (first, tap, block), (after, next_tap, _) = blocks[0], blocks[min(1, count - 1)]
            runs.append(Run(count, (first, tap), (after - first, next_tap - tap), block))
            blocks = blocks[count:]
    return tuple(runs)


def _equally_spaced(places: Sequence[tuple[int, int]]) -> int:
    """Return how many of the first places have equal distances."""
    steps = [(b - a, d - c) for (a, c), (b, d) in pairwise(places)]
    return 1 + next((i for i, step in enumerate(steps) if step != steps[0]), len(steps))


_SUPPORTS: dict[Interpolation, float] = {"nearest": 0.5, "linear": 1, "cubic": 2, "lanczos": 3}


def _kernel(
    x: NDArray[np.float64], interpolation: Interpolation, plain: bool
) -> NDArray[np.float64]:
    """Evaluate the box, the triangle, Keys' cubic kernel (1981), or the sinc of three lobes."""
    x = np.abs(x)
    match interpolation:
        case "nearest":
            return np.ones_like(x)
        case "linear":
            return np.clip(1 - x, 0, None)
        case "lanczos":
            return np.where(x < 3, np.sinc(x) * np.sinc(x / 3), 0.0)
    a = -0.75 if plain else -0.5
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))

"""Histograms of activations, and the ranges that they lead to."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import CalibrationError

Method = Literal["minmax", "percentile", "entropy"]
METHODS: tuple[Method, ...] = get_args(Method)

Range = tuple[float, float]
"""The least and the largest value that INT8 tells apart from others; 0 is between them."""

PERCENTILE = 99.99
"""How many percent of the values the range of `percentile` holds; the rest is on both sides."""

# With 4096 bins over [-r, r], r a power of two, at least a quarter covers the values.
_BINS = 4096

# Of one tensor of one batch. The least and the largest value are those of all its values.
_MAX_SAMPLED = 1 << 16


class Histogram:
    """Counts values in bins over [-r, r], where r doubles when a value lies beyond it."""

    def __init__(self) -> None:
        self.low = self.high = 0.0
        self._reach = 0.0
        self._counts: NDArray[np.int64] = np.zeros(_BINS, np.int64)

    def add(self, name: str, tensor: NDArray[Any]) -> None:
        """Count the values of a tensor of any shape.

        Raises:
            CalibrationError: One of them is NaN or infinity.
        """
        values = tensor.reshape(-1)
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise CalibrationError(
                f"The tensor {name!r} is not finite on an image: the FP32 model itself is broken."
            )
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._stretch(max(-low, high))
        # An odd step does not pick the same row or channel again and again.
        values = values[:: math.ceil(len(values) / _MAX_SAMPLED) | 1]
        if not self._reach:  # nothing but 0 so far
            self._counts[_BINS // 2] += len(values)
            return
        bins = values * (_BINS / (2 * self._reach)) + _BINS / 2
        self._counts += np.bincount(np.clip(bins.astype(np.int32), 0, _BINS - 1), minlength=_BINS)

    def ranges(self) -> dict[Method, Range]:
        """Return the range by each method, never wider than the values were."""
        wide = self.low, self.high
        return {
            "minmax": wide,
            "percentile": self._within(wide, self._percentile()),
            "entropy": self._within(wide, self._entropy()),
        }

    def _stretch(self, reach: float) -> None:
        # Values too small for a float32 to divide by count as 0.
        if reach <= max(self._reach, float(np.finfo(np.float32).tiny) * _BINS):
            return
        wanted = 2.0 ** math.ceil(math.log2(reach))
        if self._reach:
            while self._reach < wanted:
                pairs = self._counts.reshape(-1, 2).sum(axis=1)
                self._counts = np.pad(pairs, _BINS // 4)
                self._reach *= 2
        self._reach = wanted

    @staticmethod
    def _within(wide: Range, narrow: Range) -> Range:
        return max(wide[0], min(narrow[0], 0.0)), min(wide[1], max(narrow[1], 0.0))

    def _percentile(self) -> Range:
        share = np.cumsum(self._counts) / max(1, self._counts.sum())
        tail = (1 - PERCENTILE / 100) / 2
        below = int(np.searchsorted(share, tail, side="right"))
        above = int(np.searchsorted(share, 1 - tail, side="left"))
        width = 2 * self._reach / _BINS
        return below * width - self._reach, (above + 1) * width - self._reach

    def _entropy(self) -> Range:
        """Cut where the distribution of magnitudes loses the least information."""
        half = _BINS // 2
        magnitudes = self._counts[half:] + self._counts[:half][::-1]
        reach = entropy_cut(magnitudes) * self._reach / half
        return -reach, reach


def entropy_cut(counts: NDArray[np.int64], levels: int = 128) -> int:
    """Return the number of bins to keep so that quantising them loses the least information.

    The counts beyond the cut go to its last bin (P); the bins before it are merged into `levels`
    and spread again over those that were not empty (Q); the cut with the least Kullback-Leibler
    divergence of P from Q wins. Migacz, 8-bit Inference with TensorRT, GTC 2017.

    Args:
        counts: (B,) of magnitudes, from 0 up.
        levels: Steps that a magnitude has in 8 bits.
    """
    filled = np.flatnonzero(counts)
    last = int(filled[-1]) + 1 if len(filled) else 0
    if last <= levels:
        return last
    best, least = last, math.inf
    # The bin at 0 holds the values that a ReLU clamped, more than all others together; MXNet and
    # ONNX Runtime replace its count in the same way.
    counts = counts.astype(np.float64)
    counts[0] = counts[1]
    for cut in [*range(levels, last, max(1, (last - levels) // 128)), last]:
        inside = counts[:cut]
        if not inside.any():
            continue  # nothing would be left to quantise, though P and Q are equal
        p = inside.copy()
        p[-1] += counts[cut:].sum()
        group = np.arange(cut) * levels // cut
        full = inside > 0
        sums = np.bincount(group, inside, levels)
        members = np.bincount(group, full, levels)
        q = np.where(full, (sums / np.maximum(members, 1))[group], 0)
        # Counts from beyond the cut in an empty bin have no counterpart in Q: give it a small one.
        q[(p > 0) & (q == 0)] = 1e-4
        p, q = p / p.sum(), q / q.sum()
        positive = p > 0
        lost = float((p[positive] * np.log(p[positive] / q[positive])).sum())
        if lost < least:
            best, least = cut, lost
    return best

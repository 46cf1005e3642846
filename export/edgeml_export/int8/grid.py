"""The values that 8-bit integers stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Grid:
    """What integers q mean: scale * (q - zero).

    Attributes:
        scale: () or (channels,).
        zero: Of the same shape, or ().
        dtype: Of the integers.
    """

    scale: NDArray[Any]
    zero: NDArray[np.int64]
    dtype: np.dtype[Any]

    @classmethod
    def of_range(cls, low: float, high: float, *, signed: bool, symmetric: bool) -> Grid:
        """Return the grid of 256 values that holds a range around 0.

        Args:
            low: The least value, 0 or less.
            high: The largest, 0 or more.
            signed: The integers are int8, else uint8.
            symmetric: The zero point is 0, and integers are int8 if some values are negative.
        """
        if symmetric and (low < 0 or signed):
            scale = nonzero(np.asarray(max(-low, high) / 127)).astype(np.float32)
            return cls(scale, np.asarray(0), np.dtype(np.int8))
        scale = nonzero(np.asarray((high - low) / 255)).astype(np.float32)
        zero = np.clip(np.rint(-low / scale), 0, 255).astype(np.int64)
        if signed:
            return cls(scale, zero - 128, np.dtype(np.int8))
        return cls(scale, zero, np.dtype(np.uint8))

    @property
    def is_symmetric_int8(self) -> bool:
        return self.dtype == np.int8 and not self.zero.any()

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the largest value, over all channels."""
        info = np.iinfo(self.dtype)
        low, high = (self.scale * (end - self.zero) for end in (info.min, info.max))
        return float(low.min()), float(high.max())


def nonzero(scale: NDArray[Any]) -> NDArray[Any]:
    """Put 1 in place of scales that are 0, or too small: those of tensors that are always 0."""
    return np.where(scale > np.finfo(np.float32).tiny, scale, 1)


def along(values: NDArray[Any], axis: int | None, dimensions: int) -> NDArray[Any]:
    """Shape values by channel so that they multiply a tensor of that many dimensions."""
    if axis is None or values.size == 1:
        return values.reshape(())
    return values.reshape([-1 if index == axis else 1 for index in range(dimensions)])

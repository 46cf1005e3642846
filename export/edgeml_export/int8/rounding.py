"""Weights in 8 bits: a scale for each output channel, and which way each weight is rounded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def by_channel(
    weight: NDArray[np.float32], axis: int, least: NDArray[np.float64] | float = 0.0
) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Give scales (channels,) and the weight in integers -127 to 127, symmetric by channel.

    Weights are rounded so that the errors within one kernel cancel: neighbouring pixels are alike,
    so what counts of a kernel is the sum of its errors. Guo et al., SQuant, ICLR 2022, its first
    step. On MobileNetV2 it halves what is left after the bias was corrected.

    Args:
        weight: Of any shape; one of 4 dimensions has its kernels in the last two.
        axis: Of its output channels.
        least: Scales are not to be smaller: one number, or (channels,).
    """
    others = tuple(index for index in range(weight.ndim) if index != axis)
    scale = np.maximum(np.abs(weight).max(axis=others) / np.float32(127), least)
    scale = np.where(scale > np.finfo(np.float32).tiny, scale, 1).astype(np.float32)
    shape = [-1 if index == axis else 1 for index in range(weight.ndim)]
    exact = weight / scale.reshape(shape)
    integers = np.clip(np.rint(exact), -127, 127)
    if weight.ndim == 4 and weight[0, 0].size > 1:
        taps = (*weight.shape[:2], -1)
        integers = _balanced(integers.reshape(taps), exact.reshape(taps)).reshape(weight.shape)
    return scale, integers.astype(np.int8)


def _balanced(integers: NDArray[np.float32], exact: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round single taps the other way until each kernel's errors sum up to half a step at most.

    Args:
        integers: (O, I, taps) rounded to the nearest.
        exact: The same before it was rounded.
    """
    integers = integers.copy()
    for sign in (1, -1):  # errors that sum up below 0, then above
        while True:
            error = integers - exact
            off = np.argwhere(sign * error.sum(axis=-1) < -0.5)
            if not len(off):
                break
            o, i = off.T
            # The tap that was moved farthest in this direction; none may leave the 8 bits.
            free = sign * integers[o, i] < 127
            tap = np.where(free, sign * error[o, i], np.inf).argmin(axis=-1)
            integers[o, i, tap] += sign
    return integers

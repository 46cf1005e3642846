"""Weights in 8 bits: a scale for each output channel, and which way each weight is rounded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeml_export.int8.grid import along, nonzero


def by_channel(
    weight: NDArray[np.float32], axis: int, min_scale: NDArray[np.float64] | float = 0.0
) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Return scales (channels,) and the weight in integers -127 to 127, symmetric by channel.

    Weights are rounded so that the errors within one kernel cancel: neighbouring pixels are alike,
    so the error that counts is the sum over a kernel. Guo et al., SQuant, ICLR 2022, its first
    step. On MobileNetV2 it halves the error that remains after the bias was corrected.

    Args:
        weight: Of any shape; with 4 dimensions, its kernels are in the last two.
        axis: Of its output channels.
        min_scale: Lower limit of the scales: one number, or (channels,).
    """
    others = tuple(index for index in range(weight.ndim) if index != axis)
    scale = np.maximum(np.abs(weight).max(axis=others) / np.float32(127), min_scale)
    scale = nonzero(scale).astype(np.float32)
    exact = weight / along(scale, axis, weight.ndim)
    integers = np.clip(np.rint(exact), -127, 127)
    if weight.ndim == 4 and weight[0, 0].size > 1:
        taps = (*weight.shape[:2], -1)
        integers = _balanced(integers.reshape(taps), exact.reshape(taps)).reshape(weight.shape)
    return scale, integers.astype(np.int8)


def _balanced(integers: NDArray[np.float32], exact: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round single taps the other way until each kernel's errors add up to half a step at most.

    Args:
        integers: (O, I, taps) rounded to the nearest.
        exact: The same before rounding.
    """
    integers = integers.copy()
    for sign in (1, -1):  # sums of errors below 0, then above
        while True:
            error = integers - exact
            off = np.argwhere(sign * error.sum(axis=-1) < -0.5)
            if not len(off):
                break
            o, i = off.T
            # The tap that rounding moved farthest the other way, and that stays within 8 bits.
            free = sign * integers[o, i] < 127
            tap = np.where(free, sign * error[o, i], np.inf).argmin(axis=-1)
            integers[o, i, tap] += sign
    return integers

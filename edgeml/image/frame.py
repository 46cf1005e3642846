"""Frames and batches: images in memory, and the check that an array is a frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import InputError

Frame = NDArray[np.uint8]
"""(H, W, 3) uint8, BGR: what OpenCV reads."""


Batch = NDArray[np.float32]
"""(N, 3, H, W) float32, RGB unless the spec says otherwise, normalised."""


def check_frame(frame: Frame) -> None:
    """Refuse an array that is not a frame, and suggest a conversion.

    Raises:
        InputError: `frame` is not (H, W, 3) uint8 with at least one pixel.
    """
    if type(frame) is np.ndarray and frame.dtype == np.uint8 and frame.ndim == 3:
        height, width, channels = frame.shape
        if channels == 3 and height and width:
            return
    if not isinstance(frame, np.ndarray):
        raise InputError(
            f"A frame is a numpy array, not {type(frame).__name__}. Convert it first: (H, W, 3) "
            "uint8 BGR."
        )
    if isinstance(frame, np.ma.MaskedArray):
        raise InputError("A frame has no mask: fill it first, as in frame.filled(0).")
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
        hint = _conversion_hint(frame)
        raise InputError(f"A frame is (H, W, 3) uint8 BGR, not {frame.shape} {frame.dtype}{hint}")


def _conversion_hint(frame: NDArray[Any]) -> str:
    """Return the code that converts an array of another shape or type to a frame."""
    if frame.size == 0:
        return ": it has no pixel."
    match frame.shape, frame.dtype.kind:
        case _, "f":
            return ". If 1 is white: (255 * frame).round().clip(0, 255).astype(np.uint8)."
        case _, "u" if frame.dtype.itemsize == 2:
            return ". If all 16 bits are used: (frame >> 8).astype(np.uint8)."
        case _, kind if kind != "u" or frame.dtype.itemsize > 1:
            return ". If its values are 0 to 255: frame.astype(np.uint8)."
        case (_, _) | (_, _, 1), _:
            return ". Grey: cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR)."
        case (_, _, 4), _:
            return ". With transparency: cv2.cvtColor(frame, cv2.COLOR_BGRA2BGR)."
        case (3, _, _), _:
            return ". Channels last: frame.transpose(1, 2, 0)."
        case (_, _, _, 3), _:
            return ". Several at once: predict_batch(list(frames))."
        case _:
            return "."

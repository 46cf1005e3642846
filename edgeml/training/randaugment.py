"""RandAugment (Cubuk et al., 2020) on frames, with a separate generator for each image.

The operations, their strengths and their number are those of torchvision's `RandAugment`, which
uses the global generator of the process: threads cannot share it, and a run cannot be resumed
exactly. Several operations change hues: do not use it for labels that are colours.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from edgeml.image.frame import Frame

OPERATIONS = 2
MAGNITUDE = 9
_BINS = 30
# The colour outside of the image.
_BORDER = (124, 116, 104)


def randaugment(frame: Frame, rng: np.random.Generator) -> Frame:
    """Apply two random operations with random signs to a frame (H, W, 3) uint8 BGR."""
    for choice in rng.integers(len(_TABLE), size=OPERATIONS):
        operation, limit, signed = _TABLE[choice]
        strength = limit * MAGNITUDE / _BINS
        if signed and rng.random() < 0.5:
            strength = -strength
        frame = operation(frame, strength)
    return frame


def translate_x(frame: Frame, strength: float) -> Frame:
    """Shift by `strength` times the width."""
    return _warp(frame, [[1, 0, strength * frame.shape[1]], [0, 1, 0]])


def rotate(frame: Frame, strength: float) -> Frame:
    """Rotate by `strength` degrees around the centre."""
    height, width = frame.shape[:2]
    return _warp(frame, cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), strength, 1))


def brightness(frame: Frame, strength: float) -> Frame:
    """Blend with black."""
    return _blend(frame, np.zeros_like(frame), strength)


def colour(frame: Frame, strength: float) -> Frame:
    """Blend with the greyscale image."""
    grey = cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return _blend(frame, grey, strength)


def contrast(frame: Frame, strength: float) -> Frame:
    """Blend with the mean grey of the image."""
    mean = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY).mean()
    return _blend(frame, np.full_like(frame, round(float(mean))), strength)


def sharpness(frame: Frame, strength: float) -> Frame:
    """Blend with the smoothed image."""
    kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
    return _blend(frame, cv2.filter2D(frame, -1, kernel), strength)


def posterize(frame: Frame, strength: float) -> Frame:
    """Keep the upper 8 - `strength` bits."""
    return np.bitwise_and(frame, np.uint8(0xFF << round(strength) & 0xFF))


def solarize(frame: Frame, strength: float) -> Frame:
    """Invert values of at least 1 - `strength`."""
    return np.where(frame >= 255 * (1 - strength), 255 - frame, frame)


def autocontrast(frame: Frame, strength: float) -> Frame:
    """Stretch each channel to the full range."""
    low, high = frame.min(axis=(0, 1)).astype(float), frame.max(axis=(0, 1)).astype(float)
    span = np.where(high > low, high - low, 1)
    scale, offset = np.where(high > low, 255 / span, 1), np.where(high > low, low, 0)
    stretched = (frame - offset) * scale
    return np.clip(stretched, 0, 255).astype(np.uint8)


def equalize(frame: Frame, strength: float) -> Frame:
    """Spread the levels of each channel evenly."""
    return cv2.merge([cv2.equalizeHist(channel) for channel in cv2.split(frame)])  # type: ignore[return-value]


def _warp(frame: Frame, matrix: object) -> Frame:
    height, width = frame.shape[:2]
    return cv2.warpAffine(  # type: ignore[return-value]
        frame,
        np.asarray(matrix, np.float64),
        (width, height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=_BORDER,
    )


def _blend(frame: Frame, other: object, strength: float) -> Frame:
    """Extrapolate from `other` to the frame by the factor 1 + `strength`; clip to 0..255."""
    return cv2.addWeighted(frame, 1 + strength, other, -strength, 0)  # type: ignore[call-overload,no-any-return]


# Operation, its strength at full magnitude, and whether its sign is random.
_TABLE: tuple[tuple[Callable[[Frame, float], Frame], float, bool], ...] = (
    (lambda frame, _: frame, 0, False),
    (lambda frame, x: _warp(frame, [[1, x, 0], [0, 1, 0]]), 0.3, True),
    (lambda frame, y: _warp(frame, [[1, 0, 0], [y, 1, 0]]), 0.3, True),
    (translate_x, 150 / 331, True),
    (lambda frame, y: _warp(frame, [[1, 0, 0], [0, 1, y * frame.shape[0]]]), 150 / 331, True),
    (rotate, 30, True),
    (brightness, 0.9, True),
    (colour, 0.9, True),
    (contrast, 0.9, True),
    (sharpness, 0.9, True),
    (posterize, 4, False),
    (solarize, 1, False),
    (autocontrast, 0, False),
    (equalize, 0, False),
)

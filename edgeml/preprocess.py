"""From frames to the network's input: the only code in edgeml that does it, training included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeml.errors import InputError, SpecError

Frame = NDArray[np.uint8]
"""(H, W, 3) uint8, BGR: what OpenCV reads."""

Batch = NDArray[np.float32]
"""(N, 3, H, W) float32, RGB unless the spec says otherwise, normalised."""

Resize = Literal["squash", "crop", "letterbox"]
Interpolation = Literal["linear", "cubic"]
Matrix = NDArray[np.float32]

# Rows of output computed together. Small blocks waste few multiplications outside the filter's
# band, large ones keep BLAS busy; 8 was the fastest of 4 to 64 for 96 to 224 pixels.
_BLOCK = 8

# A picture at least this many times larger than wanted is first halved. The exact filter then
# always has a factor of two left to work on, which keeps 50 dB against PIL; halving down to a
# factor of 1.5 would keep 46.
_HALVE_FROM = 4


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How a frame becomes an input. Part of the `ModelSpec`; equal values preprocess equally.

    Attributes:
        size: (height, width) of the network's input, in pixels.
        resize: `squash` fits the whole frame into `size` and forgets its aspect ratio, so that no
            label is cut away; `crop` keeps the ratio and cuts the centre; `letterbox` keeps the
            ratio and pads with `pad`.
        interpolation: The filter, antialiased as in Pillow: `linear` is the triangle, `cubic`
            Keys' kernel with a = -0.5.
        crop: For `crop`, the share of the resized picture's sides that is kept, in (0, 1].
        pad: For `letterbox`, the grey level of the border, 0 to 255.
        mean, std: Per channel, in the order of `channels`, on a scale of 0 to 1.
        channels: The colour order that the network wants.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    size: tuple[int, int]
    resize: Resize = "squash"
    interpolation: Interpolation = "linear"
    crop: float = 1.0
    pad: int = 114
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    channels: Literal["rgb", "bgr"] = "rgb"

    def __post_init__(self) -> None:
        height, width = self.size
        if not (1 <= height <= 4096 and 1 <= width <= 4096):
            raise SpecError(f"preprocess.size is {self.size}; each side must be 1 to 4096 pixels.")
        if not 0 < self.crop <= 1:
            raise SpecError(f"preprocess.crop is {self.crop}; it must be above 0 and at most 1.")
        if not all(np.isfinite(self.mean)) or not all(np.isfinite(self.std)) or min(self.std) <= 0:
            raise SpecError(f"preprocess.mean {self.mean} or std {self.std} is not usable.")

    def __call__(self, frames: Sequence[Frame]) -> Batch:
        """Resize and normalise frames to an array (N, 3, *size) float32.

        Raises:
            InputError: A frame is not (H, W, 3) uint8.
        """
        batch = np.empty((len(frames), 3, *self.size), np.float32)
        for frame, planes in zip(frames, batch, strict=True):
            self._normalize_into(planes, self.fit(frame))
        return batch

    def fit(self, frame: Frame) -> Frame:
        """Bring one frame to `size`, still (H, W, 3) uint8 BGR.

        Raises:
            InputError: The frame is not (H, W, 3) uint8.
        """
        check_frame(frame)
        height, width = frame.shape[:2]
        if self.resize == "squash":
            return resize(frame, self.size, self.interpolation)
        if self.resize == "crop":
            scale = max(self.size[0] / height, self.size[1] / width) / self.crop
            whole = resize(frame, _scaled(frame, scale, at_least=self.size), self.interpolation)
            top, left = ((a - b) // 2 for a, b in zip(whole.shape[:2], self.size, strict=True))
            return whole[top : top + self.size[0], left : left + self.size[1]]
        scale = min(self.size[0] / height, self.size[1] / width)
        inner = resize(frame, _scaled(frame, scale, at_most=self.size), self.interpolation)
        canvas: Frame = np.full((*self.size, 3), self.pad, np.uint8)
        top, left = ((b - a) // 2 for a, b in zip(inner.shape[:2], self.size, strict=True))
        canvas[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
        return canvas

    def normalize(self, frames: Sequence[Frame]) -> Batch:
        """Normalise frames that already have `size` to an array (N, 3, *size) float32."""
        batch = np.empty((len(frames), 3, *self.size), np.float32)
        for frame, planes in zip(frames, batch, strict=True):
            self._normalize_into(planes, frame)
        return batch

    def _normalize_into(self, planes: Matrix, frame: Frame) -> None:
        """Write (frame / 255 - mean) / std into `planes`, one fused pass a plane."""
        order = (2, 1, 0) if self.channels == "rgb" else (0, 1, 2)
        for plane, channel, mean, std in zip(planes, order, self.mean, self.std, strict=True):
            np.multiply(frame[..., channel], np.float32(1 / (255 * std)), out=plane)
            plane -= np.float32(mean / std)


def check_frame(frame: Frame) -> None:
    """Refuse what is not a frame, in words.

    Raises:
        InputError: `frame` is not (H, W, 3) uint8 with at least one pixel.
    """
    if not isinstance(frame, np.ndarray):
        raise InputError(f"A frame is a numpy array, not {type(frame).__name__}.")
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
        raise InputError(
            f"A frame is (H, W, 3) uint8 BGR, not {frame.shape} {frame.dtype}. "
            "Convert it first, for example with cv2.cvtColor."
        )


def resize(frame: Frame, size: tuple[int, int], interpolation: Interpolation = "linear") -> Frame:
    """Resample a frame (H, W, 3) uint8 to (*size, 3) uint8 with an antialiased filter.

    The filter is Pillow's (a triangle or Keys' cubic, widened by the scale when shrinking), which
    is what timm and torchvision train with; OpenCV's own linear resize does not widen it. Two
    things make it cheap: large pictures are halved first, and the banded weight matrices are
    applied as small dense products, which BLAS does at full speed.
    """
    height, width = size
    while frame.shape[0] >= _HALVE_FROM * height and frame.shape[1] >= _HALVE_FROM * width:
        half = (frame.shape[1] // 2, frame.shape[0] // 2)
        frame = cv2.resize(frame, half, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    if frame.shape[:2] == size:
        return frame
    # Columns first: a transpose in between lets both passes run along the rows of memory.
    rows = _resample_rows(frame.astype(np.float32), height, interpolation)
    columns = _resample_rows(np.asarray(cv2.transpose(rows), np.float32), width, interpolation)
    out = cv2.transpose(columns)
    np.rint(np.clip(out, 0, 255, out=out), out=out)
    return out.astype(np.uint8)


def _resample_rows(picture: Matrix, count: int, interpolation: Interpolation) -> Matrix:
    """Resample (H, W, 3) along its first axis to (count, W, 3)."""
    out = np.empty((count, *picture.shape[1:]), np.float32)
    flat_in, flat_out = picture.reshape(len(picture), -1), out.reshape(count, -1)
    for rows, taps, weights in _bands(len(picture), count, interpolation):
        np.matmul(weights, flat_in[taps], out=flat_out[rows])
    return out


@lru_cache(maxsize=256)
def _bands(
    source: int, target: int, interpolation: Interpolation
) -> tuple[tuple[slice, slice, Matrix], ...]:
    """Give the weights that resample `source` to `target` points, in blocks along the band.

    Follows Pillow's `precompute_coeffs` (src/libImaging/Resample.c): the output point i looks at
    the input around (i + 0.5) * scale, through a kernel widened by max(scale, 1).
    """
    scale = source / target
    stretch = max(scale, 1.0)
    support = stretch * (1.0 if interpolation == "linear" else 2.0)
    weights = np.zeros((target, source))
    for i in range(target):
        centre = (i + 0.5) * scale
        low = max(int(centre - support + 0.5), 0)
        high = min(int(centre + support + 0.5), source)
        distance = (np.arange(low, high, dtype=np.float64) + 0.5 - centre) / stretch
        share = _kernel(distance, interpolation)
        weights[i, low:high] = share / share.sum()
    blocks = []
    for start in range(0, target, _BLOCK):
        rows = slice(start, min(start + _BLOCK, target))
        used = np.flatnonzero(weights[rows].any(axis=0))
        taps = slice(int(used[0]), int(used[-1]) + 1)
        blocks.append((rows, taps, np.ascontiguousarray(weights[rows, taps], np.float32)))
    return tuple(blocks)


def _kernel(x: NDArray[np.float64], interpolation: Interpolation) -> NDArray[np.float64]:
    """Evaluate the triangle, or Keys' cubic convolution kernel (1981) with a = -0.5."""
    x = np.abs(x)
    if interpolation == "linear":
        return np.clip(1 - x, 0, None)
    a = -0.5
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _scaled(
    frame: Frame,
    scale: float,
    *,
    at_least: tuple[int, int] = (1, 1),
    at_most: tuple[int, int] = (1 << 30, 1 << 30),
) -> tuple[int, int]:
    """Scale a frame's (height, width), rounded, within bounds that rounding could break."""
    height, width = (
        min(max(round(side * scale), low), high)
        for side, low, high in zip(frame.shape[:2], at_least, at_most, strict=True)
    )
    return height, width

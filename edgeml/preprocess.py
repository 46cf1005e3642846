"""From frames to the network's input: the only code in edgeml that does it, training included."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal, cast, get_args

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
        for field, choices in (("resize", Resize), ("interpolation", Interpolation)):
            if getattr(self, field) not in get_args(choices):
                raise SpecError(
                    f"preprocess.{field} is {getattr(self, field)!r}; "
                    f"it must be one of {', '.join(get_args(choices))}."
                )
        if not 0 <= self.pad <= 255:
            raise SpecError(f"preprocess.pad is {self.pad}; it must be 0 to 255.")
        if not 0 < self.crop <= 1:
            raise SpecError(f"preprocess.crop is {self.crop}; it must be above 0 and at most 1.")
        if not all(np.isfinite(self.mean)) or not all(np.isfinite(self.std)) or min(self.std) <= 0:
            raise SpecError(f"preprocess.mean {self.mean} or std {self.std} is not usable.")

    @property
    def whole(self) -> tuple[int, int]:
        """The least (height, width) that a whole picture is resized to, before any of it is cut.

        For `read_image(..., at_least=preprocess.whole)`.
        """
        crop = self.crop if self.resize == "crop" else 1
        return math.ceil(self.size[0] / crop), math.ceil(self.size[1] / crop)

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
        if self.resize == "squash":
            return resize(frame, self.size, self.interpolation)
        if self.resize == "crop":
            return self._centre(frame)
        height, width = frame.shape[:2]
        scale = min(self.size[0] / height, self.size[1] / width)
        size = (
            min(max(round(height * scale), 1), self.size[0]),
            min(max(round(width * scale), 1), self.size[1]),
        )
        inner = resize(frame, size, self.interpolation)
        canvas: Frame = np.full((*self.size, 3), self.pad, np.uint8)
        top, left = ((b - a) // 2 for a, b in zip(inner.shape[:2], self.size, strict=True))
        canvas[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
        return canvas

    def _centre(self, frame: Frame) -> Frame:
        """Cut the centre; sides and offsets are rounded as torchvision's Resize and CenterCrop."""
        scale = max(wanted / side for wanted, side in zip(self.size, frame.shape, strict=False))
        scale /= self.crop
        # A hair is added because 480 * (224 / 480) may come out below 224.
        whole = [
            max(int(side * scale + 1e-6), wanted)
            for side, wanted in zip(frame.shape, self.size, strict=False)
        ]
        starts = [round((side - wanted) / 2) for side, wanted in zip(whole, self.size, strict=True)]
        rows, columns = (slice(a, a + n) for a, n in zip(starts, self.size, strict=True))
        size = (whole[0], whole[1])
        return resize(frame, size, self.interpolation, window=(rows, columns))

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


def resize(
    frame: Frame,
    size: tuple[int, int],
    interpolation: Interpolation = "linear",
    *,
    window: tuple[slice, slice] | None = None,
) -> Frame:
    """Resample a frame (H, W, 3) uint8 to (*size, 3) uint8 with an antialiased filter.

    The filter is Pillow's (a triangle or Keys' cubic, widened by the scale when shrinking), which
    is what timm and torchvision train with; OpenCV's own linear resize does not widen it. Two
    things make it cheap: large pictures are halved first, and the banded weight matrices are
    applied as small dense products, which BLAS does at full speed.

    Args:
        frame: What to resample.
        size: (height, width) to resample to.
        interpolation: The filter.
        window: The rows and columns of the result to give, all by default. The others are never
            computed: the middle of a strip 1 pixel high would cost gigabytes otherwise.
    """
    rows, columns = window or (slice(0, size[0]), slice(0, size[1]))
    if frame.shape[:2] == size:
        return frame[rows, columns]
    frame, (height, width) = _halve(frame, size)
    down = _weights(frame.shape[0], height, size[0], rows.start, rows.stop, interpolation)
    across = _weights(frame.shape[1], width, size[1], columns.start, columns.stop, interpolation)
    part = np.ascontiguousarray(frame[down.source, across.source])
    if interpolation == "cubic":
        # It overshoots, and Pillow cuts that off after its first pass: along the width, but for
        # some shapes from its version 13 on (python-pillow/Pillow#9549).
        turned = cast("Frame", cv2.transpose(part))
        return _resample_both(turned, across, down, overshoots=True).astype(np.uint8)
    out = _resample_both(part, down, across, overshoots=False).astype(np.uint8)
    return cast("Frame", cv2.transpose(out))


def _resample_both(
    picture: Frame, first: _Weights, second: _Weights, *, overshoots: bool
) -> Matrix:
    """Resample (A, B, 3) along its first axis, then its second; (second, first, 3), whole numbers.

    The result is transposed: in that way both passes run along the rows of memory. It stands in
    the thread's scratch memory, so copy it.
    """
    half = _scratch.take("half", (first.count, *picture.shape[1:]))
    _resample_rows(picture, first, out=half)
    if overshoots:
        np.rint(np.clip(half, 0, 255, out=half), out=half)
    turned = _scratch.take("turned", (half.shape[1], half.shape[0], 3))
    cv2.transpose(half, turned)
    out = _scratch.take("out", (second.count, first.count, 3))
    _resample_rows(turned, second, out=out)
    if overshoots:
        np.clip(out, 0, 255, out=out)
    return np.rint(out, out=out)


class _Scratch(threading.local):
    """Memory that a thread keeps: taking fresh pages each time costs more than the filter."""

    LARGEST = 1 << 22  # floats

    def __init__(self) -> None:
        self.kept: dict[str, Matrix] = {}

    def take(self, name: str, shape: tuple[int, ...]) -> Matrix:
        """Give an array that holds anything, valid until `name` is taken again."""
        count = math.prod(shape)
        if count > self.LARGEST:
            return np.empty(shape, np.float32)
        if name not in self.kept or self.kept[name].size < count:
            self.kept[name] = np.empty(count, np.float32)
        return self.kept[name][:count].reshape(shape)


_scratch = _Scratch()


def _halve(frame: Frame, size: tuple[int, int]) -> tuple[Frame, tuple[float, float]]:
    """Halve the sides by area while they are large enough for it not to be seen.

    Returns the frame and its sides in its new pixels. These are fractions where a side was odd:
    its last line is left out, because OpenCV is five times slower at halving an odd side.
    """
    height, width = map(float, frame.shape[:2])
    while True:
        shares = height / size[0], width / size[1]
        # It is also slow at halving one side alone, so only a strip is worth that.
        enough = _HALVE_FROM if min(shares) >= _HALVE_FROM else 2 * _HALVE_FROM
        y, x = (2 if share >= enough else 1 for share in shares)
        if y == x == 1:
            return frame, (height, width)
        height, width = height / y, width / x
        rows, columns = frame.shape[0] // y, frame.shape[1] // x
        even = frame[: rows * y, : columns * x]
        halved = cv2.resize(even, (columns, rows), interpolation=cv2.INTER_AREA)
        frame = cast("Frame", halved)


@dataclass(frozen=True, eq=False)
class _Weights:
    """How to resample one axis: `blocks` are (output points, points of `source`, weights)."""

    source: slice
    count: int
    blocks: tuple[tuple[slice, slice, Matrix], ...]


def _resample_rows(picture: Frame | Matrix, weights: _Weights, *, out: Matrix) -> None:
    """Resample (H, W, 3) along its first axis into `out`, (count, W, 3)."""
    flat_in, flat_out = picture.reshape(len(picture), -1), out.reshape(weights.count, -1)
    for points, taps, block in weights.blocks:
        # Converted in pieces, which stay in the cache.
        np.matmul(block, flat_in[taps].astype(np.float32, copy=False), out=flat_out[points])


@lru_cache(maxsize=256)
def _weights(
    count: int, length: float, target: int, start: int, stop: int, interpolation: Interpolation
) -> _Weights:
    """Give the weights for the points `start` to `stop` of an axis resampled to `target` points.

    Follows Pillow's `precompute_coeffs` (src/libImaging/Resample.c): the output point i looks at
    the input around (i + 0.5) * scale, through a kernel widened by max(scale, 1). The input has
    `count` points; `length` says how many it had if it had its last fraction too.
    """
    scale = length / target
    stretch = max(scale, 1.0)
    support = stretch * (1.0 if interpolation == "linear" else 2.0)
    centre = (np.arange(start, stop) + 0.5) * scale
    low = np.maximum((centre - support + 0.5).astype(int), 0)
    high = np.minimum((centre + support + 0.5).astype(int), count)
    point = low[:, None] + np.arange((high - low).max())
    taps = _kernel((point + 0.5 - centre[:, None]) / stretch, interpolation)
    taps *= point < high[:, None]
    taps /= taps.sum(axis=1, keepdims=True)
    blocks = []
    for first in range(0, stop - start, _BLOCK):
        last = min(first + _BLOCK, stop - start)
        used = slice(int(low[first]), int(high[last - 1]))
        block = np.zeros((last - first, used.stop - used.start), np.float32)
        for row, i in zip(block, range(first, last), strict=True):
            row[low[i] - used.start : high[i] - used.start] = taps[i, : high[i] - low[i]]
        inside = slice(used.start - int(low[0]), used.stop - int(low[0]))
        blocks.append((slice(first, last), inside, block))
    return _Weights(slice(int(low[0]), int(high[-1])), stop - start, tuple(blocks))


def _kernel(x: NDArray[np.float64], interpolation: Interpolation) -> NDArray[np.float64]:
    """Evaluate the triangle, or Keys' cubic convolution kernel (1981) with a = -0.5."""
    x = np.abs(x)
    if interpolation == "linear":
        return np.clip(1 - x, 0, None)
    a = -0.5
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))

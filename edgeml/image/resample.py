"""Resize images with Pillow's antialiased filters, in a fraction of the time.

There are three paths. Images four times too large are first halved by area. Then a linear filter on
a large image is a short blur and OpenCV's linear samples; everything else is the filter itself, as
small dense products along the band of its weight matrix.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeml.image.filters import Matrix, Products, Rows, Weights, weights_of
from edgeml.image.modes import Interpolation

if TYPE_CHECKING:
    from edgeml.image.frame import Frame

Plane = NDArray[np.uint8]
Window = tuple[slice, slice]
"""Rows and columns."""

# Samples of an image that are resampled at once, and the fewest points that are worth a part.
_IN_CACHE = 1 << 19
_FEWEST_POINTS = 16

# OpenBLAS computes a product of fewer multiplications in the calling thread
# (interface/gemm.c: SMP_THRESHOLD_MIN * GEMM_MULTITHREAD_THRESHOLD). Waking others costs more.
_ALONE = 1 << 18

# An image at least this many times larger than needed is first halved. The filter then always has
# a factor of two left to work on, which keeps 43 dB against Pillow even for images as sharp as they
# can be. Halving from factors of 2 on would be faster, reach 34 dB, and move a score by 0.4.
_HALVE_FROM = 4

# Taps of a blur. With more taps it takes longer than the products, as it does on an image of fewer
# samples, where the products find their data in the processor's caches.
_TAPS = (3, 5)
_LARGE = 1 << 19


def resize(
    frame: Frame,
    size: tuple[int, int],
    interpolation: Interpolation = "linear",
    *,
    antialias: bool = True,
    window: Window | None = None,
) -> Frame:
    """Resample a frame (H, W, 3) uint8 to (*size, 3) uint8 with an antialiased filter.

    The filter is Pillow's (a triangle, Keys' cubic or Lanczos', widened by the scale when
    shrinking), which is what timm and torchvision train with; OpenCV's own linear resize does not
    widen it. Large images are halved first. Then the banded weight matrices are applied as small
    dense products, which BLAS computes at full speed; or, where it is close enough, a short blur
    and a sample between two pixels replace a triangle.

    Args:
        frame: What to resample.
        size: (height, width) to resample to.
        interpolation: The filter.
        antialias: Whether it widens when shrinking; `nearest` never does.
        window: The rows and columns of the result to return, all by default. The others are not
            computed if they are many: the middle of a strip 1 pixel high would cost gigabytes.
    """
    result = _resample(frame, size, interpolation, antialias, window or full_window(size))
    return result if isinstance(result, np.ndarray) else cast("Frame", cv2.merge(result))


def resize_planes(
    frame: Frame,
    size: tuple[int, int],
    interpolation: Interpolation,
    antialias: bool,
    window: Window,
) -> Sequence[Plane]:
    """Resample as `resize` does; return the three channels (rows, columns) uint8."""
    result = _resample(frame, size, interpolation, antialias, window)
    return cast("Sequence[Plane]", cv2.split(result)) if isinstance(result, np.ndarray) else result


def full_window(size: tuple[int, int]) -> Window:
    """Return the window that covers all rows and columns."""
    return slice(0, size[0]), slice(0, size[1])


def _resample(
    frame: Frame,
    size: tuple[int, int],
    interpolation: Interpolation,
    antialias: bool,
    window: Window,
) -> Frame | list[Plane]:
    """Resample as `resize` does; return a frame or its channels, whichever needs no copy."""
    sides = frame.shape[:2]
    if sides == size:
        return frame[window]
    plain = interpolation == "nearest" or not antialias
    lengths: tuple[float, float] = sides
    if not plain:
        frame, lengths = _halve(frame, size)
    rows, columns = window
    wanted = (rows.stop - rows.start) * (columns.stop - columns.start)
    is_full = size[0] * size[1] <= 2 * wanted
    if interpolation == "linear" and antialias and is_full and frame.size >= _LARGE:
        down, across = (
            _blur(length / side, length / target, target)
            for side, length, target in zip(sides, lengths, size, strict=True)
        )
        if down and across:
            return _blur_and_sample(frame, size, lengths, down, across)[window]
    return _multiply_out(frame, size, lengths, interpolation, plain, window)


class _Blur(NamedTuple):
    """A Gaussian kernel."""

    taps: int
    sigma: float


@lru_cache(maxsize=256)
def _blur(halved: float, scale: float, target: int) -> _Blur | None:
    """Return the blur that makes linear sampling of an axis as wide as the widened triangle.

    Variances of convolved kernels add up, so the blur has the variance that linear sampling lacks.
    The frequency responses then agree up to the second order, where photos have most of their
    energy: 43 dB or more. None if the axis is not at least halved, or if it needs too many taps.
    `halved` is the factor of the halvings so far (1, 1/2, 1/4 ...); the axis is still `scale`
    times as long as `target`.
    """
    if scale < 2:
        return None
    full = scale / halved
    centres = (np.arange(target) + 0.5) * full - 0.5
    away = np.arange(-math.ceil(full), math.ceil(full) + 2) - (centres % 1)[:, None]
    triangle = np.clip(1 - np.abs(away) / full, 0, None)
    wanted = halved**2 * float(((triangle * away**2).sum(axis=1) / triangle.sum(axis=1)).mean())
    # A pixel of the halved axis is the mean of several of the full one: a variance of
    # (1 - h^2) / 12. A sample at a fraction t between two pixels has t (1 - t).
    t = ((np.arange(target) + 0.5) * scale - 0.5) % 1
    missing = wanted - (1 - halved**2) / 12 - float((t * (1 - t)).mean())
    # The variance of n equal weights is (n^2 - 1) / 12; the Gaussian needs fewer than that.
    taps = next((n for n in _TAPS if missing <= 0.95 * (n**2 - 1) / 12), None)
    if taps is None:
        return None
    sigmas = np.linspace(0.3, 6, 2000)
    squares = np.arange(-(taps // 2), taps // 2 + 1) ** 2
    weights = np.exp(-squares / (2 * sigmas[:, None] ** 2))
    variances = (weights * squares).sum(axis=1) / weights.sum(axis=1)
    return _Blur(taps, float(np.interp(missing, variances, sigmas)))


def _blur_and_sample(
    frame: Frame,
    size: tuple[int, int],
    lengths: tuple[float, float],
    down: _Blur,
    across: _Blur,
) -> Frame:
    """Shrink a frame; `lengths` are its sides with the fractions that `_halve` dropped."""
    taps, edge = (across.taps, down.taps), cv2.BORDER_REPLICATE
    blurred = cv2.GaussianBlur(frame, taps, across.sigma, None, down.sigma, borderType=edge)
    # OpenCV accepts scales only if it rounds the size itself. It rounds to the right one: `_halve`
    # dropped less than a pixel, which is less than half a pixel of the result.
    y, x = size[0] / lengths[0], size[1] / lengths[1]
    return cast("Frame", cv2.resize(blurred, None, fx=x, fy=y, interpolation=cv2.INTER_LINEAR))


def _multiply_out(
    frame: Frame,
    size: tuple[int, int],
    lengths: tuple[float, float],
    interpolation: Interpolation,
    plain: bool,
    window: Window,
) -> list[Plane]:
    """Apply a filter as products of matrices; a `plain` one does not widen when shrinking.

    `lengths` are the frame's sides with the fractions that `_halve` dropped.
    """
    height, width = lengths
    rows, columns = window
    planes = np.empty((3, rows.stop - rows.start, columns.stop - columns.start), np.uint8)
    # These filters overshoot, and Pillow clips after its first pass: along the width, except for
    # some shapes from version 13 on (python-pillow/Pillow#9549).
    overshoots = interpolation in ("cubic", "lanczos") and not plain
    for part in _parts(rows if overshoots else columns, frame.size):
        down, across = (part, columns) if overshoots else (rows, part)
        y = weights_of(frame.shape[0], height, size[0], down.start, down.stop, interpolation, plain)
        x = weights_of(
            frame.shape[1], width, size[1], across.start, across.stop, interpolation, plain
        )
        part_of_frame = frame[y.source, x.source]
        if overshoots:
            turned = cast("Frame", cv2.transpose(part_of_frame))
            first = part.start - rows.start
            planes[:, first : first + y.count] = _resample_both(turned, x, y, overshoots=True)
            continue
        resampled = _resample_both(np.ascontiguousarray(part_of_frame), y, x, overshoots=False)
        first = part.start - columns.start
        for source, target in zip(resampled, planes, strict=True):
            cv2.transpose(source, target[:, first : first + x.count])
    return list(planes)


def _parts(points: slice, samples: int) -> Iterator[slice]:
    """Divide the points of an axis into parts whose data stay in the processor's caches."""
    count = points.stop - points.start
    parts = min(-(-samples // _IN_CACHE), -(-count // _FEWEST_POINTS))
    size = -(-count // parts)
    for start in range(points.start, points.stop, size):
        yield slice(start, min(start + size, points.stop))


def _resample_both(
    part: Frame, first: Weights, second: Weights, *, overshoots: bool
) -> NDArray[np.uint8]:
    """Resample (A, B, 3) uint8 along its first axis, then its second; (3, second, first) uint8.

    Both passes run along the rows of memory, so the image is transposed between them. Viewed as a
    matrix (A, 3 B), it comes out with the rows of a channel at every third place.
    """
    samples = part.reshape(len(part), -1)
    plan = scratch.plan(first, second, samples.shape[1])
    for columns, floats, products in plan.strips:
        cv2.accumulateWeighted(samples[:, columns], floats, 1.0)  # OpenCV's fastest conversion
        for weights, block, result in products:
            np.matmul(weights, block, out=result)
    if overshoots:
        np.rint(np.clip(plan.half, 0, 255, out=plan.half), out=plan.half)
    cv2.transpose(plan.half, plan.turned)
    for weights, block, result in plan.products:
        np.matmul(weights, block, out=result)
    np.clip(plan.out, 0, 255, out=plan.out)
    rounded = cv2.convertScaleAbs(plan.out.reshape(-1, first.count))  # none is negative
    return cast("NDArray[np.uint8]", rounded.reshape(plan.out.shape))


@dataclass(frozen=True, eq=False)
class _Plan:
    """The memory of `_resample_both` for images of one size, and the products of both passes.

    Each strip has columns of the image, (A, columns) of them in floats, and products into `half`
    (first, 3 B); `turned` is its transpose, `out` is (3, second, first).
    """

    strips: list[tuple[slice, Matrix, Products]]
    half: Matrix
    turned: Matrix
    products: Products
    out: Matrix


class _Scratch(threading.local):
    """Memory that a thread reuses: fresh pages for each image cost more than the filter."""

    LARGEST = 1 << 22  # floats
    MAX_PLANS = 64

    def __init__(self) -> None:
        self.arrays: dict[str, Matrix] = {}
        self.plans: dict[tuple[Weights, Weights, int], _Plan] = {}

    def take(self, name: str, shape: tuple[int, ...]) -> Matrix:
        """Return an array of arbitrary finite numbers, valid until `name` is taken again."""
        count = math.prod(shape)
        if count > self.LARGEST:
            return np.zeros(shape, np.float32)
        if name not in self.arrays or self.arrays[name].size < count:
            self.plans.clear()  # they refer to the smaller array
            self.arrays[name] = np.zeros(count, np.float32)
        return self.arrays[name][:count].reshape(shape)

    def plan(self, first: Weights, second: Weights, width: int) -> _Plan:
        """Return the plan of `_resample_both` for an image of `width` samples."""
        key = (first, second, width)
        if key in self.plans:
            return self.plans[key]
        plan = self._new_plan(first, second, width)
        if plan.half.size <= self.LARGEST:
            if len(self.plans) >= self.MAX_PLANS:
                self.plans.clear()
            self.plans[key] = plan
        return plan

    def _new_plan(self, first: Weights, second: Weights, width: int) -> _Plan:
        half = self.take("half", (first.count, width))
        turned = self.take("turned", (width, first.count))
        out = self.take("out", (3, second.count, first.count))
        taken = first.source.stop - first.source.start
        widest = max(1, min(_IN_CACHE // taken, _ALONE // first.largest))
        self.take("floats", (taken, min(widest, width)))
        strips = []
        for start in range(0, width, widest):
            length = min(widest, width - start)
            floats = self.take("floats", (taken, length))
            source = Rows(floats, row=floats.strides[0], length=length)
            target = Rows(half, row=half.strides[0], length=length, at=start * half.itemsize)
            strips.append((slice(start, start + length), floats, first.products(source, target)))
        row, plane = out.strides[1], out.strides[0]
        products = second.products(
            Rows(turned, planes=3, plane=row, row=3 * row, length=first.count),
            Rows(out, planes=3, plane=plane, row=row, length=first.count),
        )
        return _Plan(strips, half, turned, products, out)


scratch = _Scratch()


def _halve(frame: Frame, size: tuple[int, int]) -> tuple[Frame, tuple[float, float]]:
    """Halve the sides by area while they are so large that the result shows no difference.

    Returns the frame and its sides in new pixels. These are fractions where a side was odd: its
    last line is dropped, because OpenCV is five times slower at halving an odd side.
    """
    height, width = map(float, frame.shape[:2])
    while True:
        shares = height / size[0], width / size[1]
        # It is also slow at halving one side alone, which only pays for a strip.
        enough = _HALVE_FROM if min(shares) >= _HALVE_FROM else 2 * _HALVE_FROM
        y, x = (2 if share >= enough else 1 for share in shares)
        if y == x == 1:
            return frame, (height, width)
        height, width = height / y, width / x
        rows, columns = frame.shape[0] // y, frame.shape[1] // x
        even = frame[: rows * y, : columns * x]
        halved = cv2.resize(even, (columns, rows), interpolation=cv2.INTER_AREA)
        frame = cast("Frame", halved)

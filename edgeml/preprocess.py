"""From frames to the network's input: the only code in edgeml that does it, training included."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, ClassVar, Literal, NamedTuple, cast, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeml.errors import InputError, SpecError

Frame = NDArray[np.uint8]
"""(H, W, 3) uint8, BGR: what OpenCV reads."""

Batch = NDArray[np.float32]
"""(N, 3, H, W) float32, RGB unless the spec says otherwise, normalised."""

Resize = Literal["squash", "crop", "squash_crop", "letterbox"]
Interpolation = Literal["linear", "cubic", "lanczos", "nearest"]
Matrix = NDArray[np.float32]

Window = tuple[slice, slice]
"""Rows and columns."""

# Points of output computed together. Small blocks waste few multiplications outside the filter's
# band, large ones need fewer calls: the first size is taken that needs few enough of them.
_BLOCKS = (2, 4, 8)
_MOST_RUNS = 16

# Samples of a picture that are resampled at once, and the least points that are worth a part.
_IN_CACHE = 1 << 20
_FEWEST_POINTS = 16

# OpenBLAS does a product of fewer multiplications in the thread that asks for it
# (interface/gemm.c: SMP_THRESHOLD_MIN * GEMM_MULTITHREAD_THRESHOLD). Waking others costs more.
_ALONE = 1 << 18

# A picture at least this many times larger than wanted is first halved. The exact filter then
# always has a factor of two left to work on, which keeps 50 dB against PIL; halving down to a
# factor of 1.5 would keep 46.
_HALVE_FROM = 4

_LARGER_THAN_ANY = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How a frame becomes an input. Part of the `ModelSpec`; equal values preprocess equally.

    Attributes:
        size: (height, width) of the network's input, in pixels.
        resize: `squash` fits the whole frame into `size` and forgets its aspect ratio, so that no
            label is cut away; `crop` keeps the ratio and cuts the centre; `squash_crop` forgets
            it and cuts the centre; `letterbox` keeps the ratio and pads with `pad`.
        interpolation: The filter, antialiased as in Pillow: `linear` is the triangle, `cubic`
            Keys' kernel with a = -0.5, `lanczos` has three lobes, `nearest` takes one pixel.
        antialias: False looks at as few pixels when shrinking as when enlarging, as OpenCV and
            OpenVINO do (`cubic` is theirs then, with a = -0.75), and `crop` cuts first. For
            networks that were made so.
        crop: For the two that cut, the share of the resized picture's sides that is kept, in
            (0, 1].
        pad: For `letterbox`, the grey level of the border, 0 to 255.
        mean, std: Per channel, in the order of `channels`, on a scale of 0 to 1.
        channels: The colour order that the network wants.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    size: tuple[int, int]
    resize: Resize = "squash"
    interpolation: Interpolation = "linear"
    antialias: bool = True
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

        For `read_image(..., at_least=preprocess.whole)`. A filter that skips pixels has to skip
        those of the full picture: it is given a size that no picture has.
        """
        if self.interpolation == "nearest" or not self.antialias:
            return _LARGER_THAN_ANY, _LARGER_THAN_ANY
        crop = self.crop if self.resize in ("crop", "squash_crop") else 1
        return math.ceil(self.size[0] / crop), math.ceil(self.size[1] / crop)

    def __call__(self, frames: Sequence[Frame]) -> Batch:
        """Resize and normalise frames to an array (N, 3, *size) float32.

        Raises:
            InputError: A frame is not (H, W, 3) uint8.
        """
        batch = np.empty((len(frames), 3, *self.size), np.float32)
        for frame, planes in zip(frames, batch, strict=True):
            self._normalize_into(planes, self._levels(frame))
        return batch

    def fit(self, frame: Frame) -> Frame:
        """Bring one frame to `size`, still (H, W, 3) uint8 BGR.

        Raises:
            InputError: The frame is not (H, W, 3) uint8.
        """
        check_frame(frame)
        frame, place = self._placed(frame)
        inner = resize(
            frame,
            place.whole,
            self.interpolation,
            antialias=self.antialias,
            window=place.window,
        )
        if inner.shape[:2] == self.size:
            return inner
        canvas: Frame = np.full((*self.size, 3), self.pad, np.uint8)
        canvas[place.inner] = inner
        return canvas

    def normalize(self, frames: Sequence[Frame]) -> Batch:
        """Normalise frames that already have `size` to an array (N, 3, *size) float32."""
        batch = np.empty((len(frames), 3, *self.size), np.float32)
        for frame, planes in zip(frames, batch, strict=True):
            self._normalize_into(planes, self._ordered(cv2.split(frame)))
        return batch

    def _levels(self, frame: Frame) -> Sequence[NDArray[Any]]:
        """Give what `fit` gives as planes in the order of `channels`, without making bytes of it.

        They may stand in the thread's scratch memory.
        """
        check_frame(frame)
        frame, place = self._placed(frame)
        planes: Sequence[NDArray[Any]]
        if frame.shape[:2] == place.whole:
            planes = cv2.split(frame[place.window])
        else:
            plain = self.interpolation == "nearest" or not self.antialias
            planes = list(_resample(frame, place.whole, self.interpolation, plain, place.window))
        if planes[0].shape != self.size:
            canvas = _scratch.take("canvas", (3, *self.size))
            canvas[:] = self.pad
            for target, plane in zip(canvas, planes, strict=True):
                target[place.inner] = plane
            planes = list(canvas)
        return self._ordered(planes)

    def _normalize_into(self, planes: Matrix, levels: Sequence[NDArray[Any]]) -> None:
        """Write (level / 255 - mean) / std; both are in the order of `channels`."""
        for plane, level, mean, std in zip(planes, levels, self.mean, self.std, strict=True):
            np.multiply(level, np.float32(1 / (255 * std)), out=plane)
            plane -= np.float32(mean / std)

    def _ordered(self, bgr: Sequence[NDArray[Any]]) -> Sequence[NDArray[Any]]:
        return bgr[::-1] if self.channels == "rgb" else bgr

    def _placed(self, frame: Frame) -> tuple[Frame, _Place]:
        """Give what is resized, and how.

        Without antialiasing `crop` cuts first, as model_api does: in the other order a filter that
        does not widen would look at other pixels.
        """
        if self.resize != "crop" or self.antialias:
            return frame, self._place(*frame.shape[:2])
        scale = max(wanted / side for wanted, side in zip(self.size, frame.shape, strict=False))
        kept = [
            min(max(int(wanted / scale * self.crop + 1e-6), 1), side)
            for wanted, side in zip(self.size, frame.shape, strict=False)
        ]
        top, left = ((side - n) // 2 for side, n in zip(frame.shape, kept, strict=False))
        part = frame[top : top + kept[0], left : left + kept[1]]
        return part, _Place(self.size, _all_of(self.size), _all_of(self.size))

    def _place(self, height: int, width: int) -> _Place:
        """Say what a picture is resized to, and what of it goes where."""
        if self.resize == "squash":
            return _Place(self.size, _all_of(self.size), _all_of(self.size))
        if self.resize != "letterbox":
            return self._centre(height, width)
        scale = min(self.size[0] / height, self.size[1] / width)
        size = (
            min(max(round(height * scale), 1), self.size[0]),
            min(max(round(width * scale), 1), self.size[1]),
        )
        top, left = ((b - a) // 2 for a, b in zip(size, self.size, strict=True))
        inner = slice(top, top + size[0]), slice(left, left + size[1])
        return _Place(size, _all_of(size), inner)

    def _centre(self, height: int, width: int) -> _Place:
        """Cut the centre; sides and offsets are rounded as torchvision's Resize and CenterCrop."""
        down, across = self.size[0] / height, self.size[1] / width
        if self.resize == "crop":
            down = across = max(down, across)
        # A hair is added because 480 * (224 / 480) may come out below 224.
        whole = (
            max(int(height * down / self.crop + 1e-6), self.size[0]),
            max(int(width * across / self.crop + 1e-6), self.size[1]),
        )
        top, left = (round((a - b) / 2) for a, b in zip(whole, self.size, strict=True))
        window = slice(top, top + self.size[0]), slice(left, left + self.size[1])
        return _Place(whole, window, _all_of(self.size))


class _Place(NamedTuple):
    """How a picture is fitted: its size once resized, the part of that which is kept, and where."""

    whole: tuple[int, int]
    window: Window
    inner: Window


def check_frame(frame: Frame) -> None:
    """Refuse what is not a frame, in words.

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
        raise InputError(
            f"A frame is (H, W, 3) uint8 BGR, not {frame.shape} {frame.dtype}{_mended(frame)}"
        )


def _mended(frame: NDArray[Any]) -> str:
    """Give the line that makes a frame of what is one but for its shape or type."""
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


def resize(
    frame: Frame,
    size: tuple[int, int],
    interpolation: Interpolation = "linear",
    *,
    antialias: bool = True,
    window: Window | None = None,
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
        antialias: Whether it widens when shrinking; `nearest` never does.
        window: The rows and columns of the result to give, all by default. The others are never
            computed: the middle of a strip 1 pixel high would cost gigabytes otherwise.
    """
    rows, columns = window or _all_of(size)
    if frame.shape[:2] == size:
        return frame[rows, columns]
    plain = interpolation == "nearest" or not antialias
    planes = _resample(frame, size, interpolation, plain, (rows, columns))
    return cast("Frame", cv2.merge(list(planes.astype(np.uint8))))


def _all_of(size: tuple[int, int]) -> Window:
    return slice(0, size[0]), slice(0, size[1])


def _resample(
    frame: Frame, size: tuple[int, int], interpolation: Interpolation, plain: bool, window: Window
) -> Matrix:
    """Do what `resize` says; give planes (3, rows, columns) of whole numbers from 0 to 255.

    They stand in the thread's scratch memory, so copy them.

    Args:
        frame: What to resample.
        size: As in `resize`.
        interpolation: As in `resize`.
        plain: The filter looks at as few pixels when shrinking as when enlarging.
        window: As in `resize`.
    """
    height, width = map(float, frame.shape[:2])
    if not plain:
        frame, (height, width) = _halve(frame, size)
    rows, columns = window
    planes = _scratch.take("planes", (3, rows.stop - rows.start, columns.stop - columns.start))
    # It overshoots, and Pillow cuts that off after its first pass: along the width, but for
    # some shapes from its version 13 on (python-pillow/Pillow#9549).
    overshoots = interpolation in ("cubic", "lanczos") and not plain
    for part in _parts(rows if overshoots else columns, frame.size):
        down, across = (part, columns) if overshoots else (rows, part)
        y = _weights(frame.shape[0], height, size[0], down.start, down.stop, interpolation, plain)
        x = _weights(
            frame.shape[1], width, size[1], across.start, across.stop, interpolation, plain
        )
        picture = frame[y.source, x.source]
        if overshoots:
            turned = cast("Frame", cv2.transpose(picture))
            first = part.start - rows.start
            planes[:, first : first + y.count] = _resample_both(turned, x, y, overshoots=True)
            continue
        found = _resample_both(np.ascontiguousarray(picture), y, x, overshoots=False)
        if plain:  # others cut off what the cubic overshoots at the end only
            np.clip(found, 0, 255, out=found)
        first = part.start - columns.start
        for source, target in zip(found, planes, strict=True):
            cv2.transpose(source, target[:, first : first + x.count])
    return planes


def _parts(points: slice, samples: int) -> Iterator[slice]:
    """Cut the points of one axis so that what a part needs stays in the processor's caches."""
    count = points.stop - points.start
    parts = min(-(-samples // _IN_CACHE), -(-count // _FEWEST_POINTS))
    size = -(-count // parts)
    for start in range(points.start, points.stop, size):
        yield slice(start, min(start + size, points.stop))


def _resample_both(
    picture: Frame, first: _Weights, second: _Weights, *, overshoots: bool
) -> Matrix:
    """Resample (A, B, 3) along its first axis, then its second; (3, second, first), whole numbers.

    Both passes run along the rows of memory, so the picture is transposed between them. Taken
    as a matrix (A, 3 B), it comes out with the rows of a channel at every third place.
    """
    samples = picture.reshape(len(picture), -1)
    plan = _scratch.plan(first, second, samples.shape[1])
    for columns, floats, products in plan.strips:
        cv2.accumulateWeighted(samples[:, columns], floats, 1.0)  # OpenCV's fastest conversion
        _multiply(products)
    if overshoots:
        np.rint(np.clip(plan.half, 0, 255, out=plan.half), out=plan.half)
    cv2.transpose(plan.half, plan.turned)
    _multiply(plan.products)
    if overshoots:
        np.clip(plan.out, 0, 255, out=plan.out)
    return np.rint(plan.out, out=plan.out)


Products = list[tuple[Matrix, Matrix, Matrix]]
"""Blocks of weights, what they are to be multiplied by, and where the result goes."""


def _multiply(products: Products) -> None:
    for weights, picture, out in products:
        np.matmul(weights, picture, out=out)


@dataclass(frozen=True, eq=False)
class _Plan:
    """The memory of `_resample_both` for pictures of one size, and the products to be done in it.

    Attributes:
        strips: Columns of the picture, (A, columns) for them in floats, and the products of the
            first pass.
        half: (first, 3 B), what the first pass gives.
        turned: (3 B, first), that transposed.
        products: Those of the second pass.
        out: (3, second, first), what it gives.
    """

    strips: list[tuple[slice, Matrix, Products]]
    half: Matrix
    turned: Matrix
    products: Products
    out: Matrix


class _Scratch(threading.local):
    """Memory that a thread keeps: taking fresh pages each time costs more than the filter."""

    LARGEST = 1 << 22  # floats
    MOST_PLANS = 64

    def __init__(self) -> None:
        self.kept: dict[str, Matrix] = {}
        self.plans: dict[tuple[_Weights, _Weights, int], _Plan] = {}

    def take(self, name: str, shape: tuple[int, ...]) -> Matrix:
        """Give an array that holds any finite numbers, valid until `name` is taken again."""
        count = math.prod(shape)
        if count > self.LARGEST:
            return np.zeros(shape, np.float32)
        if name not in self.kept or self.kept[name].size < count:
            self.plans.clear()  # they would keep the smaller one
            self.kept[name] = np.zeros(count, np.float32)
        return self.kept[name][:count].reshape(shape)

    def plan(self, first: _Weights, second: _Weights, width: int) -> _Plan:
        """Plan `_resample_both` for a picture of `width` samples, or give the plan that is kept."""
        key = (first, second, width)
        if key in self.plans:
            return self.plans[key]
        made = self._new_plan(first, second, width)
        if made.half.size <= self.LARGEST:
            if len(self.plans) >= self.MOST_PLANS:
                self.plans.clear()
            self.plans[key] = made
        return made

    def _new_plan(self, first: _Weights, second: _Weights, width: int) -> _Plan:
        half = self.take("half", (first.count, width))
        turned = self.take("turned", (width, first.count))
        out = self.take("out", (3, second.count, first.count))
        taken = first.source.stop - first.source.start
        widest = max(1, min(_IN_CACHE // taken, _ALONE // first.largest))
        self.take("floats", (taken, min(widest, width)))
        strips = []
        for start in range(0, width, widest):
            columns = slice(start, min(start + widest, width))
            floats = self.take("floats", (taken, columns.stop - start))
            row, length = half.strides[0], columns.stop - start
            products = first.products(
                _Rows(floats, row=floats.strides[0], length=length),
                _Rows(half, row=row, length=length, at=start * half.itemsize),
            )
            strips.append((columns, floats, products))
        row, plane = out.strides[1], out.strides[0]
        products = second.products(
            _Rows(turned, planes=3, plane=row, row=3 * row, length=first.count),
            _Rows(out, planes=3, plane=plane, row=row, length=first.count),
        )
        return _Plan(strips, half, turned, products, out)


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
class _Run:
    """Blocks of output points at equal distances that have the same weights.

    Attributes:
        count: How many blocks.
        first: The first point and the first tap of the first block.
        step: Points and taps from one block to the next.
        weights: (points, taps) of each block.
    """

    count: int
    first: tuple[int, int]
    step: tuple[int, int]
    weights: Matrix


@dataclass(frozen=True, eq=False)
class _Weights:
    """How to resample one axis: the points of the input that are used, and products of blocks."""

    source: slice
    count: int
    runs: tuple[_Run, ...]

    @property
    def largest(self) -> int:
        """The size of the largest block."""
        return max(run.weights.size for run in self.runs)

    def products(self, picture: _Rows, out: _Rows) -> Products:
        """Say what is to be multiplied to resample the rows of a picture into those of `out`."""
        return [
            (
                run.weights,
                picture.blocks(run.count, run.first[1], run.step[1], run.weights.shape[1]),
                out.blocks(run.count, run.first[0], run.step[0], run.weights.shape[0]),
            )
            for run in self.runs
        ]


@dataclass(frozen=True, eq=False)
class _Rows:
    """Planes of rows of `length` floats in one piece of memory; distances are in bytes."""

    memory: Matrix
    row: int
    length: int
    planes: int = 1
    plane: int = 0
    at: int = 0

    def blocks(self, count: int, first: int, step: int, rows: int) -> Matrix:
        """View blocks of rows that may overlap: (count, planes, rows, length).

        It is what `numpy.lib.stride_tricks.as_strided` does, in a fraction of its time.
        """
        return np.ndarray(
            (count, self.planes, rows, self.length),
            np.float32,
            self.memory,
            self.at + first * self.row,
            (step * self.row, self.plane, self.row, 4),
        )


@lru_cache(maxsize=256)
def _weights(
    count: int,
    length: float,
    target: int,
    start: int,
    stop: int,
    interpolation: Interpolation,
    plain: bool = False,
) -> _Weights:
    """Give the weights for the points `start` to `stop` of an axis resampled to `target` points.

    Follows Pillow's `precompute_coeffs` (src/libImaging/Resample.c): the output point i looks at
    the input around (i + 0.5) * scale, through a kernel widened by max(scale, 1), or by nothing
    if it shall be `plain`. The input has `count` points; `length` says how many it had if it had
    its last fraction too.
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
    choices = (_runs(low, high, taps, size) for size in _BLOCKS)
    runs = next((found for found in choices if len(found) <= _MOST_RUNS), None)
    source = slice(int(point[0, 0]), int(point[0, 0] + high[-1]))
    return _Weights(source, stop - start, runs or _runs(low, high, taps, _BLOCKS[-1]))


def _runs(
    low: NDArray[np.int_], high: NDArray[np.int_], taps: NDArray[np.float64], size: int
) -> tuple[_Run, ...]:
    """Cut points into blocks of `size`, and gather those that differ by their place alone.

    Where the sides of a picture have a simple ratio, as those of cameras, few products are left.
    """
    found: dict[bytes, list[tuple[int, int, Matrix]]] = {}
    for first in range(0, len(low), size):
        last = min(first + size, len(low))
        block = np.zeros((last - first, high[last - 1] - low[first]))
        for row, i in zip(block, range(first, last), strict=True):
            row[low[i] - low[first] : high[i] - low[first]] = taps[i, : high[i] - low[i]]
        # What differs behind the sixth digit does so by the rounding of its place.
        key = np.append(block.round(6), block.shape).tobytes()
        found.setdefault(key, []).append((first, int(low[first]), block.astype(np.float32)))
    runs = []
    for blocks in found.values():
        while blocks:
            count = _equally_far([(first, tap) for first, tap, _ in blocks])
            (first, tap, block), (after, next_tap, _) = blocks[0], blocks[min(1, count - 1)]
            runs.append(_Run(count, (first, tap), (after - first, next_tap - tap), block))
            blocks = blocks[count:]
    return tuple(runs)


def _equally_far(places: Sequence[tuple[int, int]]) -> int:
    """Say how many of the first places lie at equal distances."""
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

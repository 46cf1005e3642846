"""Augmentation for labels that are colours: shapes move, hues do not change.

The result depends only on (seed, epoch, index of the image in the training set): no generator has
a state that a resumed run would have to restore, and threads may share the work. OpenCV does
everything on uint8 frames, with one floating-point step at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeml.image.frame import Frame
from edgeml.image.preprocess import Preprocess
from edgeml.ordered import ordered_map
from edgeml.training.config import Augment
from edgeml.training.randaugment import randaugment

OVERSIZE = 1.15
"""Training frames are larger than the input by this factor, so that zooming in stays sharp."""
T = TypeVar("T")
Draws = NDArray[np.float32]
"""(13,) uniform in [0, 1): all random numbers of one image, except for RandAugment."""
_DRAWS = 13
# Keys of random streams that must differ although seed and epoch are equal.
_ORDER, _IMAGE, _OPERATIONS = 1, 2, 4
_TURN = np.radians(10)
_ZOOM = (0.8, 1.1)  # visible share of the image's side
_ASPECT = 0.1
_SHIFT = 0.05
_BRIGHTNESS = 0.2
_CONTRAST = 0.15
_ERASE_CHANCE = {"colour_safe": 0.25, "strong": 0.5}
_ERASE_AREA = {"colour_safe": (0.02, 0.12), "strong": (0.02, 0.25)}


def order(count: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the indices 0 to `count` - 1 in the random order of one epoch."""
    return np.random.default_rng((_ORDER, seed, epoch)).permutation(count)


def random_draws(index: int, *, seed: int, epoch: int) -> Draws:
    """Return the random numbers (13,) in [0, 1) for the image with this index."""
    return np.random.default_rng((_IMAGE, seed, epoch, index)).random(_DRAWS, np.float32)


def training_batch(
    frames: Sequence[Frame] | Frame,
    indices: Sequence[int] | NDArray[np.int64],
    preprocess: Preprocess,
    preset: Augment,
    *,
    seed: int,
    epoch: int,
) -> NDArray[np.float32]:
    """Augment and normalise images (H, W, 3) uint8 BGR; return (N, 3, *size) float32 channels-last.

    The randomness is derived from the seed, the epoch, which counts from 0, and the images'
    `indices` in the training set. For the preset `none` the images have the input's size.
    """
    if preset == "none":
        return preprocess.normalize(list(frames))
    batch = np.empty((len(frames), *preprocess.size, 3), np.float32)
    for frame, index, image in zip(frames, indices, batch, strict=True):
        if preset == "strong":
            frame = randaugment(
                frame, np.random.default_rng((_OPERATIONS, seed, epoch, int(index)))
            )
        draws = random_draws(int(index), seed=seed, epoch=epoch)
        augment_into(image, frame, draws, preprocess, preset)
    return batch.transpose(0, 3, 1, 2)


def augment_into(
    image: NDArray[np.float32],
    frame: Frame,
    draws: Draws,
    preprocess: Preprocess,
    preset: Augment = "colour_safe",
) -> None:
    """Flip, rotate, zoom, stretch, shift, light and erase in an image; normalise it.

    Brightness scales all channels alike, contrast spreads each around its own mean, and erased
    areas get the image's mean colour: no hue changes, and grey stays grey. The output `image` is
    (*size, 3) float32, the frame (H, W, 3) uint8 BGR. The preset decides how much is erased.
    """
    height, width = preprocess.size
    matrix = _inverse_warp(draws[:6], frame.shape[:2], preprocess.size)
    moved = cv2.warpAffine(
        frame,
        matrix,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    )
    mean = np.array(cv2.mean(moved)[:3], np.float32)
    if draws[8] < _ERASE_CHANCE[preset]:
        rows, columns = _erased(draws[9:], preprocess.size, _ERASE_AREA[preset])
        moved[rows, columns] = np.round(mean)
    contrast = 1 + _CONTRAST * (2 * draws[7] - 1)
    brightness = 1 + _BRIGHTNESS * (2 * draws[6] - 1)
    _light_and_normalize(image, moved, mean, contrast, brightness, preprocess)


def _light_and_normalize(
    image: NDArray[np.float32],
    frame: NDArray[np.uint8] | cv2.typing.MatLike,
    mean: NDArray[np.float32],
    contrast: float,
    brightness: float,
    preprocess: Preprocess,
) -> None:
    """Write ((x - mean) * contrast + mean) * brightness, normalised and in channel order.

    This is one scale and one offset per channel: a matrix product over the colours of a pixel.
    """
    to_input = np.eye(3, dtype=np.float32)
    if preprocess.channels == "rgb":
        to_input = to_input[::-1]
    std = np.array(preprocess.std, np.float32)
    scale = contrast * brightness / (255 * std)
    lifted = to_input @ mean * (1 - contrast) * brightness / (255 * std)
    offset = lifted - np.array(preprocess.mean, np.float32) / std
    cv2.transform(
        frame.astype(np.float32), np.column_stack([to_input * scale[:, None], offset]), image
    )


def _inverse_warp(
    draws: Draws, source: tuple[int, ...], target: tuple[int, int]
) -> NDArray[np.float64]:
    """Return the map (2, 3) from the pixels of the output to those of the source.

    With zoom the output may show any part of the source; without, it shifts a little.
    """
    flip, turn, zoom, aspect, right, down = draws.astype(np.float64)
    angle = _TURN * (2 * turn - 1)
    side = _ZOOM[0] + (_ZOOM[1] - _ZOOM[0]) * zoom
    stretch = np.exp(_ASPECT * (2 * aspect - 1))
    width, height = side * stretch, side / stretch
    if flip < 0.5:
        width = -width
    reach = _SHIFT + max(0.0, 1 - side)
    cos, sin = np.cos(angle), np.sin(angle)
    # In coordinates from -1 to 1 along each side, y downwards.
    warp = np.array(
        [
            [cos * width, -sin * height, (2 * right - 1) * reach],
            [sin * width, cos * height, (2 * down - 1) * reach],
            [0, 0, 1],
        ]
    )
    in_pixels: NDArray[np.float64] = _to_pixels(source) @ warp @ np.linalg.inv(_to_pixels(target))
    return in_pixels[:2]


def _to_pixels(size: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the map from -1 to 1 to the outer edges of the pixels, whose centres are integers."""
    height, width = size
    return np.array([[width / 2, 0, (width - 1) / 2], [0, height / 2, (height - 1) / 2], [0, 0, 1]])


def _erased(draws: Draws, size: tuple[int, int], share: tuple[float, float]) -> tuple[slice, slice]:
    """Return the rows and columns of one rectangle (Zhong et al., 2017)."""
    area, shape, across, along = (float(value) for value in draws)
    half = np.sqrt(share[0] + (share[1] - share[0]) * area) / 2
    stretch = np.exp(shape - 0.5)

    def inside(centre: float, reach: float, count: int) -> slice:
        first, last = (centre - reach) * count - 0.5, (centre + reach) * count - 0.5
        return slice(max(0, int(np.ceil(first))), max(0, int(np.ceil(last))))

    return inside(along, half * stretch, size[0]), inside(across, half / stretch, size[1])


class Prefetcher(Generic[T]):
    """Yield `make(first)` to `make(stop - 1)` in order; threads prepare them ahead of use.

    Attributes:
        waited_s: Seconds that the consumer has waited so far.
    """

    def __init__(self, make: Callable[[int], T], first: int, stop: int, *, workers: int) -> None:
        """Use `workers` threads, which stay at most `workers` + 1 results ahead."""
        self._make, self._indices, self._workers = make, range(first, stop), workers
        self.waited_s = 0.0

    def __iter__(self) -> Iterator[T]:
        workers, started = self._workers, time.perf_counter()
        for batch in ordered_map(
            # One of these is the batch that the consumer is working on.
            self._make, self._indices, workers=workers, ahead=workers + 2, name="edgeml-batch"
        ):  # fmt: skip
            self.waited_s += time.perf_counter() - started
            yield batch
            started = time.perf_counter()

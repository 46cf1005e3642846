"""Augmentation for labels that are colours: shapes move, hues stay.

What becomes of a picture is a function of (seed, epoch, its index in the training set) alone: no
generator has a state that a resumed training would have to restore, and threads may share the work.
All is done by OpenCV on uint8 frames, and once in floating point at the end.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeml.image.frame import Frame
from edgeml.image.preprocess import Preprocess
from edgeml.training.config import Augment
from edgeml.training.randaugment import randaugment

OVERSIZE = 1.15
"""Training frames are this much larger than the input, so that zooming in stays sharp."""

Draws = NDArray[np.float32]
"""(13,) uniform in [0, 1): all the chance that one picture needs, RandAugment apart."""

_DRAWS = 13

# Streams of random numbers that must differ although seed and epoch are equal.
_ORDER, _PICTURE, _OPERATIONS = 1, 2, 4

_TURN = np.radians(10)
_ZOOM = (0.8, 1.1)  # share of the picture's side that is seen
_ASPECT = 0.1
_SHIFT = 0.05
_BRIGHTNESS = 0.2
_CONTRAST = 0.15
_ERASE_CHANCE = {"colour_safe": 0.25, "strong": 0.5}
_ERASE_AREA = {"colour_safe": (0.02, 0.12), "strong": (0.02, 0.25)}


def order(count: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Shuffle the indices 0 to `count` - 1 for one epoch."""
    return np.random.default_rng((_ORDER, seed, epoch)).permutation(count)


def draw(index: int, *, seed: int, epoch: int) -> Draws:
    """Draw the random numbers (13,) in [0, 1) for the picture with this index."""
    return np.random.default_rng((_PICTURE, seed, epoch, index)).random(_DRAWS, np.float32)


def training_batch(
    frames: Sequence[Frame] | Frame,
    indices: Sequence[int] | NDArray[np.int64],
    preprocess: Preprocess,
    preset: Augment,
    *,
    seed: int,
    epoch: int,
) -> NDArray[np.float32]:
    """Augment and normalise pictures for one step.

    Args:
        frames: Whole pictures (H, W, 3) uint8 BGR; for the preset `none` of the input's size.
        indices: Their places in the training set, which decide what becomes of them.
        preprocess: Its size, mean, std and channels are applied.
        preset: `none`, `colour_safe` or `strong`.
        seed: Decides, with the epoch, the rest.
        epoch: From 0.

    Returns:
        (N, 3, *size) float32 in channels-last memory.
    """
    if preset == "none":
        return preprocess.normalize(list(frames))
    pictures = np.empty((len(frames), *preprocess.size, 3), np.float32)
    for frame, index, picture in zip(frames, indices, pictures, strict=True):
        if preset == "strong":
            frame = randaugment(
                frame, np.random.default_rng((_OPERATIONS, seed, epoch, int(index)))
            )
        draws = draw(int(index), seed=seed, epoch=epoch)
        augment_into(picture, frame, draws, preprocess, preset)
    return pictures.transpose(0, 3, 1, 2)


def augment_into(
    picture: NDArray[np.float32],
    frame: Frame,
    draws: Draws,
    preprocess: Preprocess,
    preset: Augment = "colour_safe",
) -> None:
    """Flip, turn, zoom, stretch, shift, light and cover a picture; normalise it.

    Brightness scales all channels alike, contrast spreads each around its own mean, what is
    covered takes the picture's mean colour: no hue changes, and grey stays grey.

    Args:
        picture: (*size, 3) float32, is written.
        frame: A whole picture (H, W, 3) uint8 BGR.
        draws: (13,) in [0, 1).
        preprocess: Its size, mean, std and channels are applied.
        preset: Decides how much is covered.
    """
    height, width = preprocess.size
    matrix = _moves(draws[:6], frame.shape[:2], preprocess.size)
    moved = cv2.warpAffine(
        frame,
        matrix,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    )
    mean = np.array(cv2.mean(moved)[:3], np.float32)
    if draws[8] < _ERASE_CHANCE[preset]:
        rows, columns = _cover(draws[9:], preprocess.size, _ERASE_AREA[preset])
        moved[rows, columns] = np.round(mean)
    contrast = 1 + _CONTRAST * (2 * draws[7] - 1)
    brightness = 1 + _BRIGHTNESS * (2 * draws[6] - 1)
    _light_and_normalize(picture, moved, mean, contrast, brightness, preprocess)


def _light_and_normalize(
    picture: NDArray[np.float32],
    frame: NDArray[np.uint8] | cv2.typing.MatLike,
    mean: NDArray[np.float32],
    contrast: float,
    brightness: float,
    preprocess: Preprocess,
) -> None:
    """Write ((x - mean) * contrast + mean) * brightness, normalised and in the channels' order.

    That is one scale and one offset a channel: a matrix product over the colours of a pixel.
    """
    to_input = np.eye(3, dtype=np.float32)
    if preprocess.channels == "rgb":
        to_input = to_input[::-1]
    std = np.array(preprocess.std, np.float32)
    scale = contrast * brightness / (255 * std)
    lifted = to_input @ mean * (1 - contrast) * brightness / (255 * std)
    offset = lifted - np.array(preprocess.mean, np.float32) / std
    cv2.transform(
        frame.astype(np.float32), np.column_stack([to_input * scale[:, None], offset]), picture
    )


def _moves(draws: Draws, source: tuple[int, ...], target: tuple[int, int]) -> NDArray[np.float64]:
    """Give the map (2, 3) from the pixels of the output to those of the picture.

    A picture that is zoomed into may show any part of itself; any other moves a little.
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
    # In coordinates from -1 to 1 over each side, y downwards.
    moves = np.array(
        [
            [cos * width, -sin * height, (2 * right - 1) * reach],
            [sin * width, cos * height, (2 * down - 1) * reach],
            [0, 0, 1],
        ]
    )
    whole: NDArray[np.float64] = _to_pixels(source) @ moves @ np.linalg.inv(_to_pixels(target))
    return whole[:2]


def _to_pixels(size: tuple[int, ...]) -> NDArray[np.float64]:
    """Map -1 to 1 to the outer edges of the pixels, whose centres are whole numbers."""
    height, width = size
    return np.array([[width / 2, 0, (width - 1) / 2], [0, height / 2, (height - 1) / 2], [0, 0, 1]])


def _cover(draws: Draws, size: tuple[int, int], share: tuple[float, float]) -> tuple[slice, slice]:
    """Give the rows and columns of one rectangle (Zhong et al., 2017)."""
    area, shape, across, along = (float(value) for value in draws)
    half = np.sqrt(share[0] + (share[1] - share[0]) * area) / 2
    stretch = np.exp(shape - 0.5)

    def inside(centre: float, reach: float, count: int) -> slice:
        first, last = (centre - reach) * count - 0.5, (centre + reach) * count - 0.5
        return slice(max(0, int(np.ceil(first))), max(0, int(np.ceil(last))))

    return inside(along, half * stretch, size[0]), inside(across, half / stretch, size[1])

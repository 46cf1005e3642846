"""Augmentation for labels that are colours: shapes move, hues stay.

What becomes of a picture is a function of (seed, epoch, its index in the training set) alone: no
generator has a state that a resumed training would have to restore.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from edgeml.preprocess import Preprocess

OVERSIZE = 1.15
"""Training frames are this much larger than the input, so that zooming in stays sharp."""

Draws = NDArray[np.float32]
"""(N, 13) uniform in [0, 1): all the chance that one batch needs."""

_DRAWS = 13

# Streams of random numbers that must differ although seed and epoch are equal.
_ORDER, _PICTURE = 1, 2

_TURN = np.radians(10)
_ZOOM = (0.8, 1.1)  # share of the picture's side that is seen
_ASPECT = 0.1
_SHIFT = 0.05
_BRIGHTNESS = 0.2
_CONTRAST = 0.15
_ERASE_CHANCE = 0.25
_ERASE_AREA = (0.02, 0.12)


def order(count: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Shuffle the indices 0 to `count` - 1 for one epoch."""
    return np.random.default_rng((_ORDER, seed, epoch)).permutation(count)


def draw(indices: Sequence[int] | NDArray[np.int64], *, seed: int, epoch: int) -> Draws:
    """Draw the random numbers (N, 13) in [0, 1) for the pictures with these indices."""
    rows = [
        np.random.default_rng((_PICTURE, seed, epoch, int(i))).random(_DRAWS, np.float32)
        for i in indices
    ]
    return np.stack(rows)


def colour_safe(frames: Tensor, draws: Tensor, preprocess: Preprocess) -> Tensor:
    """Flip, turn, zoom, stretch, shift, light and cover pictures; normalise them.

    Brightness scales all channels alike, contrast spreads each around its own mean, what is
    covered takes the picture's mean colour: no hue changes, and grey stays grey.

    Args:
        frames: (N, H, W, 3) uint8 BGR, whole pictures of any one size.
        draws: (N, 13) float32 in [0, 1), on the same device.
        preprocess: Its size, mean, std and channels are applied.

    Returns:
        (N, 3, *size) float32.
    """
    (flip, turn, zoom, aspect, right, down), (bright, contrast), erase = (
        draws[:, :6].unbind(1),
        (draws[:, 6:8, None, None] * 2 - 1).unbind(1),
        draws[:, 8:],
    )
    pictures = frames.permute(0, 3, 1, 2).float()
    if preprocess.channels == "rgb":
        pictures = pictures.flip(1)
    moves = _affine(flip, turn, zoom, aspect, right, down)
    grid = functional.affine_grid(moves, [len(frames), 3, *preprocess.size], align_corners=False)
    pictures = functional.grid_sample(
        pictures, grid, padding_mode="reflection", align_corners=False
    )

    mean_colour = pictures.mean(dim=(2, 3), keepdim=True)
    pictures = mean_colour + (pictures - mean_colour) * (1 + _CONTRAST * contrast)[:, None]
    pictures = pictures * (1 + _BRIGHTNESS * bright)[:, None]
    pictures = torch.where(_covered(erase, preprocess.size), mean_colour, pictures)
    return normalize(pictures, preprocess)


def normalize(pictures: Tensor, preprocess: Preprocess) -> Tensor:
    """Map (N, 3, H, W) of 0 to 255, channels in order, to (x / 255 - mean) / std."""
    mean = pictures.new_tensor(preprocess.mean).view(3, 1, 1)
    std = pictures.new_tensor(preprocess.std).view(3, 1, 1)
    return pictures * (1 / (255 * std)) - mean / std


def _affine(
    flip: Tensor, turn: Tensor, zoom: Tensor, aspect: Tensor, right: Tensor, down: Tensor
) -> Tensor:
    """Give the maps (N, 2, 3) from output to input coordinates, both -1 to 1.

    A picture that is zoomed into may show any part of itself; any other moves a little.
    """
    angle = _TURN * (2 * turn - 1)
    side = _ZOOM[0] + (_ZOOM[1] - _ZOOM[0]) * zoom
    stretch = torch.exp(_ASPECT * (2 * aspect - 1))
    width, height = side * stretch, side / stretch
    width = torch.where(flip < 0.5, -width, width)
    reach = _SHIFT + (1 - side).clamp(min=0)
    cos, sin = angle.cos(), angle.sin()
    to_x = torch.stack([cos * width, -sin * height, (2 * right - 1) * reach], dim=1)
    to_y = torch.stack([sin * width, cos * height, (2 * down - 1) * reach], dim=1)
    return torch.stack([to_x, to_y], dim=1)


def _covered(erase: Tensor, size: tuple[int, int]) -> Tensor:
    """Give masks (N, 1, *size), true inside one rectangle of some pictures (Zhong et al., 2017)."""
    chance, area, shape, across, along = erase.unbind(1)
    half = (_ERASE_AREA[0] + (_ERASE_AREA[1] - _ERASE_AREA[0]) * area).sqrt() / 2
    half = torch.where(chance < _ERASE_CHANCE, half, 0)
    stretch = torch.exp(shape - 0.5)

    def inside(centre: Tensor, reach: Tensor, count: int) -> Tensor:
        position = (torch.arange(count, device=erase.device) + 0.5) / count
        return (position - centre[:, None]).abs() < reach[:, None]

    rows, columns = inside(along, half * stretch, size[0]), inside(across, half / stretch, size[1])
    return (rows[:, :, None] & columns[:, None, :])[:, None]

"""Mixup and CutMix for images with several labels: targets become soft."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

_MIXING = 3  # the key of its random stream


def mix(
    images: Tensor, targets: Tensor, *, mixup: float, cutmix: float, key: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Mix the first image of a batch with the last one, and so on, by mixup or by CutMix.

    Mixup (Zhang et al., 2018) blends images; CutMix (Yun et al., 2019) pastes a rectangle and
    blends targets by its share. If both are on, each batch uses one of them at random. A label
    that is unknown (NaN) in one of two images is unknown in their mixture.

    Args:
        images: (N, 3, H, W), normalised.
        targets: (N, L) in [0, 1] or NaN.
        mixup: Parameter of the symmetric Beta distribution; 0 turns it off.
        cutmix: The same for CutMix.
        key: The seed of the randomness: seed of the run, step, batch.
    """
    active = [kind for kind, alpha in (("mixup", mixup), ("cutmix", cutmix)) if alpha > 0]
    if not active:
        return images, targets
    rng = np.random.default_rng((_MIXING, *key))
    kind = active[rng.integers(len(active))]
    alpha = mixup if kind == "mixup" else cutmix
    share = float(rng.beta(alpha, alpha))
    others = images.flip(0)
    if kind == "mixup":
        mixed = others.lerp(images, share)
    else:
        mixed = images.clone()
        rows, columns = _rectangle(1 - share, images.shape[2:], rng)
        mixed[:, :, rows, columns] = others[:, :, rows, columns]
        pasted = (rows.stop - rows.start) * (columns.stop - columns.start)
        share = 1 - pasted / math.prod(images.shape[2:])
    return mixed, torch.lerp(targets.flip(0), targets, share)


def _rectangle(share: float, size: torch.Size, rng: np.random.Generator) -> tuple[slice, slice]:
    """Return a random rectangle with this share of the area, clipped to the image."""
    sides = []
    for count in size:
        half, centre = math.sqrt(share) * count / 2, rng.random() * count
        first, last = round(max(0, centre - half)), round(min(count, centre + half))
        sides.append(slice(first, last))
    return sides[0], sides[1]

"""Mixup and CutMix for labels of which a picture may have several: targets become soft."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

_MIXING = 3  # a stream of random numbers of its own


def mix(
    pictures: Tensor, targets: Tensor, *, mixup: float, cutmix: float, key: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Mix each picture with its mirror image in the batch, by mixup or by CutMix.

    Mixup (Zhang et al., 2018) blends; CutMix (Yun et al., 2019) pastes a rectangle, and the
    targets are blended by its share. If both are on, either is drawn for a batch. A label that is
    unknown (NaN) in one of two pictures is unknown in their mixture.

    Args:
        pictures: (N, 3, H, W), normalised.
        targets: (N, L) in [0, 1] or NaN.
        mixup: Parameter of the symmetric Beta distribution; 0 turns it off.
        cutmix: The same for CutMix.
        key: Decides the chance: seed, step, batch.
    """
    active = [kind for kind, alpha in (("mixup", mixup), ("cutmix", cutmix)) if alpha > 0]
    if not active:
        return pictures, targets
    rng = np.random.default_rng((_MIXING, *key))
    kind = active[rng.integers(len(active))]
    alpha = mixup if kind == "mixup" else cutmix
    share = float(rng.beta(alpha, alpha))
    others = pictures.flip(0)
    if kind == "mixup":
        mixed = others.lerp(pictures, share)
    else:
        mixed = pictures.clone()
        rows, columns = _rectangle(1 - share, pictures.shape[2:], rng)
        mixed[:, :, rows, columns] = others[:, :, rows, columns]
        pasted = (rows.stop - rows.start) * (columns.stop - columns.start)
        share = 1 - pasted / math.prod(pictures.shape[2:])
    return mixed, torch.lerp(targets.flip(0), targets, share)


def _rectangle(share: float, size: torch.Size, rng: np.random.Generator) -> tuple[slice, slice]:
    """Place a rectangle of this share of the area anywhere; what sticks out is cut off."""
    sides = []
    for count in size:
        half, centre = math.sqrt(share) * count / 2, rng.random() * count
        first, last = round(max(0, centre - half)), round(min(count, centre + half))
        sides.append(slice(first, last))
    return sides[0], sides[1]

"""Images to train on in seconds: a red or blue disc or square."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from edgeml.data import Dataset
from edgeml.spec.labels import LabelGroup

LABELS = ("blue", "disc", "red", "square")


def draw_shapes(root: Path) -> Dataset:
    """Draw 64 images of 40 px: 40 to train on, 12 and 12 to check."""
    rng = np.random.default_rng(0)
    paths, targets = [], np.zeros((64, 4), np.uint8)
    for i in range(64):
        blue, disc = i % 2, i // 2 % 2
        image = rng.integers(80, 120, (40, 40, 3), dtype=np.uint8)
        colour = (220, 40, 40) if blue else (40, 40, 220)
        x, y = (int(value) for value in rng.integers(14, 26, 2))
        if disc:
            cv2.circle(image, (x, y), 9, colour, -1)
        else:
            cv2.rectangle(image, (x - 9, y - 9), (x + 9, y + 9), colour, -1)
        paths.append(root / f"{i:02d}.png")
        cv2.imwrite(str(paths[-1]), image)
        targets[i] = (blue, disc, 1 - blue, 1 - disc)
    return Dataset(
        root=root,
        paths=tuple(paths),
        labels=LABELS,
        targets=targets,
        groups=None,
        split=("train",) * 40 + ("val",) * 12 + ("test",) * 12,
        label_groups=(
            LabelGroup(name="colour", labels=("blue", "red"), rule="one"),
            LabelGroup(name="shape", labels=("disc", "square"), rule="one"),
        ),
    )

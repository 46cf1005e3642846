"""An image, drawn by numpy alone, the same for tools and tests."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCKS = 4

LABELS = [f"l{i}" for i in range(3 * BLOCKS**2)]


def drawn(height: int = 151, width: int = 113) -> NDArray[np.uint8]:
    """Draw shades, a disc, a bar and stripes: (height, width, 3) uint8 RGB."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    image = np.stack([255 * x / width, 255 * y / height, 128 + 100 * np.sin(x / 9 + y / 5)], -1)
    image[(y - height / 3) ** 2 + (x - width / 2) ** 2 < (width / 4) ** 2] = (230, 40, 60)
    image[int(height * 0.8) : int(height * 0.9)] = (20, 200, 240)
    image[:, int(width * 0.9) :: 2] = 255
    return image.round().clip(0, 255).astype(np.uint8)


def block_means(planes: NDArray[np.float32]) -> NDArray[np.float64]:
    """Average (3, H, W) over 4 x 4 blocks: (48,), which is what the tests' network gives."""
    channels, height, width = planes.shape
    rows = planes.reshape(channels, BLOCKS, height // BLOCKS, BLOCKS, width // BLOCKS)
    return rows.mean(axis=(2, 4), dtype=np.float64).reshape(-1)

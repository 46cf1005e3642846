"""The images that a benchmark decodes: the user's files, or a synthetic one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from edgeml.image.frame import Frame
from edgeml.image.jpeg import encode_jpeg
from edgeml.image.reading import read_file

MAX_IMAGES = 100
"""Of more images an even selection is used: each must occur several times in a short run."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Image files, one or more, to time calls with."""

    paths: tuple[Path, ...]
    source: Literal["files", "synthetic"]  # synthetic: there were no files, and one was drawn
    sha256: str  # digest over the contents of the files, in order
    mean_bytes: int


def gather(images: Sequence[Path], scratch: Path) -> Corpus:
    """Choose at most `MAX_IMAGES` of `images`; without any, draw one into the folder `scratch`.

    Reading them also puts them into the page cache, so that `decode` never waits for a disk.
    """
    source: Literal["files", "synthetic"] = "files"
    if not images:
        source = "synthetic"
        images = [scratch / "synthetic.jpg"]
        images[0].write_bytes(encode_jpeg(draw_photo(), quality=90))
    # Integer arithmetic: rounding must never move the last index beyond the end.
    count = min(len(images), MAX_IMAGES)
    chosen = [Path(images[i * len(images) // count]) for i in range(count)]
    digest, size = hashlib.sha256(), 0
    for path in chosen:
        data = read_file(path)
        digest.update(hashlib.sha256(data).digest())
        size += len(data)
    mean, sha256 = size // count, digest.hexdigest()
    return Corpus(paths=tuple(chosen), source=source, sha256=sha256, mean_bytes=mean)


def draw_photo(height: int = 960, width: int = 1280) -> Frame:
    """Draw a frame (height, width, 3) uint8 BGR that costs a JPEG decoder as much as a photo.

    Some shapes with edges, over noise whose amplitude grows with its scale, like the 1/f spectrum
    of natural images. At quality 90 it takes about 1.7 bits per pixel, as photos do.
    """
    random = np.random.default_rng(0)
    canvas = np.full((height, width, 3), 118, np.float32)
    for scale in (1, 4, 16, 64):
        small = random.standard_normal((height // scale + 1, width // scale + 1, 3), np.float32)
        noise = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
        canvas += noise * np.float32(4 * scale**0.5)
    frame: Frame = np.clip(canvas, 0, 255).astype(np.uint8)
    for _ in range(12):
        x, y = int(random.integers(width)), int(random.integers(height))
        colour = tuple(int(value) for value in random.integers(0, 256, 3))
        axes = int(random.integers(20, 160)), int(random.integers(20, 160))
        shade = frame.copy()
        cv2.ellipse(shade, (x, y), axes, float(random.integers(180)), 0, 360, colour, -1)
        frame = cv2.addWeighted(frame, 0.45, shade, 0.55, 0)  # type: ignore[assignment]
    return frame

"""Synthetic apparel: drawn images with known labels, to try all steps without any data."""

from __future__ import annotations

import csv
import io
import os
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np

from edgeml.data.synth.apparel import COLOURS, GARMENTS
from edgeml.data.synth.paint import (
    Canvas,
    paint_background,
    paint_garment,
    paint_obstacle,
    photograph,
    random_pose,
)
from edgeml.errors import InputError
from edgeml.files import staged
from edgeml.ordered import ordered_map, usable_cpus
from edgeml.progress import SILENT, Progress

Layout = Literal["folders", "csv"]

# Share of the images of the CSV layout that show a second garment.
_TWO_GARMENTS = 0.35


class _Plan(NamedTuple):
    """What one image shows, and its path in the data set."""

    path: str
    garments: tuple[tuple[str, str], ...]


def synthesize(
    out: Path,
    *,
    images: int,
    size: int,
    seed: int,
    layout: Layout = "folders",
    progress: Progress = SILENT,
) -> None:
    """Draw a data set of apparel: 8 garments in 9 colours, all 72 pairs equally often.

    The same arguments draw the same images, for any number of processors.

    Args:
        out: A folder that does not exist yet, or is empty. It appears when all images are drawn.
        images: The number of images.
        size: Their height and width in pixels, 16 to 1024.
        seed: 0 or more; another seed draws other images.
        layout: `folders`: `red_shirt/000001.jpg`, one garment per image. `csv`: `labels.csv`
            next to `images/`, and a second garment in a third of the images.
        progress: Shown one step per image.

    Raises:
        InputError: `out` is not empty or cannot be written to, or a number is out of range.
    """
    if images < 1:
        raise InputError(f"The number of images is {images}; it must be 1 or more.")
    if not 16 <= size <= 1024:
        raise InputError(f"The size is {size} pixels; it must be 16 to 1024.")
    if seed < 0:
        raise InputError(f"The seed is {seed}; it must be 0 or more.")
    target = Path(os.path.realpath(out))
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{str(out)!r} exists and is not an empty folder: choose a new one.")
    plans = [_planned(index, seed, layout) for index in range(images)]
    try:
        with staged(target) as folder:
            _draw_all(plans, folder, size, seed, progress)
            if layout == "csv":
                (folder / "labels.csv").write_text(_table(plans), encoding="utf-8", newline="\n")
            if target.exists():
                target.rmdir()  # Windows does not rename onto a folder, not even an empty one.
    except OSError as err:
        raise InputError(f"Cannot write {str(out)!r}: {err.strerror}.") from err


def _planned(index: int, seed: int, layout: Layout) -> _Plan:
    # 9 and 8 have no common divisor: 72 consecutive images show all pairs.
    colour, garment = COLOURS[index % len(COLOURS)], GARMENTS[index % len(GARMENTS)]
    if layout == "folders":
        number = index // (len(COLOURS) * len(GARMENTS)) + 1
        return _Plan(f"{colour}_{garment}/{number:06d}.jpg", ((colour, garment),))
    path = f"images/{index + 1:06d}.jpg"
    rng = np.random.default_rng([seed, index, 1])
    if rng.random() >= _TWO_GARMENTS:
        return _Plan(path, ((colour, garment),))
    second = (COLOURS[rng.integers(len(COLOURS))], GARMENTS[rng.integers(len(GARMENTS))])
    return _Plan(path, ((colour, garment), second))


def _draw_all(plans: list[_Plan], out: Path, size: int, seed: int, progress: Progress) -> None:
    for folder in sorted({str(Path(plan.path).parent) for plan in plans}):
        (out / folder).mkdir(parents=True)

    def draw(index: int) -> None:
        path, garments = plans[index]
        rng = np.random.default_rng([seed, index])
        image = _scene(garments, size, rng)
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(55, 96))]
        (out / path).write_bytes(cv2.imencode(".jpg", image, quality)[1].tobytes())

    with progress.task("draw apparel", total=len(plans)) as advance:
        for _ in ordered_map(draw, range(len(plans)), workers=usable_cpus()):
            advance(1)


def _scene(garments: tuple[tuple[str, str], ...], size: int, rng: np.random.Generator) -> Canvas:
    """Draw one image, (size, size, 3) BGR; at twice the size, so that outlines are smooth."""
    side = 2 * size
    canvas = paint_background(side, rng)
    if len(garments) == 1:
        poses = [random_pose(side, rng)]
    else:
        places = rng.permutation([0.3, 0.7])
        poses = [random_pose(side, rng, share=0.72, x=float(x)) for x in places]
    for (colour, garment), pose in zip(garments, poses, strict=True):
        paint_garment(canvas, garment, colour, pose, rng)
    if rng.random() < 0.3:
        paint_obstacle(canvas, poses[0], rng)
    return photograph(canvas, size, rng)


def _table(plans: list[_Plan]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "labels"])
    for path, garments in plans:
        writer.writerow([path, ";".join(dict.fromkeys(chain.from_iterable(garments)))])
    return text.getvalue()

"""A data set with every fault that an audit should find."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from edgeml.image.frame import Frame


def scene(seed: int, size: tuple[int, int] = (96, 120)) -> Frame:
    """Draw an image unlike those of other seeds."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


def make_dirty(folder: Path, *, clean: int = 40) -> Path:
    """Write labels.csv and its images; return the .csv.

    There are `clean` images named 000.jpg and so on, alternately a cat by day and a dog by night;
    the faults of the others are in their file names.
    """
    images = folder / "images"
    images.mkdir(parents=True)
    rows = []

    def add(name: str, labels: str, frame: Frame | None = None, quality: int = 95) -> Path:
        rows.append((f"images/{name}", labels))
        if frame is not None:
            cv2.imwrite(str(images / name), frame, [cv2.IMWRITE_JPEG_QUALITY, quality])
        return images / name

    for row in range(clean):
        add(f"{row:03}.jpg", "cat;day" if row % 2 else "dog;night", scene(row))
    shutil.copy(images / "000.jpg", add("exact-twin.jpg", "dog;night"))
    add("near-twin.jpg", "dog;night", cv2.resize(scene(2), (90, 72)), quality=60)
    add("conflict.jpg", "cat;night", scene(4), quality=70)
    add("lone.jpg", "zebra;day", scene(900))

    cmyk = Image.fromarray(scene(901)).convert("CMYK")
    cmyk.save(add("cmyk.jpg", "cat;day"))
    rgba = np.dstack([scene(902), np.full((96, 120), 128, np.uint8)])
    Image.fromarray(rgba).save(add("rgba.png", "cat;day"))
    Image.fromarray(scene(903)).quantize(16).save(add("palette.png", "cat;day"))
    cv2.imwrite(str(add("sixteen.png", "cat;day")), scene(904).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(scene(905)).save(add("rotated.jpg", "cat;day"), exif=exif)
    Image.fromarray(scene(906)).save(add("liar.jpg", "cat;day"), format="PNG")
    cut = add("cut.jpg", "cat;day", scene(907))
    cut.write_bytes(cut.read_bytes()[:-900])
    cv2.imwrite(str(images / "no-row.jpg"), scene(908))
    add("gone.jpg", "cat;day")
    rows.append(("", "cat"))

    text = "path,labels\n" + "".join(f"{path},{labels}\n" for path, labels in rows)
    (folder / "labels.csv").write_text(text)
    return folder / "labels.csv"

"""How fast and how faithful the resize is, beside OpenCV's INTER_AREA and Pillow.

    python benchmarks/preprocess.py [--data FOLDER] [--rounds 60] [--modes]

All take turns on the same frames, one call each, in one thread; the time is the thread's CPU time,
of which the 20th percentile is given: on a shared machine wall clocks measure the neighbours.
Fidelity is PSNR against Pillow's antialiased resize of the full frame (bilinear, bicubic), the
worst of the frames. Reference of the speed is INTER_AREA from full size, the usual way of
shrinking without aliasing in OpenCV.

With --modes it tells the fidelity of each mode and filter instead, on photos as they are: those of
the folder, which were shrunk once and are as sharp as photos can be, and two of scikit-learn.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is loaded

import cv2
import numpy as np
import PIL
from PIL import Image

from edgeml.image.frame import Frame
from edgeml.image.modes import Interpolation
from edgeml.image.preprocess import Preprocess
from edgeml.image.reading import read_image
from edgeml.image.resample import resize

CASES = ((480, 640), (481, 641), (960, 1280), (961, 1283), (1080, 1920), (3024, 4032))
TARGETS = (96, 160, 224)
PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "clothing_cc0" / "images"

Resizer = Callable[[Frame, int], Frame]


def pillow(kind: Image.Resampling) -> Resizer:
    return lambda frame, side: np.asarray(Image.fromarray(frame).resize((side, side), kind))


def inter_area(frame: Frame, side: int) -> Frame:
    return cast("Frame", cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA))


WAYS: dict[str, Resizer] = {
    "edgeml linear": lambda frame, side: resize(frame, (side, side)),
    "edgeml cubic": lambda frame, side: resize(frame, (side, side), "cubic"),
    "INTER_AREA": inter_area,
    "Pillow": pillow(Image.Resampling.BILINEAR),
}


def psnr(a: Frame, b: Frame) -> float:
    error = float(((a.astype(float) - b) ** 2).mean())
    return 10 * float(np.log10(255**2 / error)) if error else np.inf


def load(folder: Path | None, count: int = 3) -> list[Frame]:
    """Read real photos, or draw noise that is as smooth as one."""
    paths = sorted(folder.glob("*.jpg"))[::500] if folder and folder.is_dir() else []
    if paths:
        return [read_image(path) for path in paths[:count]]
    rng = np.random.default_rng(0)
    noise = [cv2.GaussianBlur(rng.normal(128, 900, (480, 640, 3)), (0, 0), 6) for _ in range(count)]
    return [np.clip(picture, 0, 255).astype(np.uint8) for picture in noise]


def measure(frame: Frame, side: int, rounds: int) -> dict[str, float]:
    """Give ms of CPU time a call, for each way."""
    times: dict[str, list[int]] = {name: [] for name in WAYS}
    for i in range(rounds + 3):
        for name, way in WAYS.items():
            start = time.thread_time_ns()
            way(frame, side)
            if i >= 3:
                times[name].append(time.thread_time_ns() - start)
    return {name: float(np.percentile(taken, 20)) / 1e6 for name, taken in times.items()}


MODES: dict[str, dict[str, Any]] = {
    "squash": {"resize": "squash"},
    "crop": {"resize": "crop", "crop": 0.875},
    "squash_crop": {"resize": "squash_crop", "crop": 0.875},
    "letterbox": {"resize": "letterbox"},
}
FILTERS: dict[Interpolation, Image.Resampling] = {
    "linear": Image.Resampling.BILINEAR,
    "cubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def as_pillow_does(frame: Frame, preprocess: Preprocess) -> Frame:
    """Do what `Preprocess.fit` does by Pillow, one axis after the other."""
    height, width = frame.shape[:2]
    target, kind = preprocess.size[0], FILTERS[preprocess.interpolation]
    match preprocess.resize:
        case "crop":
            scale = target / preprocess.crop / min(height, width)
            size = max(int(height * scale + 1e-6), target), max(int(width * scale + 1e-6), target)
        case "letterbox":
            scale = target / max(height, width)
            size = max(round(height * scale), 1), max(round(width * scale), 1)
        case _:
            size = (int(target / preprocess.crop), int(target / preprocess.crop))
    wide = Image.fromarray(frame).resize((size[1], height), kind)
    whole = np.asarray(wide.resize((size[1], size[0]), kind))
    if preprocess.resize == "letterbox":
        boxed = np.full((target, target, 3), preprocess.pad, np.uint8)
        top, left = (target - size[0]) // 2, (target - size[1]) // 2
        boxed[top : top + size[0], left : left + size[1]] = whole
        return boxed
    top, left = (round((side - target) / 2) for side in size)
    return whole[top : top + target, left : left + target]


def tell_modes(folder: Path) -> None:
    """Print the PSNR of each mode and filter, at several sizes: worst, and median."""
    from sklearn.datasets import load_sample_images

    photos = [read_image(path) for path in sorted(folder.glob("*.jpg"))[::40]]
    photos += load_sample_images().images
    sizes = (64, 96, 128, 160, 192, 224)
    print(f"{len(photos)} photos x {len(sizes)} sizes; PSNR to Pillow, worst and median, dB")
    for mode, fields in MODES.items():
        for interpolation in FILTERS:
            found = []
            for side in sizes:
                preprocess = Preprocess(size=(side, side), interpolation=interpolation, **fields)
                found += [psnr(preprocess.fit(p), as_pillow_does(p, preprocess)) for p in photos]
            print(f"{mode:>12} {interpolation:>8} {min(found):6.1f} {np.median(found):6.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=PHOTOS, help="folder of .jpg photos")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--modes", action="store_true", help="fidelity of each mode and filter")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    if options.modes:
        tell_modes(options.data)
        return
    photos = load(options.data)
    print(f"opencv {cv2.__version__}, numpy {np.__version__}, pillow {PIL.__version__}, 1 thread")
    print(f"{'from':>11} {'to':>4}  " + "".join(f"{name:>15}" for name in WAYS), end="")
    print("   PSNR linear  cubic  AREA")
    for height, width in CASES:
        frames = [resize(photo, (height, width), "cubic") for photo in photos]
        for side in TARGETS:
            ms = measure(frames[0], side, options.rounds)
            linear, cubic = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC
            faithful = [
                min(psnr(WAYS[name](frame, side), pillow(kind)(frame, side)) for frame in frames)
                for name, kind in (
                    ("edgeml linear", linear),
                    ("edgeml cubic", cubic),
                    ("INTER_AREA", linear),
                )
            ]
            print(f"{width:>6}x{height:<4} {side:>4}  ", end="")
            print("".join(f"{taken:>12.3f} ms" for taken in ms.values()), end="")
            print("      " + "".join(f"{value:>7.1f}" for value in faithful))
            if (height, width, side) == (960, 1280, 224):
                result = ms, faithful
    ms, faithful = result
    ours = ms["edgeml linear"]
    print(
        f"RESULT 1280x960 -> 224: {ours:.3f} ms, {ours / ms['INTER_AREA']:.2f} of INTER_AREA, "
        f"{ours / ms['Pillow']:.2f} of Pillow; {faithful[0]:.1f} dB to Pillow "
        f"(INTER_AREA {faithful[2]:.1f})"
    )


if __name__ == "__main__":
    main()

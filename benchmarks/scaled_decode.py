"""How far a JPEG may be scaled while it is decoded: what it saves, and what it changes.

    python benchmarks/scaled_decode.py [--photos FOLDER] [--model FILE.onnx ...]

A photo is decoded at each scale that leaves its short side at least as long as the target's, then
fitted as `Preprocess` does. Fidelity is measured against Pillow: decoded in full, resized with its
antialiased filter of the model. The ratio is the short side after decoding over the target's;
`edgeml.image.reading` scales while it is at least 2. Scores are probabilities, the largest
difference of any label. Time is CPU time of the thread, the 20th percentile of turns.

Without --photos, photos of clothes from ../shared are enlarged to a short side of 1080 pixels.
They are smoother than photos of that size, so take large photos if you have any.
"""

from __future__ import annotations

import argparse
import io
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is loaded

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgeml import Predictor, Preprocess
from edgeml.benchmark.corpus import draw_photo
from edgeml.image.frame import Frame
from edgeml.image.jpeg import encode_jpeg

SCALES = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
TARGETS = (96, 160, 224, 384)
RATIOS = (1, 1.25, 1.5, 1.75, 2, 3, 4, 100)
CLOTHING = Path(__file__).parents[2] / "shared" / "data" / "clothing_cc0" / "images"
FILTERS = {"linear": Image.Resampling.BILINEAR, "cubic": Image.Resampling.BICUBIC}


def psnr(a: Frame, b: Frame) -> float:
    error = float(((a.astype(float) - b) ** 2).mean())
    return 10 * float(np.log10(255**2 / error)) if error else 99.0


def photos(folder: Path | None, count: int) -> Iterator[bytes]:
    """Give JPEG files whose sides 8 divides; of others the scaled picture would be stretched."""
    paths = sorted((folder or CLOTHING).glob("*.jp*g"))
    for path in paths[:: max(1, len(paths) // count)]:
        with Image.open(path) as picture:
            whole = picture.convert("RGB")
        if folder is None:
            scale = 1080 / min(whole.size)
            sides = round(whole.width * scale) // 8 * 8, round(whole.height * scale) // 8 * 8
            whole = whole.resize(sides, Image.Resampling.LANCZOS)
        else:
            whole = whole.crop((0, 0, whole.width // 8 * 8, whole.height // 8 * 8))
        out = io.BytesIO()
        whole.save(out, "JPEG", quality=92)
        yield out.getvalue()


def decoded(data: bytes, factor: int) -> Frame:
    frame = cv2.imdecode(np.frombuffer(data, np.uint8), SCALES[factor])
    assert frame is not None
    return frame


def by_pillow(data: bytes, preprocess: Preprocess) -> Frame:
    """Fit a picture as `Preprocess` does, with Pillow; BGR."""
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    kind, (height, width) = FILTERS[preprocess.interpolation], preprocess.size
    if preprocess.resize == "squash":
        return np.asarray(picture.resize((width, height), kind))[..., ::-1]
    sides = np.array([picture.width, picture.height])
    if preprocess.resize == "crop":
        wide, tall = (int(side * height / sides.min() + 1e-6) for side in sides)
        left, top = round((wide - width) / 2), round((tall - height) / 2)
        whole = picture.resize((wide, tall), kind)
        return np.asarray(whole.crop((left, top, left + width, top + height)))[..., ::-1]
    wide, tall = (round(side * height / sides.max()) for side in sides)
    canvas = Image.new("RGB", (width, height), (preprocess.pad,) * 3)
    canvas.paste(picture.resize((wide, tall), kind), ((width - wide) // 2, (height - tall) // 2))
    return np.asarray(canvas)[..., ::-1]


def fidelity(files: list[bytes]) -> None:
    """Print PSNR against Pillow by mode, filter and ratio."""
    print(f"\nPSNR against Pillow, dB: the worst and the median of {len(files)} photos x 4 sizes")
    found: dict[tuple[str, str], dict[tuple[bool, float], list[float]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for data in files:
        frames = {factor: decoded(data, factor) for factor in SCALES}
        for target in TARGETS:
            for mode in ("squash", "crop", "letterbox"):
                for interpolation in FILTERS:
                    preprocess = Preprocess(
                        size=(target, target), resize=mode, interpolation=interpolation
                    )
                    expected = by_pillow(data, preprocess)
                    for factor, frame in frames.items():
                        ratio = min(frame.shape[:2]) / target
                        if ratio >= 1:
                            step = max(r for r in RATIOS if r <= ratio)
                            value = psnr(preprocess.fit(frame), expected)
                            found[mode, interpolation][factor > 1, step].append(value)
    print(f"{'':>19}{'not scaled':>13}" + "".join(f"{f'>= {r}':>13}" for r in RATIOS[:-1]))
    for (mode, interpolation), values in found.items():
        whole = [value for (scaled, _), some in values.items() for value in some if not scaled]
        cells = [whole] + [values[True, ratio] for ratio in RATIOS[:-1]]
        print(f"{mode:>10} {interpolation:<8}", end="")
        print("".join(f"{min(c):>7.1f}{np.median(c):>6.1f}" if c else f"{'':>13}" for c in cells))


def scores(files: list[bytes], model: Path) -> None:
    """Print how far the scores of a model are from those with Pillow's input."""
    with Predictor(model, threads=1) as predictor:
        preprocess = predictor.spec.preprocess
        name = f"{preprocess.resize} {preprocess.interpolation} {preprocess.size[0]}"
        found: dict[tuple[bool, float], list[float]] = defaultdict(list)

        def probabilities(frame: Frame) -> NDArray[np.float32]:
            batch = preprocess.normalize([np.ascontiguousarray(frame)])
            return predictor.probabilities(predictor.runtime.run(batch))[0]

        for data in files:
            expected = probabilities(by_pillow(data, replace(preprocess)))
            for factor in SCALES:
                frame = decoded(data, factor)
                ratio = min(frame.shape[:2]) / preprocess.size[0]
                if ratio >= 1:
                    step = max(r for r in RATIOS if r <= ratio)
                    error = np.abs(probabilities(preprocess.fit(frame)) - expected).max()
                    found[factor > 1, step].append(float(error))
    print(f"\n{model.name} ({name}): largest difference of a score")
    for (scaled, ratio), values in sorted(found.items()):
        print(
            f"  {'scaled' if scaled else 'whole':>7}, ratio >= {ratio:<5}{len(values):>4} photos: "
            f"median {np.median(values):.4f}, 90 % below {np.percentile(values, 90):.4f}, "
            f"worst {max(values):.4f}, above 0.01: {sum(v > 0.01 for v in values)}"
        )


def cost(rounds: int) -> None:
    """Print ms of CPU time for decoding, fitting and normalising, at each scale."""
    print("\nms of CPU time: decode + fit and normalise = sum (the ratio)")
    for height, width in ((480, 640), (1080, 1920), (3024, 4032)):
        data = encode_jpeg(draw_photo(height, width), 90)
        for target in TARGETS:
            preprocess = Preprocess(size=(target, target))
            factors = [f for f in SCALES if height // f >= target]
            taken: dict[int, list[tuple[int, int]]] = {factor: [] for factor in factors}
            for _ in range(rounds):
                for factor in factors:
                    start = time.thread_time_ns()
                    frame = decoded(data, factor)
                    middle = time.thread_time_ns()
                    preprocess([frame])
                    taken[factor].append((middle - start, time.thread_time_ns() - middle))
            print(f"{width:>6}x{height:<5}-> {target:>3}", end="")
            for factor, pairs in taken.items():
                one, two = np.percentile(np.array(pairs), 20, axis=0) / 1e6
                ratio = height / factor / target
                print(
                    f"   /{factor}: {one:.2f} + {two:.2f} = {one + two:.2f} ({ratio:.2f})", end=""
                )
            print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, help="a folder of large JPEG photos")
    parser.add_argument("--model", type=Path, nargs="*", default=[], help="models, .onnx")
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    print(f"opencv {cv2.__version__}, 1 thread")
    cost(options.rounds)
    files = list(photos(options.photos, options.count))
    fidelity(files)
    for model in options.model:
        scores(files, model)


if __name__ == "__main__":
    main()

"""Drawn apparel: the same for a seed, shows its labels, and too hard for a weak model."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import average_precision_score

from edgeml.data import Dataset, SplitPlan, read_dataset, split_dataset
from edgeml.data.synth.apparel import COLOURS, GARMENTS, GROUP_NAMES
from edgeml.data.synth.draw import synthesize
from edgeml.data.synth.paint import Pose, paint_garment
from edgeml.data.synth.shapes import draw_garment
from edgeml.errors import InputError
from edgeml.progress import Progress

pytestmark = pytest.mark.slow


def contents(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def apparel(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    out = tmp_path_factory.mktemp("apparel") / "data"
    synthesize(out, images=720, size=64, seed=3)
    return read_dataset(out, group_names=GROUP_NAMES)


def test_all_pairs_are_drawn_equally_often(apparel: Dataset) -> None:
    folders = Counter(path.parent.name for path in apparel.paths)
    assert set(folders) == {f"{colour}_{garment}" for colour in COLOURS for garment in GARMENTS}
    assert set(folders.values()) == {10}
    assert (apparel.root / "red_shirt" / "000001.jpg").is_file()
    assert [group.name for group in apparel.label_groups] == ["colour", "garment"]


def test_images_are_jpegs_of_the_requested_size(apparel: Dataset) -> None:
    for path in apparel.paths[::100]:
        assert path.read_bytes()[:2] == b"\xff\xd8"
        assert cv2.imread(str(path)).shape == (64, 64, 3)


def test_no_image_is_drawn_twice(apparel: Dataset) -> None:
    assert len(set(apparel.hashes())) == len(apparel)


def test_a_seed_gives_the_same_bytes_in_another_process_with_other_threads(tmp_path: Path) -> None:
    synthesize(tmp_path / "here", images=30, size=48, seed=7, layout="csv")
    script = (
        "import os, sys; os.cpu_count, os.sched_getaffinity = lambda: 1, lambda pid: {0}\n"
        "import cv2; cv2.setNumThreads(1)\n"
        "from pathlib import Path; from edgeml.data.synth.draw import synthesize\n"
        "synthesize(Path(sys.argv[1]), images=30, size=48, seed=7, layout='csv')\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "11", "PYTHONPATH": os.pathsep.join(sys.path)}
    there = tmp_path / "there"
    subprocess.run([sys.executable, "-c", script, there], check=True, env=environment)
    assert contents(tmp_path / "here") == contents(there)


def test_fewer_images_are_the_first_of_more(tmp_path: Path) -> None:
    synthesize(tmp_path / "few", images=5, size=32, seed=1)
    synthesize(tmp_path / "more", images=80, size=32, seed=1)
    few, more = contents(tmp_path / "few"), contents(tmp_path / "more")
    assert few.items() <= more.items()


def test_another_seed_draws_other_images(tmp_path: Path) -> None:
    for seed in (1, 2):
        synthesize(tmp_path / str(seed), images=8, size=32, seed=seed)
    first, second = contents(tmp_path / "1"), contents(tmp_path / "2")
    assert first.keys() == second.keys()
    assert all(first[name] != second[name] for name in first)


def test_the_table_has_a_second_garment_in_a_third_of_the_images(tmp_path: Path) -> None:
    synthesize(tmp_path / "data", images=300, size=16, seed=0, layout="csv")
    dataset = read_dataset(tmp_path / "data" / "labels.csv")
    assert len(dataset) == 300
    assert set(dataset.labels) == {*COLOURS, *GARMENTS}
    counts = dataset.targets.sum(axis=1)
    assert counts.min() == 2
    assert counts.max() == 4
    assert 0.2 < np.mean(counts > 2) < 0.5
    garments = dataset.targets[:, [dataset.labels.index(name) for name in GARMENTS]]
    assert garments.sum(axis=1).max() == 2


def test_progress_counts_every_image(tmp_path: Path) -> None:
    counts: list[int] = []

    class Count(Progress):
        def task(self, name, total, unit="img"):  # type: ignore[no-untyped-def]
            from contextlib import nullcontext

            counts.append(-total)
            return nullcontext(counts.append)

    synthesize(tmp_path / "data", images=9, size=16, seed=0, progress=Count())
    assert counts == [-9] + [1] * 9


def test_an_empty_folder_is_filled_and_a_non_empty_one_not_changed(tmp_path: Path) -> None:
    out = tmp_path / "data"
    out.mkdir()
    synthesize(out, images=2, size=16, seed=0)
    before = contents(out)
    with pytest.raises(InputError, match="not an empty folder"):
        synthesize(out, images=3, size=16, seed=0)
    assert contents(out) == before
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="not an empty folder"):
        synthesize(tmp_path / "file", images=3, size=16, seed=0)


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.name == "000002.jpg":
            raise OSError(28, "No space left on device")
        return written(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match="No space left"):
        synthesize(tmp_path / "data", images=100, size=16, seed=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("images", "size", "seed", "words"),
    [
        (0, 64, 0, "number of images is 0"),
        (1, 15, 0, "size is 15"),
        (1, 1025, 0, "size is 1025"),
        (1, 64, -1, "seed is -1"),
    ],
)
def test_impossible_numbers_are_refused(
    tmp_path: Path, images: int, size: int, seed: int, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        synthesize(tmp_path / "data", images=images, size=size, seed=seed)
    assert list(tmp_path.iterdir()) == []


def test_the_threads_of_opencv_do_not_change(tmp_path: Path) -> None:
    before = cv2.getNumThreads()
    synthesize(tmp_path / "data", images=2, size=16, seed=0)
    assert cv2.getNumThreads() == before


@pytest.mark.parametrize("garment", GARMENTS)
def test_a_garment_touches_the_unit_square(garment: str) -> None:
    for seed in range(20):
        parts = draw_garment(garment, np.random.default_rng(seed))
        points = np.concatenate([part.points for part in parts])
        np.testing.assert_allclose(np.abs(points).max(), 1)


# The keyword colours of CSS, as (R, G, B). Brown is `saddlebrown`; green, blue and pink are
# their common lighter and darker forms too, because people call those by the same name.
CSS = {
    "black": [(0, 0, 0)],
    "blue": [(0, 0, 255), (65, 105, 225), (30, 144, 255), (25, 25, 112)],
    "brown": [(139, 69, 19), (92, 51, 23), (165, 42, 42)],
    "green": [(0, 128, 0), (34, 139, 34), (0, 100, 0), (60, 179, 113), (50, 205, 50)],
    "pink": [(255, 192, 203), (255, 105, 180), (255, 182, 193), (219, 112, 147)],
    "red": [(255, 0, 0), (220, 20, 60), (178, 34, 34)],
    "silver": [(192, 192, 192), (169, 169, 169), (128, 128, 128)],
    "white": [(255, 255, 255), (245, 245, 245)],
    "yellow": [(255, 255, 0), (255, 215, 0)],
}


def lab(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    unit = pixels.reshape(1, -1, 3).astype(np.float32) / 255
    return cv2.cvtColor(unit, cv2.COLOR_RGB2LAB)[0]


def named(pixels: NDArray[np.uint8]) -> str:
    """Name the colour whose CSS reference most pixels (K, 3) RGB are nearest to in CIELAB."""
    names = [name for name, shades in CSS.items() for _ in shades]
    references = lab(np.array([shade for shades in CSS.values() for shade in shades], np.uint8))
    nearest = np.linalg.norm(lab(pixels)[:, None] - references, axis=2).argmin(axis=1)
    return Counter(names[index] for index in nearest).most_common(1)[0][0]


def test_a_garment_has_the_colour_it_is_named_after() -> None:
    right = []
    for number, (colour, garment) in enumerate((c, g) for c in COLOURS for g in GARMENTS):
        canvas = np.full((128, 128, 3), (255, 0, 255), np.uint8)
        pose = Pose(np.eye(2) * 55, np.array([64.0, 64.0]), np.zeros((3, 2)))
        paint_garment(canvas, garment, colour, pose, np.random.default_rng(number))
        # Magenta pixels, also under the shadow, are background.
        hue = cv2.cvtColor(canvas, cv2.COLOR_BGR2HSV)
        painted = (np.abs(hue[..., 0].astype(int) - 150) > 4) | (hue[..., 1] < 240)
        right.append(named(canvas[painted][:, ::-1]) == colour)
    assert np.mean(right) > 0.9


def mean_precision(targets: NDArray[np.uint8], scores: NDArray[np.float64]) -> float:
    columns = range(targets.shape[1])
    return float(np.mean([average_precision_score(targets[:, c], scores[:, c]) for c in columns]))


def pixels(dataset: Dataset, side: int) -> NDArray[np.float64]:
    images = [cv2.imread(str(path)) for path in dataset.paths]
    small = [cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in images]
    return np.stack(small).reshape(len(dataset), -1) / 127.5 - 1


def test_a_linear_model_on_pixels_fails(apparel: Dataset) -> None:
    divided = split_dataset(apparel, SplitPlan())
    train, test = divided.part("train"), divided.part("test")
    scores = []
    seen, unseen = pixels(train, 32), pixels(test, 32)
    for alpha in (100, 1000, 10000):
        ridge = Ridge(alpha=alpha).fit(seen, train.targets)
        scores.append(mean_precision(test.targets, ridge.predict(unseen)))
    seen, unseen = pixels(train, 8), pixels(test, 8)
    for strength in (0.01, 0.1):
        logits = [
            LogisticRegression(C=strength, max_iter=500).fit(seen, column).decision_function(unseen)
            for column in train.targets.T
        ]
        scores.append(mean_precision(test.targets, np.stack(logits, axis=1)))
    assert 0.2 < max(scores) < 0.6

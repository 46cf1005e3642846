"""Copies are found, similar images are not, and a shirt in two colours is no conflict."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeml.data import Dataset, duplicates, read_dataset
from edgeml.data.duplicates import find_duplicates, near_duplicates, near_pairs
from edgeml.data.screen import SIDE, thumbnails
from edgeml.image.frame import Frame
from edgeml.image.preprocess import Preprocess

SHIRT = np.array(
    [(30, 20), (45, 12), (75, 12), (90, 20), (115, 45), (98, 58), (88, 48), (88, 110), (32, 110),
     (32, 48), (22, 58), (5, 45)]
)  # fmt: skip
# BGR, as far apart as colours that people name.
COLOURS = {"red": (40, 40, 190), "blue": (170, 60, 30), "green": (50, 130, 40), "black": (25,) * 3}


def shirt(colour: tuple[int, ...]) -> Frame:
    canvas = np.full((120, 120, 3), 235, np.uint8)
    cv2.fillPoly(canvas, [SHIRT], colour)
    return cv2.GaussianBlur(canvas, (3, 3), 0)


def dataset_of(frames: list[Frame], labels: list[str], folder: Path) -> Dataset:
    names = sorted(set(labels))
    targets = np.array([[label == name for name in names] for label in labels], np.int8)
    paths = tuple(folder / f"{row}.png" for row in range(len(frames)))
    for path, frame in zip(paths, frames, strict=True):
        cv2.imwrite(str(path), frame)
    return Dataset(root=folder, paths=paths, labels=tuple(names), targets=targets)


def jpeg(frame: Frame, quality: int) -> Frame:
    return cv2.imdecode(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1)


def cut(frame: Frame, share: float) -> Frame:
    y, x = (max(1, int(share * side)) for side in frame.shape[:2])
    return np.ascontiguousarray(frame[y:-y, x:-x])


COPIES: dict[str, Callable[[Frame], Frame]] = {
    "compressed": lambda frame: jpeg(frame, 15),
    "shrunk": lambda frame: cv2.resize(frame, (80, 90), interpolation=cv2.INTER_AREA),
    "brighter": lambda frame: np.clip(frame * 1.1, 0, 255).astype(np.uint8),
    "cut": lambda frame: cut(frame, 0.01),
}


@pytest.fixture(scope="module")
def photos(clothing: Path) -> Dataset:
    return read_dataset(clothing / "labels.csv")


def test_only_copies_of_real_photos_are_found(photos: Dataset) -> None:
    some = photos.select(np.arange(0, len(photos), 16))
    fit = Preprocess(size=(SIDE, SIDE)).fit
    frames = [cv2.imread(str(path)) for path in some.paths]
    originals, _ = thumbnails(some)
    for name, change in COPIES.items():
        copies = np.array([fit(change(frame)) for frame in frames])
        groups = near_duplicates(np.concatenate([originals, copies]))
        assert (groups[: len(some)] == np.arange(len(some))).all(), name
        assert (groups[len(some) :] == np.arange(len(some))).mean() > 0.98, name


@pytest.mark.slow
def test_similar_photos_are_not_near_duplicates(photos: Dataset) -> None:
    small, faults = thumbnails(photos)
    assert not faults
    assert (near_duplicates(small) == np.arange(len(photos))).all()


def test_a_shirt_in_two_colours_is_one_group_without_a_conflict(tmp_path: Path) -> None:
    dataset = dataset_of([shirt(bgr) for bgr in COLOURS.values()], list(COLOURS), tmp_path)
    duplicates = find_duplicates(dataset, thumbnails(dataset)[0])
    assert duplicates.exact.tolist() == [0, 1, 2, 3]
    assert duplicates.near.tolist() == [0, 0, 0, 0]
    assert duplicates.conflicts == ()


def test_a_copy_with_another_label_is_a_conflict(tmp_path: Path) -> None:
    red = shirt(COLOURS["red"])
    frames = [shirt(COLOURS["blue"]), red, *(change(red) for change in COPIES.values()), red]
    labels = ["blue", "red", "pink", "pink", "pink", "red", "pink"]
    dataset = dataset_of(frames, labels, tmp_path)
    duplicates = find_duplicates(dataset, thumbnails(dataset)[0])
    assert duplicates.exact.tolist() == [0, 1, 2, 3, 4, 5, 1]
    assert set(duplicates.near.tolist()) == {0}
    assert {pair for pair in duplicates.conflicts if 1 in pair} == {(1, 2), (1, 3), (1, 4), (1, 6)}
    assert all(0 not in pair for pair in duplicates.conflicts)


def test_copies_of_real_photos_with_other_labels_are_conflicts(
    photos: Dataset, tmp_path: Path
) -> None:
    frames = [cv2.imread(str(path)) for path in photos.paths[:60]]
    copies = [jpeg(frame, 25) for frame in frames]
    turned = [cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) for frame in frames]  # other colours
    labels = ["original"] * 60 + ["copy"] * 60 + ["turned"] * 60
    dataset = dataset_of(frames + copies + turned, labels, tmp_path)
    duplicates = find_duplicates(dataset, thumbnails(dataset)[0])
    assert {(row, row + 60) for row in range(60)} <= set(duplicates.conflicts)
    vivid = [np.ptp(frame.astype(int), axis=2).mean() > 60 for frame in frames]
    assert sum(vivid) > 5
    assert not {(row, row + 120) for row in np.flatnonzero(vivid)} & set(duplicates.conflicts)


def test_unknown_labels_contradict_nothing(tmp_path: Path) -> None:
    red = shirt(COLOURS["red"])
    dataset = dataset_of([red, red, jpeg(red, 50)], ["red", "pink", "red"], tmp_path)
    assert find_duplicates(dataset, thumbnails(dataset)[0]).conflicts == ((0, 1), (0, 2))[:1]
    dataset.targets[1] = -1
    assert find_duplicates(dataset, thumbnails(dataset)[0]).conflicts == ()
    dataset.targets[2] = (1, -1)  # pink; the labels are sorted
    assert find_duplicates(dataset, thumbnails(dataset)[0]).conflicts == ((0, 2),)


def test_plain_images_are_not_duplicates() -> None:
    grey = np.arange(0, 250, 10, dtype=np.uint8)
    plain = np.broadcast_to(grey[:, None, None, None], (25, SIDE, SIDE, 3))
    noise = np.random.default_rng(0).integers(0, 3, plain.shape, np.uint8)
    for flat in (plain, plain + noise, np.zeros_like(plain)):
        assert (near_duplicates(flat) == np.arange(25)).all()


def brute_force(small: NDArray[np.uint8]) -> set[tuple[int, int]]:
    grey = small.reshape(len(small), -1, 3) @ np.array([0.114, 0.587, 0.299])
    with np.errstate(all="ignore"):
        near = np.corrcoef(grey) > 0.985
    moving = grey.std(axis=1) >= 2
    rows, others = np.nonzero(np.triu(near & moving & moving[:, None], 1))
    return set(zip(rows.tolist(), others.tolist(), strict=True))


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), noise=st.sampled_from([1.0, 3.0, 5.0]))
def test_blocks_find_the_same_pairs_as_numpy(seed: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    scenes = rng.integers(0, 256, (20, 4, 4, 3), np.uint8)
    scenes = np.array([cv2.resize(scene, (SIDE, SIDE)) for scene in scenes])
    copies = scenes[rng.integers(0, 20, 200)] + rng.normal(0, noise, (200, SIDE, SIDE, 1))
    small = np.clip(copies, 0, 255).astype(np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_BLOCK", 64)
        pairs = {(row, other) for row, later in near_pairs(small) for other in later.tolist()}
    # Within the rounding of float32 either answer is right.
    assert len(pairs ^ brute_force(small)) <= 2
    assert pairs


def test_groups_connect_images_across_blocks() -> None:
    rng = np.random.default_rng(3)
    here, there = (cv2.resize(rng.integers(0, 256, (4, 4, 3), np.uint8), (SIDE,) * 2) for _ in "ab")
    steps = np.linspace(0, 1, 40)[:, None, None, None]
    chain = np.round((1 - steps) * here + steps * there).astype(np.uint8)
    others = rng.integers(0, 256, (2400, SIDE, SIDE, 3), np.uint8)
    small = np.concatenate([others, chain])
    order = rng.permutation(len(small))
    groups = near_duplicates(small[order])
    members = np.flatnonzero(order >= 2400)
    assert set(groups[members]) == {members[0]}
    assert len(set(groups)) == 2401
    ends = [(int(np.flatnonzero(order == 2400 + i)[0])) for i in (0, 39)]
    assert tuple(sorted(ends)) not in {
        (row, other) for row, later in near_pairs(small[order]) for other in later.tolist()
    }


@pytest.mark.slow
def test_thousands_of_images_of_one_scene_take_seconds() -> None:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (4000, SIDE, SIDE, 3), np.uint8)
    still = np.clip(small[:1] + rng.normal(0, 3, small.shape), 0, 255).astype(np.uint8)
    began = time.perf_counter()
    assert (near_duplicates(small) == np.arange(4000)).all()
    assert (near_duplicates(still) == 0).all()
    assert time.perf_counter() - began < 20


def test_pairs_come_in_order() -> None:
    small = np.random.default_rng(0).integers(0, 256, (5, SIDE, SIDE, 3), np.uint8)
    rows = [row for row, _ in near_pairs(small[[0, 1, 0, 1, 2, 0]])]
    assert rows == [0, 1, 2]
    assert all(a < b for a, b in pairwise(rows))

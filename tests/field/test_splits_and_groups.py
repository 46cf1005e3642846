"""Splits without a validation part, options that a split overrides, and exclusive labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeml.data import Dataset, SplitPlan, read_dataset, split_dataset
from edgeml.data.chosen_labels import exclusive_labels
from tests.data.readers.sets import encoded, put, run_command, touch, write_table

IMAGES = ("1.png", "2.png", "3.png")


def train_and_test(root: Path) -> Path:
    for seed in range(40):
        side, label = ("train", "test")[seed % 2], ("cat", "dog")[seed // 2 % 2]
        put(root / side / label / f"{seed}.png", encoded(seed))
    return root


def sides(dataset: Dataset) -> dict[str, str]:
    return {p.name: s for p, s in zip(dataset.paths, dataset.split or (), strict=True)}


@pytest.mark.parametrize(("val", "count"), [(0.2, 4), (0.5, 10)])
def test_a_missing_validation_part_is_taken_from_the_training_part(
    tmp_path: Path, val: float, count: int
) -> None:
    dataset = read_dataset(train_and_test(tmp_path))
    divided = split_dataset(dataset, SplitPlan(val=val, near=False))
    before, after = sides(dataset), sides(divided)
    assert [name for name in before if before[name] == "test"] == [
        name for name in after if after[name] == "test"
    ]
    assert list(after.values()).count("val") == count
    assert divided.part("val").present.sum(axis=0).tolist() == [count // 2, count // 2]
    assert divided.paths == dataset.paths


def test_images_with_the_same_bytes_stay_in_the_training_part_together(tmp_path: Path) -> None:
    root = train_and_test(tmp_path)
    for seed in range(0, 40, 2):
        label = ("cat", "dog")[seed // 2 % 2]
        put(root / "train" / label / f"again{seed}.png", encoded(seed))
    after = sides(split_dataset(read_dataset(root), SplitPlan(val=0.5, near=False)))
    assert all(after[f"again{seed}.png"] == after[f"{seed}.png"] for seed in range(0, 40, 2))


@pytest.mark.parametrize(
    ("names", "option", "status"),
    [
        (("train", "test"), ["--val", "0.3"], 0),
        (("train", "test"), ["--test", "0.3"], 2),
        (("train", "val"), ["--val", "0.3"], 2),
        (("train", "val"), ["--test", "0.3"], 2),
        (("train", "val"), [], 0),
    ],
)
def test_a_share_that_the_split_of_the_data_decides_is_refused(
    tmp_path: Path,
    names: tuple[str, str],
    option: list[str],
    status: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = train_and_test(tmp_path / "data")
    (root / "test").rename(root / names[1])
    out = str(tmp_path / "split.csv")
    words = ["data", "split", str(root), "--out", out, "--no-near", *option]
    assert run_command(words, monkeypatch) == status


def dataset_of(targets: list[list[int]]) -> Dataset:
    array = np.array(targets, np.int8)
    paths = tuple(Path(f"/{row}.jpg") for row in range(len(array)))
    labels = tuple("abcdef"[: array.shape[1]])
    return Dataset(root=Path("/"), paths=paths, labels=labels, targets=array)


@pytest.mark.parametrize(
    ("targets", "group"),
    [
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], "abc"),
        ([[1, 0, 1], [0, 1, 1], [0, 1, 0]], "ab"),
        ([[1, 0, 0], [0, 1, 0], [0, 0, 0]], ""),
        ([[1, 1, 0], [0, 1, 1], [1, 0, 1]], ""),
        ([[1, 0, 0], [0, 1, -1], [0, 0, 1]], ""),
    ],
    ids=["all", "all but one", "an image without", "none", "unknown"],
)
def test_labels_of_which_every_image_has_exactly_one_are_found(
    targets: list[list[int]], group: str
) -> None:
    assert exclusive_labels(dataset_of(targets)) == tuple(group)


def test_the_real_photos_have_one_of_twenty_labels(clothing: Path) -> None:
    group = exclusive_labels(read_dataset(clothing / "labels.csv"))
    assert len(group) == 20
    assert "kids" not in group


def audited(path: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    assert run_command(["data", "audit", str(path), *options], monkeypatch) == 0


def test_the_option_for_exclusive_labels_is_printed_to_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    touch(tmp_path, *IMAGES)
    for seed, name in enumerate(IMAGES):
        put(tmp_path / name, encoded(seed))
    table = write_table(tmp_path, "path,label\n1.png,hot dog\n2.png,cat\n3.png,cat\n")
    audited(table, monkeypatch)
    assert capsys.readouterr().err.splitlines()[-1].endswith("--groups 'class=cat,hot dog'")


@pytest.mark.parametrize(
    ("names", "hinted"),
    [
        (("apple_pie", "pork_ribs", "baby_back_ribs"), True),
        (("red_shirt", "red_dress", "blue_shirt"), False),
        (("cat", "dog", "cow"), False),
    ],
)
def test_a_doubtful_split_of_names_suggests_the_other_delimiter(
    tmp_path: Path,
    names: tuple[str, ...],
    hinted: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for seed, name in enumerate(names):
        put(tmp_path / name / "1.png", encoded(seed))
    audited(tmp_path, monkeypatch)
    printed = capsys.readouterr().err
    assert ("--delimiter /" in printed) == hinted
    assert ("--groups class=" in printed) == (names[0] == "cat")
    audited(tmp_path, monkeypatch, "--delimiter", "/")
    assert f"--groups class={','.join(sorted(names))}" in capsys.readouterr().err

"""Splits without a validation part, options that a split overrides, and exclusive labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeml.data import Dataset, SplitPlan, read_dataset, split_dataset
from edgeml.data.exclusive import exclusive_labels
from tests.command import Command
from tests.data.readers.sets import encoded, put, run_command, touch, write_table
from tests.notes import Notes

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
        (("train", "test"), ["--val", "0.3", "--no-near"], 0),
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
    words = ["data", "split", str(root), "--out", out, *option]
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
        ([[1, 1, 0], [0, 1, 1], [1, 0, 1]], ""),
        ([[1, 0, 0], [0, 1, -1], [0, 0, 1]], ""),
    ],
    ids=["all", "all but one", "none", "unknown"],
)
def test_labels_of_which_every_image_has_exactly_one_are_found(
    targets: list[list[int]], group: str
) -> None:
    found = exclusive_labels(dataset_of(targets * 10))
    assert (found.labels if found else ()) == tuple(group)
    assert found is None or (found.proven, found.without) == (True, 0)
    assert found is None or found.is_group == (group == "abc")


def classes(count: int, images: int, *, without: int = 0, rare: int = 0) -> Dataset:
    """Return images of equally many classes; the first have none; of a rare label the last."""
    targets = np.zeros((images, count + bool(rare)), int)
    targets[np.arange(images), np.arange(images) % count] = 1
    targets[:without] = 0
    if rare:
        targets[-rare:, count] = 1
    return dataset_of(targets.tolist())


def test_the_expected_number_of_images_with_two_labels_is_that_of_independent_labels() -> None:
    found = exclusive_labels(classes(3, 27))
    assert found is not None
    # Of 27 combinations of three labels with a chance of one third, 7 have two or three.
    assert found.expected == pytest.approx(7)


@pytest.mark.parametrize(
    ("data", "labels", "group"),
    [
        (classes(3, 3), "abc", False),
        (classes(3, 30), "abc", True),
        (classes(2, 6), "ab", False),
        (classes(2, 40), "ab", True),
        (classes(3, 60, rare=3), "abc", False),
        (classes(3, 120, without=40), "abc", False),
        (classes(3, 6, without=3), "", False),
        (classes(3, 60, without=40, rare=3), "", False),
    ],
    ids=[
        "three images", "enough", "six images", "two classes", "a rare attribute", "background",
        "few with background", "background and a rare attribute",
    ],
)  # fmt: skip
def test_only_what_is_more_than_chance_becomes_a_group(
    data: Dataset, labels: str, group: bool
) -> None:
    found = exclusive_labels(data)
    assert (found.labels if found else ()) == tuple(labels)
    assert bool(found and found.is_group) == group


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("images", [20, 200])
def test_independent_labels_are_never_found_to_exclude_each_other(rate: float, images: int) -> None:
    rng = np.random.default_rng(0)
    drawn = [rng.random((images, count)) < rate for count in (2, 4, 6) for _ in range(30)]
    found = [exclusive_labels(dataset_of(targets.astype(int).tolist())) for targets in drawn]
    assert [one for one in found if one and one.is_group] == []
    assert [one for one in found if one and one.proven] == []


def test_the_real_photos_have_one_of_twenty_labels(clothing: Path) -> None:
    found = exclusive_labels(read_dataset(clothing / "labels.csv"))
    assert found is not None
    assert (len(found.labels), found.images, found.proven) == (20, 3211, True)
    assert "kids" not in found.labels
    assert not found.is_group


def audited(path: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    assert run_command(["data", "audit", str(path), *options], monkeypatch) == 0


def test_the_evidence_is_in_the_json_of_the_audit(edgeml: Command, tmp_path: Path) -> None:
    for seed in range(24):
        put(tmp_path / ("cat", "dog", "cow")[seed % 3] / f"{seed}.png", encoded(seed))
    result = edgeml("data", "audit", tmp_path, "--json").json
    assert isinstance(result, dict)
    assert result["exclusive"] == {
        "labels": ["cat", "cow", "dog"], "images": 24, "without": 0,
        "expected_together": 6.2, "group": True,  # 24 * 7 / 27
    }  # fmt: skip


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


def one_label_each(root: Path, form: str, count: int = 24) -> Path:
    """Write images of cat, dog and cow in one of four forms."""
    names = [("cat", "dog", "cow")[seed % 3] for seed in range(count)]
    folder = {"folders": "{}"}.get(form, "images")
    paths = [f"{folder.format(name)}/{seed}.png" for seed, name in enumerate(names)]
    for seed, path in enumerate(paths):
        put(root / path, encoded(seed))
    if form == "folders":
        return root
    if form == "table":
        rows = "".join(f"{path},{name}\n" for path, name in zip(paths, names, strict=True))
        return write_table(root, f"path,label\n{rows}")
    if form == "columns":
        cells = {"cat": "1,0,0", "dog": "0,1,0", "cow": "0,0,1"}
        rows = "".join(f"{path},{cells[n]}\n" for path, n in zip(paths, names, strict=True))
        return write_table(root, f"path,cat,dog,cow\n{rows}")
    ids = {"cat": 1, "dog": 2, "cow": 3}
    document = {
        "images": [{"id": n, "file_name": Path(path).name} for n, path in enumerate(paths)],
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
        "annotations": [
            {"id": n, "image_id": n, "category_id": ids[name], "bbox": [0, 0, 5, 5]}
            for n, name in enumerate(names)
        ],
    }
    return put(root / "images" / "labels.json", json.dumps(document))


def prepared(data: Dataset, **options: Any) -> tuple[Dataset, list[str]]:
    from edgeml.training.config import TrainConfig
    from edgeml.training.splits import prepare_splits

    notes = Notes()
    config = TrainConfig(near=False, cache=False, **options)
    return prepare_splits(data, config, notes).dataset, [n for n in notes.lines if "note: " in n]


@pytest.mark.train
@pytest.mark.parametrize("form", ["folders", "table", "columns", "coco"])
def test_one_label_per_image_becomes_a_group_in_every_format(tmp_path: Path, form: str) -> None:
    data = read_dataset(one_label_each(tmp_path, form))
    dataset, notes = prepared(data)
    assert [(g.name, g.labels, g.rule) for g in dataset.label_groups] == [
        ("class", ("cat", "cow", "dog"), "one")
    ]
    assert len(notes) == 1
    assert all(word in notes[0] for word in ("24", "'class'", "cat, cow, dog", "--groups none"))


@pytest.mark.train
@pytest.mark.parametrize(
    ("groups", "names"), [(None, []), ({"pet": ("cat", "cow", "dog")}, ["pet"])]
)
def test_what_the_user_states_about_groups_counts(
    tmp_path: Path, groups: Any, names: list[str]
) -> None:
    dataset, notes = prepared(read_dataset(one_label_each(tmp_path, "folders")), groups=groups)
    assert ([group.name for group in dataset.label_groups], notes) == (names, [])


@pytest.mark.train
def test_groups_none_also_removes_the_groups_of_the_data(tmp_path: Path) -> None:
    for seed in range(24):
        name = f"{('red', 'blue')[seed % 2]}_{('shirt', 'dress')[seed // 2 % 2]}"
        put(tmp_path / name / f"{seed}.png", encoded(seed))
    data = read_dataset(tmp_path)
    assert len(prepared(data)[0].label_groups) == 2
    assert prepared(data, groups=None)[0].label_groups == ()


@pytest.mark.train
def test_images_without_a_label_prevent_the_group(tmp_path: Path) -> None:
    table = one_label_each(tmp_path, "table", 48)
    for seed in range(50, 56):
        put(tmp_path / "images" / f"{seed}.png", encoded(seed))
    rows = "".join(f"images/{seed}.png,\n" for seed in range(50, 56))
    table.write_text(table.read_text() + rows)
    dataset, notes = prepared(read_dataset(table))
    assert dataset.label_groups == ()
    assert len(notes) == 1
    assert "6 images have none" in notes[0]
    assert "--groups" not in notes[0]


@pytest.mark.train
@pytest.mark.parametrize("line", ["groups: none", "groups: null", "groups:"])
def test_groups_none_may_be_in_a_settings_file(tmp_path: Path, line: str) -> None:
    from edgeml.training.config import TrainConfig, read_settings

    settings = read_settings(put(tmp_path / "s.yaml", line))
    assert TrainConfig(**settings).groups is None
    again = read_settings(put(tmp_path / "t.yaml", TrainConfig(**settings).to_yaml()))
    assert again["groups"] is None

"""A split spreads every label evenly, and no content is on two sides."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import GroupShuffleSplit, train_test_split

from edgeml.data import (
    Dataset,
    SplitPlan,
    read_dataset,
    resolve_split,
    split_dataset,
)
from edgeml.data.dataset import SIDES
from edgeml.data.split import (
    absent_labels,
    held_out,
    label_errors,
    split_digest,
    worst_label_errors,
)
from edgeml.errors import DataError, InputError
from edgeml.image.preprocess import Preprocess
from edgeml.spec.model_spec import ModelSpec
from edgeml.spec.provenance import Provenance
from tests.notes import Notes


def dataset_of(
    targets: list[list[int]] | np.ndarray,
    *,
    contents: list[int] | None = None,
    groups: list[str] | None = None,
) -> Dataset:
    """Return a data set without image files, whose hashes are known."""
    table = np.array(targets, np.int8)
    paths = tuple(Path(f"/nowhere/{row}.jpg") for row in range(len(table)))
    contents = contents or list(range(len(table)))
    return Dataset(
        root=Path("/nowhere"),
        paths=paths,
        labels=tuple(f"label{column}" for column in range(table.shape[1])),
        targets=table,
        groups=None if groups is None else tuple(groups),
        known_hashes={path: f"{digest:064x}" for path, digest in zip(paths, contents, strict=True)},
    )


def sizes(dataset: Dataset) -> dict[str, int]:
    return {side: len(dataset.part(side)) for side in SIDES}


def worst_error(targets: np.ndarray, sides: np.ndarray) -> float:
    """Return the largest relative error of a common label's prevalence on a side."""
    overall = targets.mean(axis=0)
    common = targets.sum(axis=0) >= 20
    errors = [
        np.abs(targets[sides == side].mean(axis=0) / overall - 1)[common].max()
        for side in np.unique(sides)
    ]
    return float(max(errors))


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    rows = draw(st.integers(4, 60))
    columns = draw(st.integers(1, 4))
    row = st.lists(st.integers(0, 1), min_size=columns, max_size=columns)
    targets = np.array(draw(st.lists(row, min_size=rows, max_size=rows)))
    targets[0], targets[1] = 0, 1
    # At least four contents and four groups that share no row with others.
    contents = draw(st.lists(st.integers(0, 40), min_size=rows - 4, max_size=rows - 4))
    names = draw(st.lists(st.sampled_from(["", *"abcdefgh"]), min_size=rows - 4, max_size=rows - 4))
    return dataset_of(
        targets, contents=[90, 91, 92, 93, *contents], groups=["", "w", "x", "y", *names]
    )


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(dataset=datasets(), seed=st.integers(0, 5))
def test_every_row_has_a_side_and_groups_stay_together(dataset: Dataset, seed: int) -> None:
    plan = SplitPlan(seed=seed, near=False)
    divided = split_dataset(dataset, plan)
    assert divided.split is not None
    assert sum(sizes(divided).values()) == len(dataset)
    assert all(sizes(divided).values())
    side_of: dict[str, str] = {}
    for content, group, side in zip(
        dataset.hashes(), dataset.groups or (), divided.split, strict=True
    ):
        assert side_of.setdefault(content, side) == side
        assert not group or side_of.setdefault(group, side) == side
    assert split_dataset(dataset, plan).split == divided.split


@pytest.mark.slow
@settings(deadline=None, max_examples=10)
@given(
    rows=st.integers(40, 400),
    columns=st.integers(2, 12),
    val=st.sampled_from([0.0, 0.1, 0.15, 0.3]),
    test=st.sampled_from([0.1, 0.2, 0.25]),
    seed=st.integers(0, 1000),
)
def test_shares_are_met_without_groups(
    rows: int, columns: int, val: float, test: float, seed: int
) -> None:
    targets = np.random.default_rng(seed).random((rows, columns)) < 0.3
    targets[:2] = [[0], [1]]
    divided = split_dataset(
        dataset_of(targets), SplitPlan(val=val, test=test, seed=seed, near=False)
    )
    for side, share in (("val", val), ("test", test), ("train", 1 - val - test)):
        assert abs(sizes(divided)[side] - share * rows) <= 2 + 0.02 * rows


def test_labels_are_spread_better_than_by_chance() -> None:
    targets = np.random.default_rng(0).random((600, 12)) < np.linspace(0.04, 0.5, 12)
    divided = split_dataset(dataset_of(targets), SplitPlan())
    random = [
        np.array(train_test_split(np.arange(600), test_size=0.15, random_state=seed)[1])
        for seed in range(10)
    ]
    chance = [worst_error(targets, np.isin(np.arange(600), test)) for test in random]
    assert worst_error(targets, np.array(divided.split)) < min(chance) / 2


def test_seeds_give_other_splits() -> None:
    dataset = dataset_of(np.eye(2)[np.arange(100) % 2])
    splits = {split_dataset(dataset, SplitPlan(seed=seed)).split for seed in range(5)}
    assert len(splits) == 5


def test_a_share_of_zero_gives_an_empty_side() -> None:
    dataset = dataset_of(np.eye(2)[np.arange(40) % 2])
    assert sizes(split_dataset(dataset, SplitPlan(val=0.25, test=0))) == {
        "train": 30, "val": 10, "test": 0
    }  # fmt: skip


def test_no_side_is_empty_with_one_large_group() -> None:
    dataset = dataset_of(np.eye(2)[np.arange(30) % 2], groups=["big"] * 28 + ["", ""])
    assert sorted(sizes(split_dataset(dataset, SplitPlan())).values()) == [1, 1, 28]


def test_data_that_cannot_be_split_are_refused() -> None:
    with pytest.raises(DataError, match=r"10 images in 2 groups.*train, val, test"):
        split_dataset(dataset_of([[0]] * 5 + [[1]] * 5, contents=[1] * 5 + [2] * 5), SplitPlan())
    with pytest.raises(DataError, match="nothing to tell apart"):
        split_dataset(dataset_of([[1, 1]] * 9), SplitPlan())


def test_an_existing_split_is_not_changed() -> None:
    dataset = replace(dataset_of([[0], [1], [1]]), split=("test", "train", "val"))
    assert split_dataset(dataset, SplitPlan()) is dataset


def test_an_existing_split_with_one_image_on_two_sides_is_refused() -> None:
    dataset = replace(
        dataset_of([[0], [1], [1]], contents=[5, 6, 6]), split=("test", "train", "test")
    )
    with pytest.raises(DataError, match=r"1\.jpg' \(train\) and '.*2\.jpg' \(test\) are the same"):
        split_dataset(dataset, SplitPlan())


def test_absent_labels_are_reported() -> None:
    targets = np.eye(2)[np.arange(20) % 2]
    targets = np.column_stack([targets, np.arange(20) == 7])
    notes = Notes()
    divided = split_dataset(dataset_of(targets), SplitPlan(val=0.2, test=0), progress=notes)
    absent = absent_labels(divided)
    assert set(absent) == {"train", "val"}
    assert sorted(absent.values()) == [(), ("label2",)]
    assert any("has no image with: label2" in line for line in notes.lines)


@pytest.mark.parametrize(
    "plan", [(-0.1, 0.1), (0.1, -0.1), (0.5, 0.5), (float("nan"), 0.1), (0.1, float("inf"))]
)
def test_impossible_shares_are_refused(plan: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="leave something for training"):
        SplitPlan(*plan)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(InputError, match="seed is -1"):
        SplitPlan(seed=-1)


def test_a_model_finds_its_split_again_on_its_own_data_only() -> None:
    dataset = dataset_of(np.eye(2)[np.arange(40) % 2])
    plan = SplitPlan(val=0.1, test=0.3, seed=4)
    spec = ModelSpec(
        labels=dataset.labels,
        thresholds=(0.5, 0.5),
        preprocess=Preprocess(size=(8, 8)),
        provenance=Provenance(split=plan, data_sha256=dataset.digest()),
    )
    resolved = resolve_split(dataset, spec)
    assert resolved is not None
    assert resolved.split == split_dataset(dataset, plan).split
    assert resolve_split(dataset.select(range(39)), spec) is None
    assert resolve_split(dataset, replace(spec, provenance=Provenance())) is None
    divided = split_dataset(dataset, SplitPlan())
    assert resolve_split(divided, replace(spec, provenance=Provenance())) is divided


def test_a_plan_that_gives_other_sides_than_it_did_is_refused() -> None:
    dataset = dataset_of(np.eye(2)[np.arange(40) % 2])
    plan = SplitPlan(seed=4)
    spec = ModelSpec(
        labels=dataset.labels,
        thresholds=(0.5, 0.5),
        preprocess=Preprocess(size=(8, 8)),
        provenance=Provenance(split=plan, data_sha256=dataset.digest()),
    )
    divided = split_dataset(dataset, plan)
    digest = split_digest(divided)
    same = replace(spec, provenance=replace(spec.provenance, split_sha256=digest))
    resolved = resolve_split(dataset, same)
    assert resolved is not None
    assert resolved.split == divided.split
    other = split_digest(split_dataset(dataset, replace(plan, seed=5)))
    with pytest.raises(DataError, match=r"gives other sides here.*split\.csv"):
        resolve_split(
            dataset, replace(spec, provenance=replace(spec.provenance, split_sha256=other))
        )


def test_near_duplicates_stay_on_one_side(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    paths = []
    for scene in range(30):
        frame = cv2.resize(rng.integers(0, 256, (5, 5, 3), np.uint8), (64, 64))
        for quality in (95, 60, 30):
            paths.append(tmp_path / f"{scene}-{quality}.jpg")
            cv2.imwrite(str(paths[-1]), frame, [cv2.IMWRITE_JPEG_QUALITY, quality])
    targets = np.eye(2, dtype=np.int8)[np.arange(90) // 3 % 2]
    dataset = Dataset(root=tmp_path, paths=tuple(paths), labels=("a", "b"), targets=targets)
    notes = Notes()
    near = split_dataset(dataset, SplitPlan(), progress=notes)
    assert near.split is not None
    sides = np.array(near.split).reshape(30, 3)
    assert (sides == sides[:, :1]).all()
    assert "split: 60 near duplicates of another image stay on its side" in notes.lines
    apart = np.array(split_dataset(dataset, SplitPlan(near=False)).split).reshape(30, 3)
    assert not (apart == apart[:, :1]).all()


def test_a_combination_is_held_out_in_addition_to_the_share_of_the_test() -> None:
    rng = np.random.default_rng(1)
    colours, garments = rng.integers(0, 4, 400), rng.integers(0, 5, 400)
    targets = np.hstack([np.eye(4)[colours], np.eye(5)[garments]])
    dataset = dataset_of(targets, groups=["", "a", "b", "c"] * 25 + [""] * 300)
    notes = Notes()
    plan = SplitPlan(hold_out=("label1", "label6"))
    divided = split_dataset(dataset, plan, progress=notes)
    expected = (colours == 1) & (garments == 2)
    np.testing.assert_array_equal(held_out(dataset, ("label1", "label6")), expected)
    sides, groups = np.array(divided.split), np.array(dataset.groups)
    tied = np.isin(groups, list(set(groups[expected]) - {""}))
    assert (sides[expected | tied] == "test").all()
    free = sides[~expected & ~tied]
    for side, share in (("train", 0.7), ("val", 0.15), ("test", 0.15)):
        assert abs((free == side).mean() - share) < 0.02
    assert any(f"{expected.sum()} images with label1 and label6" in line for line in notes.lines)
    rest = divided.select(~expected & ~tied)
    assert all(error < 0.15 for _, error in worst_label_errors(rest).values())


def test_impossible_combinations_are_refused() -> None:
    dataset = dataset_of(np.eye(3)[np.arange(30) % 3])
    with pytest.raises(DataError, match="labelled 'dress'"):
        split_dataset(dataset, SplitPlan(hold_out=("label0", "dress")))
    with pytest.raises(DataError, match="both 'label0' and 'label1'"):
        split_dataset(dataset, SplitPlan(hold_out=("label0", "label1")))
    with pytest.raises(InputError, match="two different labels"):
        SplitPlan(hold_out=("dress", "dress"))
    existing = replace(dataset_of([[1, 1], [1, 0], [0, 1]]), split=("train", "val", "test"))
    with pytest.raises(DataError, match="1 images with label0 and label1 are not in the test"):
        split_dataset(existing, SplitPlan(hold_out=("label0", "label1")))


def test_long_tailed_labels_are_spread_as_evenly_as_possible() -> None:
    # Shaped like a data set of posters, where a random split left a label 42.9 % off, and
    # iterative-stratification 0.1.9 4.7 %. On these targets, both it and edgeml are 5.3 % off:
    # 8 of 38 images for 7.6.
    rng = np.random.default_rng(0)
    positives = np.geomspace(20, 1599, 21).astype(int)
    targets = np.zeros((3200, 21), np.int8)
    for column, count in enumerate(positives):
        targets[rng.choice(3200, count, replace=False), column] = 1
    divided = split_dataset(dataset_of(targets), SplitPlan(val=0, test=0.2, near=False))
    have = divided.part("test").present.sum(axis=0)
    assert (np.abs(have - 0.2 * positives) < 1).all()
    _, worst = worst_label_errors(divided)["test"]
    tests = [train_test_split(np.arange(3200), test_size=0.2, random_state=s)[1] for s in range(10)]
    chance = [worst_error(targets, np.isin(np.arange(3200), test)) for test in tests]
    assert worst < 0.053
    assert worst < min(chance) / 3


def test_prevalence_errors_are_relative_and_ignore_unknown_targets() -> None:
    targets = [[1, 1], [0, -1], [1, -1], [0, 0], [1, -1], [1, -1]]
    dataset = replace(dataset_of(targets), split=("train",) * 4 + ("test",) * 2)
    dataset.targets[:] = targets
    errors = label_errors(dataset)
    # 4 of 6 have label0: 2 of 4 and 2 of 2. 1 of 2 have label1: 1 of 2, and nothing known.
    np.testing.assert_allclose(errors["train"], [0.25, 0.0])
    np.testing.assert_allclose(errors["test"], [0.5, np.nan])
    assert set(errors) == {"train", "test"}
    assert worst_label_errors(dataset) == {}


def test_known_targets_are_spread_like_positives() -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random((600, 6)) < 0.2).astype(np.int8)
    unknown = rng.random((600, 6)) < np.linspace(0, 0.95, 6)
    dataset = dataset_of(targets)
    dataset.targets[unknown] = -1
    divided = split_dataset(dataset, SplitPlan())
    for side, share in (("val", 0.15), ("test", 0.15)):
        known = divided.part(side).known.sum(axis=0) / dataset.known.sum(axis=0)
        np.testing.assert_allclose(known, share, atol=0.03)


@pytest.mark.slow
def test_photographers_of_the_real_photos_stay_on_one_side_and_labels_are_spread(
    clothing: Path,
) -> None:
    dataset = read_dataset(clothing / "labels.csv")
    divided = split_dataset(dataset, SplitPlan())
    senders = np.array(dataset.groups)
    sides = np.array(divided.split)
    assert max(len(set(sides[senders == sender])) for sender in set(senders)) == 1
    for side, share in (("train", 0.7), ("val", 0.15), ("test", 0.15)):
        assert abs(Counter(sides)[side] / len(dataset) - share) < 0.02

    def by_chance(seed: int) -> np.ndarray:
        rows = np.arange(len(dataset))
        first = GroupShuffleSplit(1, test_size=0.15, random_state=seed)
        rest, test = next(first.split(rows, groups=senders))
        second = GroupShuffleSplit(1, test_size=0.15 / 0.85, random_state=seed)
        _, val = next(second.split(rest, groups=senders[rest]))
        sides = np.full(len(dataset), "train")
        sides[test], sides[rest[val]] = "test", "val"
        return sides

    chance = [worst_error(dataset.targets, by_chance(seed)) for seed in range(10)]
    assert worst_error(dataset.targets, sides) < min(chance)

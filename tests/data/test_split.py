"""A split is fair to every label, and nothing is on two sides of it."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import GroupShuffleSplit, train_test_split

from edgeml.data import (
    Dataset,
    SplitPlan,
    absent_labels,
    known_split,
    read_dataset,
    split_dataset,
)
from edgeml.data.dataset import SIDES
from edgeml.errors import DataError, InputError, SpecError
from edgeml.preprocess import Preprocess
from edgeml.spec import ModelSpec


def made(
    targets: list[list[int]] | np.ndarray,
    *,
    contents: list[int] | None = None,
    groups: list[str] | None = None,
) -> Dataset:
    """Make a data set whose pictures are nowhere but in its table of digests."""
    table = np.array(targets, np.uint8)
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
    """Give the largest relative error of a label's prevalence on a side, of the common labels."""
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
    # Four contents and four groups at least, none of which the others join together.
    contents = draw(st.lists(st.integers(0, 40), min_size=rows - 4, max_size=rows - 4))
    names = draw(st.lists(st.sampled_from(["", *"abcdefgh"]), min_size=rows - 4, max_size=rows - 4))
    return made(targets, contents=[90, 91, 92, 93, *contents], groups=["", "w", "x", "y", *names])


@settings(deadline=None, max_examples=50)
@given(dataset=datasets(), seed=st.integers(0, 5))
def test_every_row_has_a_side_and_what_belongs_together_stays_together(
    dataset: Dataset, seed: int
) -> None:
    plan = SplitPlan(seed=seed)
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


@settings(deadline=None, max_examples=20)
@given(
    rows=st.integers(40, 400),
    columns=st.integers(2, 12),
    val=st.sampled_from([0.0, 0.1, 0.15, 0.3]),
    test=st.sampled_from([0.1, 0.2, 0.25]),
    seed=st.integers(0, 1000),
)
def test_shares_are_honoured_where_nothing_is_tied_together(
    rows: int, columns: int, val: float, test: float, seed: int
) -> None:
    targets = np.random.default_rng(seed).random((rows, columns)) < 0.3
    targets[:2] = [[0], [1]]
    divided = split_dataset(made(targets), SplitPlan(val=val, test=test, seed=seed))
    for side, share in (("val", val), ("test", test), ("train", 1 - val - test)):
        assert abs(sizes(divided)[side] - share * rows) <= 2 + 0.02 * rows


def test_labels_are_spread_better_than_by_chance() -> None:
    targets = np.random.default_rng(0).random((600, 12)) < np.linspace(0.04, 0.5, 12)
    divided = split_dataset(made(targets), SplitPlan())
    random = [
        np.array(train_test_split(np.arange(600), test_size=0.15, random_state=seed)[1])
        for seed in range(10)
    ]
    chance = [worst_error(targets, np.isin(np.arange(600), test)) for test in random]
    assert worst_error(targets, np.array(divided.split)) < min(chance) / 2


def test_seeds_give_other_splits() -> None:
    dataset = made(np.eye(2)[np.arange(100) % 2])
    splits = {split_dataset(dataset, SplitPlan(seed=seed)).split for seed in range(5)}
    assert len(splits) == 5


def test_a_share_of_zero_gives_an_empty_side() -> None:
    dataset = made(np.eye(2)[np.arange(40) % 2])
    assert sizes(split_dataset(dataset, SplitPlan(val=0.25, test=0))) == {
        "train": 30, "val": 10, "test": 0
    }  # fmt: skip


def test_no_side_stays_empty_beside_one_large_group() -> None:
    dataset = made(np.eye(2)[np.arange(30) % 2], groups=["big"] * 28 + ["", ""])
    assert sorted(sizes(split_dataset(dataset, SplitPlan())).values()) == [1, 1, 28]


def test_what_cannot_be_divided_is_refused() -> None:
    with pytest.raises(DataError, match=r"10 pictures in 2 groups.*train, val, test"):
        split_dataset(made([[0]] * 5 + [[1]] * 5, contents=[1] * 5 + [2] * 5), SplitPlan())
    with pytest.raises(DataError, match="nothing to tell apart"):
        split_dataset(made([[1, 1]] * 9), SplitPlan())


def test_a_given_split_is_kept() -> None:
    dataset = replace(made([[0], [1], [1]]), split=("test", "train", "train"))
    assert split_dataset(dataset, SplitPlan()) is dataset


def test_a_given_split_with_one_picture_on_two_sides_is_refused() -> None:
    dataset = replace(made([[0], [1], [1]], contents=[5, 6, 6]), split=("test", "train", "test"))
    with pytest.raises(DataError, match=r"1\.jpg' \(train\) and '.*2\.jpg' \(test\) are the same"):
        split_dataset(dataset, SplitPlan())


def test_absent_labels_are_found_and_told(caplog: pytest.LogCaptureFixture) -> None:
    targets = np.eye(2)[np.arange(20) % 2]
    targets = np.column_stack([targets, np.arange(20) == 7])
    with caplog.at_level(logging.WARNING):
        divided = split_dataset(made(targets), SplitPlan(val=0.2, test=0))
    absent = absent_labels(divided)
    assert set(absent) == {"train", "val"}
    assert sorted(absent.values()) == [(), ("label2",)]
    assert "label2" in caplog.text


@pytest.mark.parametrize(
    "plan", [(-0.1, 0.1), (0.1, -0.1), (0.5, 0.5), (float("nan"), 0.1), (0.1, float("inf"))]
)
def test_impossible_shares_are_refused(plan: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="leave something for training"):
        SplitPlan(*plan)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(InputError, match="seed is -1"):
        SplitPlan(seed=-1)


@given(
    val=st.floats(0, 0.49), test=st.floats(0, 0.49), seed=st.integers(0, 2**63)
)  # fmt: skip
def test_a_plan_survives_its_text(val: float, test: float, seed: int) -> None:
    plan = SplitPlan(val=val, test=test, seed=seed)
    assert SplitPlan.from_text(plan.to_text()) == plan


def test_the_default_plan_reads_as_documented() -> None:
    assert SplitPlan().to_text() == "val=0.15 test=0.15 seed=0"


@pytest.mark.parametrize("text", ["", "val=0.1", "val=x test=0.1 seed=0", "val=1 test=1 seed=0"])
def test_text_that_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"val=0\.15 test=0\.15 seed=0"):
        SplitPlan.from_text(text)


def test_a_model_finds_its_split_again_on_its_own_data_only() -> None:
    dataset = made(np.eye(2)[np.arange(40) % 2])
    plan = SplitPlan(val=0.1, test=0.3, seed=4)
    spec = ModelSpec(
        labels=dataset.labels,
        thresholds=(0.5, 0.5),
        preprocess=Preprocess(size=(8, 8)),
        origin={"split": plan.to_text(), "data_sha256": dataset.digest()},
    )
    found = known_split(dataset, spec)
    assert found is not None
    assert found.split == split_dataset(dataset, plan).split
    assert known_split(dataset.select(range(39)), spec) is None
    assert known_split(dataset, replace(spec, origin={})) is None
    divided = split_dataset(dataset, SplitPlan())
    assert known_split(divided, replace(spec, origin={})) is divided


def test_senders_of_the_real_photos_stay_on_one_side_and_labels_are_spread(clothing: Path) -> None:
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

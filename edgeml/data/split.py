"""Divide a data set into train, val and test, so that the numbers can be trusted."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgeml.data.dataset import SIDES, Dataset, Side
from edgeml.errors import DataError, InputError, SpecError
from edgeml.spec import ModelSpec

logger = logging.getLogger(__name__)

Counts = NDArray[np.float64]

# How much the size of a side counts beside one label.
_WEIGHT_OF_SIZE = 2.0


@dataclass(frozen=True)
class SplitPlan:
    """How a data set is divided; the same plan on the same data gives the same sides.

    Attributes:
        val: Share of the pictures for choosing weights and thresholds.
        test: Share of the pictures for the numbers that are reported.
        seed: 0 or more.
    """

    val: float = 0.15
    test: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.val >= 0 and self.test >= 0 and self.val + self.test < 1):
            raise InputError(
                f"The shares val={self.val} and test={self.test} must be 0 or more, "
                "and leave something for training."
            )
        if self.seed < 0:
            raise InputError(f"The seed is {self.seed}; it must be 0 or more.")

    def to_text(self) -> str:
        """Write the plan as it stands in a model's origin: `val=0.15 test=0.15 seed=0`."""
        return f"val={float(self.val)} test={float(self.test)} seed={int(self.seed)}"

    @classmethod
    def from_text(cls, text: str) -> SplitPlan:
        """Read what `to_text` wrote.

        Raises:
            SpecError: It is something else.
        """
        match = re.fullmatch(r"val=(\S+) test=(\S+) seed=(\d+)", text)
        try:
            if match:
                return cls(float(match[1]), float(match[2]), int(match[3]))
        except ValueError:
            pass
        raise SpecError(f"The split {text!r} is not of the form 'val=0.15 test=0.15 seed=0'.")

    def shares(self) -> dict[Side, float]:
        """Give the sides that get anything, and how much."""
        shares: dict[Side, float] = {
            "train": 1 - self.val - self.test, "val": self.val, "test": self.test
        }  # fmt: skip
        return {side: share for side, share in shares.items() if share > 0}


def split_dataset(dataset: Dataset, plan: SplitPlan) -> Dataset:
    """Divide a data set with every label spread evenly; a split that it has is kept.

    Rows with the same bytes or the same group stay together. The aim is that of iterative
    stratification (Sechidis, Tsoumakas and Vlahavas, 2011), which has no groups: every side gets
    its share of the positives of every label. A descent on it takes the place of their greedy
    pass, because a large group that was placed early spoils what comes later.

    Raises:
        DataError: Too few groups, nothing to tell apart, or a given split has the same bytes on
            two sides.
    """
    if dataset.split is not None:
        _check_given_split(dataset)
        return dataset
    if not (dataset.targets != dataset.targets[:1]).any():
        raise DataError(f"All {len(dataset)} pictures have the same labels: nothing to tell apart.")
    shares = plan.shares()
    unit_of = _units(dataset)
    units = int(unit_of.max()) + 1
    if units < len(shares):
        raise DataError(
            f"{len(dataset)} pictures in {units} groups, duplicates together, cannot be divided "
            f"into {', '.join(shares)}: give more pictures, or a share of 0."
        )
    counts = np.zeros((units, len(dataset.labels) + 1))
    np.add.at(counts, unit_of, np.column_stack([dataset.present, np.ones(len(dataset))]))
    sides = _divide(counts, np.array(list(shares.values())), np.random.default_rng(plan.seed))
    names = list(shares)
    divided = replace(dataset, split=tuple(names[side] for side in sides[unit_of]))
    for side, labels in absent_labels(divided).items():
        if labels:
            logger.warning("%s has no picture with: %s", side, ", ".join(labels))
    return divided


def known_split(dataset: Dataset, spec: ModelSpec) -> Dataset | None:
    """Divide a data set as it was for a model, or as it says itself; None if neither is known."""
    if dataset.split is not None:
        return dataset
    plan = spec.origin.get("split")
    if plan is None or spec.origin.get("data_sha256") != dataset.digest():
        return None
    return split_dataset(dataset, SplitPlan.from_text(plan))


def absent_labels(dataset: Dataset) -> dict[Side, tuple[str, ...]]:
    """Find the labels that no picture of a side has, for each side that has pictures.

    Raises:
        DataError: The data set is not divided.
    """
    parts = {side: dataset.part(side) for side in SIDES}
    return {
        side: tuple(dataset.labels[column] for column in np.flatnonzero(~part.present.any(axis=0)))
        for side, part in parts.items()
        if len(part)
    }


def _units(dataset: Dataset) -> NDArray[np.intp]:
    """Number what must stay together: (N,), the same for rows that share bytes or a group."""
    parent = list(range(len(dataset)))

    def find(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    first: dict[tuple[str, str], int] = {}
    groups = dataset.groups or ("",) * len(dataset)
    for row, (content, group) in enumerate(zip(dataset.hashes(), groups, strict=True)):
        for key in [("bytes", content)] + [("group", group)] * bool(group):
            parent[find(row)] = find(first.setdefault(key, row))
    roots = [find(row) for row in range(len(dataset))]
    return np.unique(roots, return_inverse=True)[1]


def _divide(counts: Counts, shares: Counts, rng: np.random.Generator) -> NDArray[np.intp]:
    """Give each unit a side: (U,).

    What is made small is the sum over sides and columns of (have - want)^2 / want: relative
    errors, so that a rare label weighs as much as a common one.

    Args:
        counts: (U, L + 1) positives of each label, and in the last column the pictures.
        shares: (S,) of 1.
        rng: Decides between equals.
    """
    totals = counts.sum(axis=0)
    columns = totals > 0
    counts, totals = counts[:, columns], totals[columns]
    want = shares[:, None] * totals
    weight = 1 / want
    weight[:, -1] *= _WEIGHT_OF_SIZE
    # Large groups leave a single pass in a corner; there are few of them, so many tries are cheap.
    tries = max(1, min(20, 5000 // len(counts)))
    found = [_descend(counts, want, weight, rng.permutation(len(counts))) for _ in range(tries)]
    sides = min(found, key=lambda result: result[0])[1]
    _fill_empty(sides, counts[:, -1], len(shares))
    return sides


def _descend(
    counts: Counts, want: Counts, weight: Counts, order: NDArray[np.intp]
) -> tuple[float, NDArray[np.intp]]:
    """Place the units one by one, then move each while that helps; give the error and sides."""
    have = np.zeros_like(want)
    sides = np.full(len(counts), -1)
    for _ in range(50):
        before = sides.copy()
        for unit in order:
            count = counts[unit]
            if sides[unit] >= 0:
                have[sides[unit]] -= count
            # What the error grows by on each side that the unit could go to. Rounded, or the last
            # bit of a sum could decide between equals, and it differs between processors.
            growth = np.round((weight * count * (2 * (have - want) + count)).sum(axis=1), 6)
            if sides[unit] < 0 or growth.min() < growth[sides[unit]]:
                sides[unit] = np.argmin(growth)
            have[sides[unit]] += count
        if (sides == before).all():
            break
    return round(float((weight * (have - want) ** 2).sum()), 6), sides


def _fill_empty(sides: NDArray[np.intp], sizes: Counts, number: int) -> None:
    """Give a side that got nothing the smallest unit that another can spare, in place."""
    for side in range(number):
        if not (sides == side).any():
            spare = np.bincount(sides, minlength=number)[sides] > 1
            sides[np.argmin(np.where(spare, sizes, np.inf))] = side


def _check_given_split(dataset: Dataset) -> None:
    assert dataset.split is not None
    first: dict[str, int] = {}
    for row, content in enumerate(dataset.hashes()):
        other = first.setdefault(content, row)
        if dataset.split[other] != dataset.split[row]:
            raise DataError(
                f"{str(dataset.paths[other])!r} ({dataset.split[other]}) and "
                f"{str(dataset.paths[row])!r} ({dataset.split[row]}) are the same picture: give "
                "both the same split, or leave the column away."
            )

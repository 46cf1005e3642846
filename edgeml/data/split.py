"""Divide a data set into train, val and test, so that the numbers can be trusted."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeml.data.dataset import SIDES, Dataset, Side
from edgeml.data.duplicates import near_duplicates
from edgeml.data.thumbnails import thumbnails
from edgeml.errors import DataError, InputError, SpecError
from edgeml.progress import SILENT, Progress
from edgeml.spec.model_spec import ModelSpec

Counts = NDArray[np.float64]

# How much the size of a side counts beside one label.
_WEIGHT_OF_SIZE = 2.0


_EXAMPLE = "val=0.15 test=0.15 seed=0 near=1"

# Of a rarer label, one picture more or less is a large error that nobody can help.
_COMMON = 20


@dataclass(frozen=True)
class SplitPlan:
    """How a data set is divided; the same plan on the same data gives the same sides.

    Attributes:
        val: Share of the pictures for choosing weights and thresholds.
        test: Share of the pictures for the numbers that are reported.
        seed: 0 or more.
        near: Keep near duplicates together, too, and not only the same bytes.
        hold_out: Two labels, or none; pictures that have both are for the test only, beside its
            share of the others. So one sees what a model makes of what it never met.
    """

    val: float = 0.15
    test: float = 0.15
    seed: int = 0
    near: bool = True
    hold_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (self.val >= 0 and self.test >= 0 and self.val + self.test < 1):
            raise InputError(
                f"The shares val={self.val} and test={self.test} must be 0 or more, "
                "and leave something for training."
            )
        if self.seed < 0:
            raise InputError(f"The seed is {self.seed}; it must be 0 or more.")
        if self.hold_out and (len(self.hold_out), len(set(self.hold_out))) != (2, 2):
            raise InputError(f"To hold out {self.hold_out}: two different labels are needed.")

    def to_text(self) -> str:
        """Write the plan as it stands in a model's origin: `val=0.15 test=0.15 seed=0 near=1`."""
        text = f"val={float(self.val)} test={float(self.test)} seed={int(self.seed)}"
        if self.near:
            text += " near=1"
        if self.hold_out:
            text += f" hold_out={json.dumps(self.hold_out, ensure_ascii=False)}"
        return text

    @classmethod
    def from_text(cls, text: str) -> SplitPlan:
        """Read what `to_text` wrote; a plan from before there was `near` has none.

        Raises:
            SpecError: It is something else.
        """
        match = re.fullmatch(
            r"val=(\S+) test=(\S+) seed=(\d+)( near=1)?(?: hold_out=(\[.*\]))?", text
        )
        try:
            if match:
                val, test, seed, near, pair = match.groups()
                return cls(float(val), float(test), int(seed), bool(near), _pair(pair))
        except ValueError:
            pass
        raise SpecError(f"The split {text!r} is not of the form {_EXAMPLE!r}.")

    def shares(self) -> dict[Side, float]:
        """Give the sides that get anything, and how much."""
        shares: dict[Side, float] = {
            "train": 1 - self.val - self.test, "val": self.val, "test": self.test
        }  # fmt: skip
        return {side: share for side, share in shares.items() if share > 0}


def split_dataset(
    dataset: Dataset,
    plan: SplitPlan,
    *,
    threads: int | None = None,
    cache: Path | None = None,
    progress: Progress = SILENT,
) -> Dataset:
    """Divide a data set with every label spread evenly; a split that it has is kept.

    Rows with the same bytes or the same group stay together, and near duplicates if the plan says
    so. The aim is that of iterative stratification (Sechidis, Tsoumakas and Vlahavas, 2011), which
    has no groups: every side gets its share of the positives of every label, and of the pictures
    of which a label is known. A descent on it takes the place of their greedy pass, because a
    large group that was placed early spoils what comes later.

    Args:
        dataset: What can be read of it; `edgeml.data.thumbnails.readable` looks.
        plan: How to divide it.
        threads: For thumbnails, by which near duplicates are found.
        cache: A folder that keeps thumbnails.
        progress: Told what is kept together, and how evenly labels are spread.

    Raises:
        DataError: Too few groups, nothing to tell apart, or a given split has the same bytes on
            two sides, or is not one that holds out what the plan does.
    """
    if dataset.split is not None:
        _check_given_split(dataset, plan)
        return dataset
    if not (dataset.targets != dataset.targets[:1]).any():
        raise DataError(f"All {len(dataset)} pictures have the same labels: nothing to tell apart.")
    near = None
    if plan.near:
        small, _ = thumbnails(dataset, threads=threads, cache=cache, progress=progress)
        near = near_duplicates(small)
        alike = len(dataset) - len(np.unique(near))
        progress.note(f"split: {alike} near duplicates of another picture stay on its side")
    unit_of = _units(dataset, near)
    held = np.zeros(int(unit_of.max()) + 1, bool)
    if plan.hold_out:
        held[unit_of[held_out(dataset, plan.hold_out)]] = True
    divided = replace(dataset, split=_sides(dataset, plan, unit_of, held))
    if plan.hold_out:
        count = int(held_out(dataset, plan.hold_out).sum())
        progress.note(
            f"split: {count} pictures with {' and '.join(plan.hold_out)} are held out for the "
            f"test; {int(held[unit_of].sum()) - count} more of their groups go with them"
        )
    _tell(divided, plan, progress)
    return divided


def held_out(dataset: Dataset, pair: tuple[str, ...]) -> NDArray[np.bool_]:
    """Say which pictures are known to have both labels of a pair: (N,).

    Raises:
        DataError: There is no such label, or no such picture.
    """
    for label in pair:
        if label not in dataset.labels:
            raise DataError(
                f"No picture is labelled {label!r}, so it cannot be held out. There are: "
                f"{', '.join(dataset.labels)}."
            )
    rows = dataset.present[:, [dataset.labels.index(label) for label in pair]].all(axis=1)
    if not rows.any():
        raise DataError(
            f"No picture has both {' and '.join(map(repr, pair))}: nothing to hold out."
        )
    return np.asarray(rows)


def known_split(
    dataset: Dataset,
    spec: ModelSpec,
    *,
    threads: int | None = None,
    cache: Path | None = None,
    progress: Progress = SILENT,
) -> Dataset | None:
    """Divide a data set as it was for a model, or as it says itself; None if neither is known.

    Raises:
        DataError: The plan gives other sides here than where the model was trained.
    """
    if dataset.split is not None:
        return dataset
    plan = spec.origin.get("split")
    if plan is None or spec.origin.get("data_sha256") != dataset.digest():
        return None
    divided = split_dataset(
        dataset, SplitPlan.from_text(plan), threads=threads, cache=cache, progress=progress
    )
    if spec.origin.get("split_sha256", split_digest(divided)) != split_digest(divided):
        raise DataError(
            f"The split {plan!r} gives other sides here than where the model was trained: another "
            "version decodes the pictures or compares them. Use the split.csv of the run."
        )
    return divided


def split_digest(dataset: Dataset) -> str:
    """Give one SHA-256 for which contents are on which side; their order does not count.

    Raises:
        DataError: The data set is not divided.
    """
    if dataset.split is None:
        raise DataError("The data are not divided yet.")
    rows = sorted(
        f"{content} {side}" for content, side in zip(dataset.hashes(), dataset.split, strict=True)
    )
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def label_errors(dataset: Dataset) -> dict[Side, NDArray[np.float64]]:
    """Compare how common each label is on a side with how common it is at all.

    Returns:
        For each side that has pictures, |prevalence on the side / prevalence - 1| of each label:
        (L,), where prevalence is the share of positives of what is known. NaN where nothing is
        known, or nothing positive.

    Raises:
        DataError: The data set is not divided.
    """
    whole = _prevalence(dataset)
    parts = {side: dataset.part(side) for side in SIDES}
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            side: np.where(whole > 0, np.abs(_prevalence(part) / whole - 1), np.nan)
            for side, part in parts.items()
            if len(part)
        }


def worst_label_errors(dataset: Dataset) -> dict[Side, tuple[str, float]]:
    """Give the label that is spread worst on each side, and its error as `label_errors` says.

    Labels with fewer than 20 positives are left out: one picture of them is a large error.

    Raises:
        DataError: The data set is not divided.
    """
    common = dataset.present.sum(axis=0) >= _COMMON
    found: dict[Side, tuple[str, float]] = {}
    for side, errors in label_errors(dataset).items():
        errors = np.where(common, errors, np.nan)
        if np.isfinite(errors).any():
            worst = int(np.nanargmax(errors))
            found[side] = dataset.labels[worst], float(errors[worst])
    return found


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


def _pair(text: str | None) -> tuple[str, ...]:
    """Read two labels from JSON; raises ValueError if they are something else."""
    if text is None:
        return ()
    first, second = json.loads(text)
    return str(first), str(second)


def _prevalence(dataset: Dataset) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return np.asarray(dataset.present.sum(axis=0) / dataset.known.sum(axis=0))


def _sides(
    dataset: Dataset, plan: SplitPlan, unit_of: NDArray[np.intp], held: NDArray[np.bool_]
) -> tuple[Side, ...]:
    """Give every row its side; units that are held out go to the test, the others by share."""
    shares = plan.shares()
    units = int((~held).sum())
    if units < len(shares):
        raise DataError(
            f"{len(dataset)} pictures in {units} groups, duplicates together, cannot be divided "
            f"into {', '.join(shares)}: give more pictures, or a share of 0."
        )
    partly = ~dataset.known.all(axis=0)
    columns = [dataset.present, dataset.known[:, partly], np.ones(len(dataset))]
    table = np.column_stack(columns).astype(float)
    counts = np.zeros((len(held), table.shape[1]))
    np.add.at(counts, unit_of, table)
    sides = np.full(len(held), SIDES.index("test"))
    free = _divide(counts[~held], np.array(list(shares.values())), np.random.default_rng(plan.seed))
    sides[~held] = np.array([SIDES.index(side) for side in shares])[free]
    return tuple(SIDES[side] for side in sides[unit_of])


def _tell(divided: Dataset, plan: SplitPlan, progress: Progress) -> None:
    """Say what is missing where, and how evenly labels are spread, but for what is held out."""
    for side, labels in absent_labels(divided).items():
        if labels:
            progress.note(f"warning: {side} has no picture with: {', '.join(labels)}")
    rest = divided
    if plan.hold_out:
        rest = divided.select(~held_out(divided, plan.hold_out))
    worst = [
        f"{side} {100 * error:.1f} % ({label})"
        for side, (label, error) in worst_label_errors(rest).items()
    ]
    if worst:
        progress.note(f"split: worst relative error of a label's prevalence: {', '.join(worst)}")


def _units(dataset: Dataset, near: NDArray[np.intp] | None) -> NDArray[np.intp]:
    """Number what must stay together: (N,), the same for rows that share bytes or a group.

    Args:
        dataset: Its digests and groups are looked at.
        near: (N,) the same for near duplicates, too.
    """
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
        if near is not None:
            parent[find(row)] = find(int(near[row]))
    roots = [find(row) for row in range(len(dataset))]
    return np.unique(roots, return_inverse=True)[1]


def _divide(counts: Counts, shares: Counts, rng: np.random.Generator) -> NDArray[np.intp]:
    """Give each unit a side: (U,).

    What is made small is the sum over sides and columns of (have - want)^2 / want: relative
    errors, so that a rare label weighs as much as a common one.

    Args:
        counts: (U, C) positives of each label, and in the last column the pictures.
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


def _check_given_split(dataset: Dataset, plan: SplitPlan) -> None:
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
    if plan.hold_out:
        outside = held_out(dataset, plan.hold_out) & (np.array(dataset.split) != "test")
        if outside.any():
            raise DataError(
                f"{outside.sum()} pictures with {' and '.join(plan.hold_out)} are not in the test "
                "of the split that the data have: leave the split away, or do not hold them out."
            )

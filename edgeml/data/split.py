"""The split of a data set into train, val and test, without leaks and with labels spread evenly."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeml.data.dataset import SIDES, Dataset, Side
from edgeml.data.duplicates import near_duplicates, root_of, roots_of
from edgeml.data.screen import thumbnails
from edgeml.errors import DataError
from edgeml.progress import SILENT, Progress
from edgeml.spec.model_spec import ModelSpec, some_names
from edgeml.spec.provenance import SplitPlan

Counts = NDArray[np.float64]

# How much the size of a side counts, compared with one label.
_WEIGHT_OF_SIZE = 2.0

# For a rarer label, one image more or less is a large error that no split can avoid.
_COMMON = 20


def plan_shares(plan: SplitPlan) -> dict[Side, float]:
    """Return the sides that get any images, and their shares."""
    shares = zip(SIDES, (1 - plan.val - plan.test, plan.val, plan.test), strict=True)
    return {side: share for side, share in shares if share > 0}


def split_dataset(
    dataset: Dataset,
    plan: SplitPlan,
    *,
    threads: int | None = None,
    cache: Path | None = None,
    progress: Progress = SILENT,
) -> Dataset:
    """Split a data set with every label spread evenly; an existing split is only checked.

    If an existing split has no validation part, the plan's share of its training part becomes one.

    Rows with the same bytes or the same group stay together, and so do near duplicates if the plan
    requires it. The aim is that of iterative stratification (Sechidis, Tsoumakas and Vlahavas,
    2011), which has no groups: every side gets its share of the positives of every label, and of
    the images for which a label is known. A descent replaces their greedy pass, because a large
    group that is placed early spoils what comes later.

    Args:
        dataset: All of its images can be read: see `edgeml.data.screen.without_unreadable`.
        plan: How to split it.
        threads: For the thumbnails that near duplicates are found by.
        cache: A folder that stores thumbnails.
        progress: Gets notes on what stays together, and how evenly labels are spread.

    Returns:
        The data set with its split, and with all hashes known.

    Raises:
        DataError: There are too few groups, all images have the same labels, or the existing
            split has the same bytes on two sides or does not hold out what the plan does.
    """
    if dataset.split is not None:
        dataset = dataset.with_hashes()
        _check_existing_split(dataset, plan)
        if plan.val and not len(dataset.part("val")) and len(dataset.part("train")):
            return _with_validation(dataset, plan, threads, cache, progress)
        return dataset
    if not (dataset.targets != dataset.targets[:1]).any():
        raise DataError(f"All {len(dataset)} images have the same labels: nothing to tell apart.")
    dataset = dataset.with_hashes()
    near = None
    if plan.near:
        small, _ = thumbnails(dataset, threads=threads, cache=cache, progress=progress)
        near = near_duplicates(small)
        alike = len(dataset) - len(np.unique(near))
        progress.note(f"split: {alike} near duplicates of another image stay on its side")
    unit_of = _units(dataset, near)
    apart = held_out(dataset, plan.hold_out) if plan.hold_out else np.zeros(len(dataset), bool)
    held = np.zeros(int(unit_of.max()) + 1, bool)
    held[unit_of[apart]] = True
    divided = replace(dataset, split=_sides(dataset, plan, unit_of, held))
    if plan.hold_out:
        count = int(apart.sum())
        progress.note(
            f"split: {count} images with {' and '.join(plan.hold_out)} are held out for the "
            f"test; {int(held[unit_of].sum()) - count} more of their groups go with them"
        )
    _report_balance(divided, divided.select(~apart), progress)
    return divided


def _with_validation(
    dataset: Dataset,
    plan: SplitPlan,
    threads: int | None,
    cache: Path | None,
    progress: Progress,
) -> Dataset:
    """Move the plan's share of the training part to a validation part; the test part stays."""
    train = replace(dataset.part("train"), split=None)
    only_val = replace(plan, test=0.0, hold_out=())
    divided = split_dataset(train, only_val, threads=threads, cache=cache, progress=progress)
    sides = np.array(dataset.split, dtype=object)
    sides[sides == "train"] = divided.split
    progress.note(
        f"split: the data have no validation part: {len(divided.part('val'))} of {len(train)} "
        "training images become it"
    )
    return replace(dataset, split=tuple(sides))


def held_out(dataset: Dataset, pair: tuple[str, ...]) -> NDArray[np.bool_]:
    """Return which images, one or more, are known to have both labels of a pair: (N,)."""
    for label in pair:
        if label not in dataset.labels:
            raise DataError(
                f"No image is labelled {label!r}, so it cannot be held out. The labels are: "
                f"{some_names(dataset.labels)}."
            )
    rows = dataset.present[:, [dataset.labels.index(label) for label in pair]].all(axis=1)
    if not rows.any():
        raise DataError(f"No image has both {' and '.join(map(repr, pair))}: nothing to hold out.")
    return np.asarray(rows)


def resolve_split(
    dataset: Dataset,
    spec: ModelSpec,
    *,
    threads: int | None = None,
    cache: Path | None = None,
    progress: Progress = SILENT,
) -> Dataset | None:
    """Split a data set as it is split already, or as for a model; return None if neither is known.

    Raises:
        DataError: The plan gives other sides here than where the model was trained.
    """
    if dataset.split is not None:
        return dataset
    trained = spec.provenance
    if trained.split is None:
        return None
    dataset = dataset.with_hashes()
    if trained.data_sha256 != dataset.digest():
        return None
    divided = split_dataset(dataset, trained.split, threads=threads, cache=cache, progress=progress)
    if trained.split_sha256 not in (None, split_digest(divided)):
        raise DataError(
            f"The split ({trained.split}) gives other sides here than where the model was trained: "
            "another version decodes the images or compares them. Use the split.csv of the run."
        )
    return divided


def split_digest(dataset: Dataset) -> str:
    """Return one SHA-256 of which contents are on which side; their order does not count."""
    if dataset.split is None:
        raise DataError("The data are not split yet.")
    return sides_digest(zip(dataset.hashes(), dataset.split, strict=True))


def sides_digest(sides: Iterable[tuple[str, Side]]) -> str:
    """Return one SHA-256 of the SHA-256 of images and their sides."""
    rows = sorted(f"{content} {side}" for content, side in sides)
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def label_errors(dataset: Dataset) -> dict[Side, NDArray[np.float64]]:
    """Compare the prevalence of each label on a side with its prevalence in all data.

    Returns:
        For each side that has images, |prevalence on the side / prevalence - 1| of each label:
        (L,). Prevalence is the share of positives among known targets. NaN where nothing is
        known, or nothing is positive.
    """
    overall = _prevalence(dataset)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            side: np.where(overall > 0, np.abs(_prevalence(part) / overall - 1), np.nan)
            for side, part in _parts(dataset).items()
        }


def worst_label_errors(dataset: Dataset) -> dict[Side, tuple[str, float]]:
    """Return the label that is spread worst on each side, and its error as in `label_errors`.

    Labels with fewer than 20 positives are not considered: one image is a large error for them.
    """
    common = dataset.present.sum(axis=0) >= _COMMON
    worst: dict[Side, tuple[str, float]] = {}
    for side, errors in label_errors(dataset).items():
        errors = np.where(common, errors, np.nan)
        if np.isfinite(errors).any():
            column = int(np.nanargmax(errors))
            worst[side] = dataset.labels[column], float(errors[column])
    return worst


def absent_labels(dataset: Dataset) -> dict[Side, tuple[str, ...]]:
    """Return the labels that no image of a side has, for each side that has images."""
    return {
        side: tuple(dataset.labels[column] for column in np.flatnonzero(~part.present.any(axis=0)))
        for side, part in _parts(dataset).items()
    }


def _report_balance(dataset: Dataset, evenly: Dataset, progress: Progress) -> None:
    """Note which labels a side lacks, and how evenly the others are spread over rows `evenly`."""
    for side, labels in absent_labels(dataset).items():
        if labels:
            progress.note(f"warning: {side} has no image with: {some_names(labels)}")
    worst = [
        f"{side} {100 * error:.1f} % ({label})"
        for side, (label, error) in worst_label_errors(evenly).items()
    ]
    if worst:
        progress.note(f"split: worst relative error of a label's prevalence: {', '.join(worst)}")


def _parts(dataset: Dataset) -> dict[Side, Dataset]:
    return {side: part for side in SIDES if len(part := dataset.part(side))}


def _prevalence(dataset: Dataset) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return np.asarray(dataset.present.sum(axis=0) / dataset.known.sum(axis=0))


def _sides(
    dataset: Dataset, plan: SplitPlan, unit_of: NDArray[np.intp], held: NDArray[np.bool_]
) -> tuple[Side, ...]:
    """Return the side of every row; held-out units go to the test, the others by share."""
    shares = plan_shares(plan)
    units = int((~held).sum())
    if units < len(shares):
        raise DataError(
            f"{len(dataset)} images in {units} groups, duplicates together, cannot be split "
            f"into {', '.join(shares)}: add images, or set a share to 0."
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


def _units(dataset: Dataset, near: NDArray[np.intp] | None) -> NDArray[np.intp]:
    """Number the units that must stay together: (N,), equal for rows that share bytes or a group.

    `near`, if any, is (N,) and equal for near duplicates, which then stay together too.
    """
    parents = np.arange(len(dataset))
    first: dict[tuple[str, str], int] = {}
    groups = dataset.groups or ("",) * len(dataset)
    for row, (content, group) in enumerate(zip(dataset.hashes(), groups, strict=True)):
        for key in [("bytes", content)] + [("group", group)] * bool(group):
            parents[root_of(parents, row)] = root_of(parents, first.setdefault(key, row))
        if near is not None:
            parents[root_of(parents, row)] = root_of(parents, int(near[row]))
    return np.unique(roots_of(parents), return_inverse=True)[1]


def _divide(counts: Counts, shares: Counts, rng: np.random.Generator) -> NDArray[np.intp]:
    """Assign a side to each unit: (U,).

    This minimises the sum over sides and columns of (have - want)^2 / want: relative errors, so
    that a rare label weighs as much as a common one. `counts` are (U, C) positives of each label,
    and in the last column the number of images; the sum of `shares` (S,) is 1.
    """
    totals = counts.sum(axis=0)
    columns = totals > 0
    counts, totals = counts[:, columns], totals[columns]
    want = shares[:, None] * totals
    weight = 1 / want
    weight[:, -1] *= _WEIGHT_OF_SIZE
    # With large groups, one pass gets stuck; there are few of them, so many tries are cheap.
    tries = max(1, min(20, 5000 // len(counts)))
    results = [_descend(counts, want, weight, rng.permutation(len(counts))) for _ in range(tries)]
    sides = min(results, key=lambda result: result[0])[1]
    _fill_empty(sides, counts[:, -1], len(shares))
    return sides


def _descend(
    counts: Counts, want: Counts, weight: Counts, order: NDArray[np.intp]
) -> tuple[float, NDArray[np.intp]]:
    """Place the units one by one, move each while that helps, and return the error and sides."""
    have = np.zeros_like(want)
    sides = np.full(len(counts), -1)
    for _ in range(50):
        before = sides.copy()
        for unit in order:
            count = counts[unit]
            if sides[unit] >= 0:
                have[sides[unit]] -= count
            # The growth of the error on each side that the unit could go to. It is rounded: the
            # last bit of a sum differs between processors, and must not decide between equals.
            growth = np.round((weight * count * (2 * (have - want) + count)).sum(axis=1), 6)
            if sides[unit] < 0 or growth.min() < growth[sides[unit]]:
                sides[unit] = np.argmin(growth)
            have[sides[unit]] += count
        if (sides == before).all():
            break
    return round(float((weight * (have - want) ** 2).sum()), 6), sides


def _fill_empty(sides: NDArray[np.intp], sizes: Counts, number: int) -> None:
    """Move to each empty side the smallest unit that another side can spare, in place."""
    for side in range(number):
        if not (sides == side).any():
            spare = np.bincount(sides, minlength=number)[sides] > 1
            sides[np.argmin(np.where(spare, sizes, np.inf))] = side


def _check_existing_split(dataset: Dataset, plan: SplitPlan) -> None:
    assert dataset.split is not None
    first: dict[str, int] = {}
    for row, content in enumerate(dataset.hashes()):
        other = first.setdefault(content, row)
        if dataset.split[other] != dataset.split[row]:
            raise DataError(
                f"{str(dataset.paths[other])!r} ({dataset.split[other]}) and "
                f"{str(dataset.paths[row])!r} ({dataset.split[row]}) are the same image: give "
                "both the same split, or omit the column."
            )
    if plan.hold_out:
        outside = held_out(dataset, plan.hold_out) & (np.array(dataset.split) != "test")
        if outside.any():
            raise DataError(
                f"{outside.sum()} images with {' and '.join(plan.hold_out)} are not in the test "
                "part of the existing split: omit the split, or do not hold them out."
            )

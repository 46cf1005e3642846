"""The sides of a data set that a run learns from, chooses by and is measured on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from edgeml.data import Dataset, report_skipped, split_dataset
from edgeml.data.framestore import default_cache
from edgeml.data.screen import without_unreadable
from edgeml.errors import DataError
from edgeml.progress import Progress
from edgeml.spec.labels import LabelGroup
from edgeml.training.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A divided data set and its three sides; `test` may be empty.

    Attributes:
        planned: Whether the configuration's plan divided it, or would divide it so.
    """

    whole: Dataset
    train: Dataset
    val: Dataset
    test: Dataset
    planned: bool


def prepare_parts(dataset: Dataset, config: TrainConfig, progress: Progress) -> Parts:
    """Check that all pictures can be read, apply the groups, and divide the data set.

    Raises:
        DataError: Unreadable pictures, fewer than two labels, groups that do not fit, or nothing
            to train or to validate on.
    """
    if len(dataset.labels) < 2:
        raise DataError(
            f"There is only one label, {', '.join(dataset.labels)!r}: nothing to tell apart."
        )
    cache = default_cache() if config.cache else None
    dataset = without_unreadable(
        dataset, skip_bad=config.skip_bad, threads=config.workers, cache=cache, progress=progress
    )
    report_skipped(dataset, progress)
    if config.groups:
        dataset = replace(dataset, label_groups=_groups(config.groups, dataset))
    divide = partial(split_dataset, plan=config.plan, threads=config.workers, cache=cache)
    planned = dataset.split is None or _follows(dataset, divide)
    whole = divide(dataset, progress=progress)
    parts = Parts(
        whole=whole,
        train=whole.part("train"),
        val=whole.part("val"),
        test=whole.part("test"),
        planned=planned,
    )
    if len(parts.train) < 2 or not parts.val.present.any():
        raise DataError(
            f"Of {len(whole)} pictures {len(parts.train)} are for training and "
            f"{len(parts.val)} for validation: too few. Add pictures, or change the split."
        )
    _note_missing(parts.train, "training pictures: it cannot be learned", progress)
    _note_missing(parts.val, "validation pictures: its threshold is the other labels'", progress)
    return parts


def _follows(dataset: Dataset, divide: Callable[[Dataset], Dataset]) -> bool:
    """Say whether a plan would divide the data as they are divided."""
    try:
        return divide(replace(dataset, split=None)).split == dataset.split
    except DataError:
        return False


def _groups(named: Mapping[str, tuple[str, ...]], dataset: Dataset) -> tuple[LabelGroup, ...]:
    """Make groups of which exactly one label is present, if the data bear it out.

    Raises:
        DataError: A label is not in the data, in two groups, or two of a group are on a picture.
    """
    taken: list[str] = []
    for name, labels in named.items():
        taken += labels
        fault = None
        for label in labels:
            if label not in dataset.labels:
                fault = f"{label!r} is no label of the data, which have {', '.join(dataset.labels)}"
            elif taken.count(label) > 1:
                fault = f"{label!r} is in it twice, or in another group as well"
        if len(labels) < 2:
            fault = "it needs two labels or more"
        if fault:
            raise DataError(f"The group {name!r} of {', '.join(labels)} cannot be: {fault}.")
        _check_group(name, labels, dataset)
    return tuple(
        LabelGroup(name=name, labels=tuple(labels), rule="one") for name, labels in named.items()
    )


def _check_group(name: str, labels: tuple[str, ...], dataset: Dataset) -> None:
    columns = [dataset.labels.index(label) for label in labels]
    present = dataset.present[:, columns].sum(axis=1)
    # An unknown label may be the one that is missing, but nothing mends two that are present.
    complete = dataset.known[:, columns].all(axis=1)
    odd = (present > 1) | (complete & (present == 0))
    if odd.any():
        row = int(odd.argmax())
        raise DataError(
            f"{str(dataset.paths[row])!r} has {present[row]} labels of the group {name!r}, and "
            f"{int(odd.sum()) - 1} more pictures have none or several; each must have exactly one."
        )


def _note_missing(part: Dataset, where: str, progress: Progress) -> None:
    for label, count in zip(part.labels, part.present.sum(axis=0), strict=True):
        if count == 0:
            progress.note(f"warning: {label!r} is on none of the {len(part)} {where}")

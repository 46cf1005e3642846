"""Which images of a data set a model is measured on, and how many of them it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from edgeml.data import Dataset, resolve_split
from edgeml.data.dataset import Side
from edgeml.data.framestore import cache_or_none
from edgeml.data.run_split import RunSplit
from edgeml.data.split import split_digest
from edgeml.errors import DataError
from edgeml.progress import SILENT, Progress
from edgeml.spec.model_spec import ModelSpec

Part = Literal["train", "val", "test", "all"]

_SCORE_ALL = "--split all scores every image"


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The images to score; `seen` is the number that the model was trained on, None if unknown.

    An image was trained on if its bytes were: a copy that was encoded again is not recognised.
    """

    images: Dataset
    seen: int | None


def choose_part(
    dataset: Dataset, spec: ModelSpec, part: Part | None, *, progress: Progress = SILENT
) -> Dataset:
    """Return one part of a data set; the split is its own column, or that of the training.

    Raises:
        DataError: The split is not known, or the part is empty.
    """
    if part == "all":
        return dataset
    divided = resolve_split(dataset, spec, cache=cache_or_none(), progress=progress)
    return _undivided(dataset, part, progress) if divided is None else _one_part(divided, part)


def choose_unseen(
    dataset: Dataset,
    spec: ModelSpec,
    part: Part | None,
    run: RunSplit | None = None,
    *,
    progress: Progress = SILENT,
) -> Chosen:
    """Return the images of a part without those that the model was trained on.

    With the digests of a run, each image is looked up in it; an image that the run does not know
    is scored by default, and not as part of a side. Without them, the split is that of the data,
    or of the training if the data did not change. The parts `train` and `all` are complete. What
    is not known, and what is left out, is noted with its count.

    Raises:
        DataError: The split is not known, or no image is left; a file cannot be read.
    """
    if run is not None and run.by_content:
        if part == "all" or dataset.split is not None:
            chosen = _own_part(dataset, part, run, progress)
        else:
            chosen = _part_by_run(dataset, part, run.sides(dataset), progress)
    else:
        chosen = _without_digests(dataset, spec, part, run, progress)
    if chosen.seen is None and part not in ("all", "train"):
        remedy = " Put the split.csv of its run next to the model." if _has_run(spec) else ""
        progress.note(
            "warning: it is not known whether the model was trained on any of these "
            f"{len(chosen.images)} images.{remedy}"
        )
    elif chosen.seen:
        progress.note(
            f"warning: the model was trained on {chosen.seen} of these {len(chosen.images)} images."
        )
    return chosen


def _has_run(spec: ModelSpec) -> bool:
    return spec.provenance.split_sha256 is not None


def _own_part(dataset: Dataset, part: Part | None, run: RunSplit, progress: Progress) -> Chosen:
    """Return a part of the data's own split; only `train` and `all` keep training images."""
    images = dataset if part == "all" else _one_part(dataset, part)
    sides = run.sides(images)
    trained = np.array([side == "train" for side in sides], bool)
    if part in ("train", "all"):
        return Chosen(images=images, seen=int(trained.sum()))
    if trained.all():
        raise DataError(
            f"The model was trained on all {len(images)} {part or 'test'} images: none is left to "
            f"score; {_SCORE_ALL}."
        )
    if trained.any():
        progress.note(
            f"warning: {trained.sum()} of the {len(images)} {part or 'test'} images are not "
            f"scored: the model was trained on them; {_SCORE_ALL}."
        )
    return Chosen(images=images.select(~trained), seen=0)


def _part_by_run(
    dataset: Dataset, part: Part | None, sides: Sequence[Side | None], progress: Progress
) -> Chosen:
    """Return the images that are on one side in the run; None: test, and those it does not know."""
    wanted = {part} if part else {"test", None}
    rows = np.array([side in wanted for side in sides], bool)
    unknown = sides.count(None)
    if not rows.any():
        raise DataError(
            f"No image is left to score: of {len(sides)}, {sides.count('train')} are training "
            f"images of the model, {sides.count('val')} are for validation, {sides.count('test')} "
            f"for the test, and {unknown} are not known; {_SCORE_ALL}."
        )
    if unknown < len(sides) and not part:
        progress.note(
            f"Of {len(sides)} images, {sides.count('train')} were for training and "
            f"{sides.count('val')} for validation; the rest is scored ({rows.sum()})."
        )
    if unknown == len(sides):
        progress.note(f"None of these {unknown} images is in the run of the model: all are scored.")
    elif unknown:
        done = "not scored" if part else "scored, though some may be altered training images"
        progress.note(
            f"warning: {unknown} of {len(sides)} images are not in the run of the model, new or "
            f"changed: they are {done}."
        )
    return Chosen(images=dataset.select(rows), seen=int(rows.sum()) if part == "train" else 0)


def _without_digests(
    dataset: Dataset, spec: ModelSpec, part: Part | None, run: RunSplit | None, progress: Progress
) -> Chosen:
    """Return a part of the split of the data, or of the training if the data did not change.

    A run of edgeml 0.1.0 has no digests: the paths of its images are better than nothing.
    """
    if part == "all":
        return Chosen(images=dataset, seen=None)
    divided = resolve_split(dataset, spec, cache=cache_or_none(), progress=progress)
    if divided is None:
        sides = run.sides(dataset) if run is not None else []
        if any(sides):
            return replace(_part_by_run(dataset, part, sides, progress), seen=None)
        return Chosen(images=_undivided(dataset, part, progress), seen=None)
    images = _one_part(divided, part)
    if dataset.split is not None:
        if run is not None:
            images = _own_part(dataset, part, run, progress).images
        stated = spec.provenance.split_sha256
        if stated is None or stated != split_digest(dataset):
            return Chosen(images=images, seen=None)
    return Chosen(images=images, seen=len(images) if part == "train" else 0)


def _undivided(dataset: Dataset, part: Part | None, progress: Progress) -> Dataset:
    if part is None:
        progress.note(f"No split is known for these data: all {len(dataset)} images are used.")
        return dataset
    raise DataError(
        f"It is not known which images are {part!r}: the data have no split column, and are "
        "not the training data of the model. Use --split all, or a .csv with a split column."
    )


def _one_part(dataset: Dataset, part: Part | None) -> Dataset:
    chosen = dataset.part(part or "test")
    if not len(chosen):
        raise DataError(
            f"The {part or 'test'!r} part of the data is empty: choose another with --split."
        )
    return chosen

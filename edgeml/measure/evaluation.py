"""Measure a model on labelled images, with the same code that a device runs."""

from __future__ import annotations

from typing import Literal

import numpy as np

from edgeml.data import Dataset
from edgeml.data.framestore import cache_or_none
from edgeml.data.split import resolve_split
from edgeml.errors import DataError, EdgemlError, NotComparableError
from edgeml.measure.metrics import Metrics, evaluate
from edgeml.predict.predictor import Predictor
from edgeml.progress import SILENT, Progress
from edgeml.spec.labels import UNKNOWN, Scores, Targets
from edgeml.spec.model_spec import ModelSpec, quoted_names

Part = Literal["train", "val", "test", "all"]


def evaluate_model(
    predictor: Predictor, dataset: Dataset, part: Part | None = None, *, progress: Progress = SILENT
) -> Metrics:
    """Measure `predictor` on one part of a data set.

    Args:
        predictor: A model of any format.
        dataset: Labelled images.
        part: None takes the test part if the split is known, else all images, and notes it.
        progress: Shows the progress.

    Raises:
        DataError: The split is not known, or the part is empty.
        NotComparableError: The data set has a label that the model does not know.
        ImageError: An image cannot be read.
    """
    check_labels(dataset, predictor.spec)
    chosen = choose_part(dataset, predictor.spec, part, progress=progress)
    targets = align_targets(chosen, predictor.spec)
    if unknown := int((targets == UNKNOWN).sum()):
        progress.note(f"{unknown} of {targets.size} labels are unknown and do not count.")
    return evaluate(score(predictor, chosen, progress=progress), targets, predictor.spec)


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
    if divided is None:
        if part is None:
            progress.note(f"No split is known for these data: all {len(dataset)} images are used.")
            return dataset
        raise DataError(
            f"It is not known which images are {part!r}: the data have no split column, and are "
            "not the training data of the model. Use --split all, or a .csv with a split column."
        )
    chosen = divided.part(part or "test")
    if not len(chosen):
        raise DataError(
            f"The {part or 'test'!r} part of the data is empty: choose another with --split."
        )
    return chosen


def check_labels(dataset: Dataset, spec: ModelSpec) -> None:
    """Raise NotComparableError if the data set has a label that the model does not know."""
    unknown = sorted(set(dataset.labels) - set(spec.labels))
    if unknown:
        raise NotComparableError(
            f"The data have the labels {quoted_names(unknown, 5)}, which the model does not know."
            f"{_delimiter_hint(dataset, spec)} It knows {quoted_names(spec.labels)}."
        )


def _delimiter_hint(dataset: Dataset, spec: ModelSpec) -> str:
    """Return advice where the names of folders were split, or not, unlike the model's labels."""
    known, used = set(spec.labels), set(dataset.labels)
    if split := sorted(known.intersection(path.parent.name for path in dataset.paths) - used):
        return f" The folder {split[0]!r} is one of its labels: use --delimiter /."
    joined = next((name for name in dataset.labels if known.issuperset(name.split("_"))), None)
    if joined is not None and joined not in known:
        return f" The folder {joined!r} joins several of them: use --delimiter _."
    return ""


def align_targets(dataset: Dataset, spec: ModelSpec) -> Targets:
    """Return the targets with columns in the order of the model's labels: (N, labels).

    Labels of the model that the data do not have count as absent; unknown targets stay unknown.

    Raises:
        NotComparableError: The data set has a label that the model does not know.
    """
    check_labels(dataset, spec)
    targets = np.zeros((len(dataset), len(spec.labels)), np.int8)
    targets[:, [spec.labels.index(label) for label in dataset.labels]] = dataset.targets
    return targets


def score(
    predictor: Predictor, dataset: Dataset, *, batch: int = 32, progress: Progress = SILENT
) -> Scores:
    """Return probabilities (N, labels) for all images; images are decoded while the network runs.

    Raises:
        ImageError: An image cannot be read.
        InferenceError: The network failed.
    """
    rows = []
    with progress.task("score", total=len(dataset)) as advance:
        for result in predictor.predict_many(dataset.paths, batch=batch, workers=2):
            if isinstance(result, EdgemlError):
                raise result
            rows.append(result.scores)
            advance(1)
    return np.stack(rows)

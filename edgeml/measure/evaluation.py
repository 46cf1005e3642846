"""Measure a model on labelled images, with the same code that a device runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgeml.data import Dataset
from edgeml.data.run_split import RunSplit
from edgeml.errors import EdgemlError, NotComparableError
from edgeml.measure.metrics import Metrics, evaluate
from edgeml.measure.parts import Part, choose_unseen
from edgeml.predict.predictor import Predictor
from edgeml.progress import SILENT, Progress
from edgeml.spec.labels import UNKNOWN, Scores, Targets
from edgeml.spec.model_spec import ModelSpec, quoted_names


def evaluate_model(
    predictor: Predictor,
    dataset: Dataset,
    part: Part | None = None,
    *,
    run: RunSplit | None = None,
    progress: Progress = SILENT,
) -> Metrics:
    """Measure `predictor` on one part of a data set, without images that it was trained on.

    Args:
        predictor: A model of any format.
        dataset: Labelled images.
        part: None takes the test part if the split is known, else all images, and notes it.
        run: The split of the run that the model comes from, if it is known.
        progress: Shows the progress, and what was left out or is not known.

    Raises:
        DataError: The split is not known, or no image is left.
        NotComparableError: The data set has a label that the model does not know.
        ImageError: An image cannot be read.
    """
    check_labels(dataset, predictor.spec)
    chosen = choose_unseen(dataset, predictor.spec, part, run, progress=progress)
    targets = align_targets(chosen.images, predictor.spec)
    if unknown := int((targets == UNKNOWN).sum()):
        progress.note(f"{unknown} of {targets.size} labels are unknown and do not count.")
    scores = score(predictor, chosen.images, progress=progress)
    measured = evaluate(scores, targets, predictor.spec)
    return replace(measured, seen_in_training=chosen.seen)


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

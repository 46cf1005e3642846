"""Details behind the metrics: confusion within groups, precision-recall curves, worst images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import InputError
from edgeml.spec.decide import decide
from edgeml.spec.labels import UNKNOWN, LabelGroup, Scores, Targets
from edgeml.spec.model_spec import ModelSpec

# The smallest probability in a loss: the step of float32 below 1.
_MIN_PROBABILITY = 2.0**-24


def confusion(
    scores: Scores, targets: Targets, spec: ModelSpec, group: LabelGroup
) -> NDArray[np.int64]:
    """Count the predicted labels of a group by true label: (G, G), truth in rows.

    Only images count in which every label of the group is known and exactly one is present.

    Args:
        scores: (N, labels) probabilities.
        targets: (N, labels).
        spec: The spec of the model.
        group: One of its groups, with rule `one`.

    Raises:
        InputError: The group is not in the spec, or has another rule.
    """
    if group not in spec.groups or group.rule != "one":
        raise InputError(
            f"A confusion matrix needs a group of the model with rule 'one'; {group.name!r} "
            f"has rule {group.rule!r} and is {'' if group in spec.groups else 'not '}the model's."
        )
    columns = [spec.labels.index(label) for label in group.labels]
    truth = targets[:, columns]
    counted = (truth != UNKNOWN).all(axis=1) & ((truth > 0).sum(axis=1) == 1)
    decided = decide(scores, spec)[:, columns]
    counts: NDArray[np.int64] = (truth[counted] > 0).T.astype(np.int64) @ decided[counted]
    return counts


def precision_recall_curve(
    scores: NDArray[np.float32], targets: NDArray[np.int8]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]]:
    """Return precision and recall of one label with each of its scores as threshold.

    As scikit-learn's function of that name defines it: recall falls, thresholds rise, and a last
    point, precision 1 and recall 0, has no threshold. Recall is NaN without positives.

    Args:
        scores: (N,).
        targets: (N,); unknown targets do not count.

    Returns:
        (K + 1,) precision, (K + 1,) recall, (K,) thresholds, the K different scores.
    """
    known, positives = np.sort(scores[targets != UNKNOWN]), np.sort(scores[targets > 0])
    thresholds = np.unique(known)
    hits = len(positives) - np.searchsorted(positives, thresholds)
    predicted = len(known) - np.searchsorted(known, thresholds)
    recall = hits / len(positives) if len(positives) else np.full(len(hits), np.nan)
    return np.append(hits / predicted, 1.0), np.append(recall, 0.0), thresholds


def worst_errors(scores: Scores, targets: Targets, spec: ModelSpec, count: int) -> NDArray[np.intp]:
    """Return the rows of at most `count` images with a wrong prediction, the worst first.

    They are ranked by the mean binary cross entropy of their known labels, so that confident
    errors come before those near the threshold.
    """
    known, positive = targets != UNKNOWN, targets > 0
    wrong = np.flatnonzero(((decide(scores, spec) != positive) & known).any(axis=1))
    right = np.where(positive[wrong], scores[wrong], 1 - scores[wrong])  # probability of the truth
    losses = np.zeros(right.shape)
    losses = -np.log(np.maximum(right, _MIN_PROBABILITY), where=known[wrong], out=losses)
    mean = losses.sum(axis=1) / known[wrong].sum(axis=1)
    return wrong[np.argsort(-mean, kind="stable")[: max(0, count)]]

"""What lies behind the metrics: which labels meet, which are confused, the worst pictures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import InputError
from edgeml.spec.decide import decide
from edgeml.spec.labels import UNKNOWN, LabelGroup, Scores, Targets
from edgeml.spec.model_spec import ModelSpec

# The least probability that a loss is taken of: the step of float32 below 1.
_LEAST = 2.0**-24


def confusion(
    scores: Scores, targets: Targets, spec: ModelSpec, group: LabelGroup
) -> NDArray[np.int64]:
    """Count which label of a group was decided where which was true: (G, G), truth in rows.

    Only pictures count of which every label in the group is known and exactly one is present.

    Args:
        scores: (N, labels) probabilities.
        targets: (N, labels).
        spec: What the model's outputs mean.
        group: One of the spec's, with rule `one`.

    Raises:
        InputError: The group is not the spec's, or its labels do not exclude each other.
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
    """Give precision and recall of one label at each of its scores as threshold.

    The definition of scikit-learn's function of that name: recall falls, thresholds rise, and a
    last point, precision 1 and recall 0, has no threshold. Recall is NaN without positives.

    Args:
        scores: (N,).
        targets: (N,); what is unknown does not count.

    Returns:
        (K + 1,) precision, (K + 1,) recall, (K,) thresholds, the K different scores.
    """
    every = np.sort(scores[targets != UNKNOWN])
    found = np.sort(scores[targets > 0])
    thresholds = np.unique(every)
    hits = len(found) - np.searchsorted(found, thresholds)
    claimed = len(every) - np.searchsorted(every, thresholds)
    recall = hits / len(found) if len(found) else np.full(len(hits), np.nan)
    return np.append(hits / claimed, 1.0), np.append(recall, 0.0), thresholds


def worst_errors(scores: Scores, targets: Targets, spec: ModelSpec, count: int) -> NDArray[np.intp]:
    """Give the rows of the pictures that the model gets most wrong, the worst first.

    Only pictures with a known label that is decided wrongly are given. They are ranked by the mean
    binary cross entropy of their known labels, so that what was wrong and sure comes before what
    was wrong and near the threshold.

    Returns:
        (count,) or fewer, if fewer are wrong.
    """
    known, positive = targets != UNKNOWN, targets > 0
    wrong = np.flatnonzero(((decide(scores, spec) != positive) & known).any(axis=1))
    right = np.where(positive[wrong], scores[wrong], 1 - scores[wrong])  # probability of the truth
    losses = -np.log(np.maximum(right, _LEAST), where=known[wrong], out=np.zeros(right.shape))
    mean = losses.sum(axis=1) / known[wrong].sum(axis=1)
    return wrong[np.argsort(-mean, kind="stable")[: max(0, count)]]

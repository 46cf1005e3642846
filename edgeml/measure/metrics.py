"""Multi-label metrics, in numpy: the same numbers on a workstation and a device.

Scores are probabilities (N, labels); targets are 1, 0 or UNKNOWN (N, labels). All results are
shares of 1. Unknown targets do not count, neither as hits nor as false alarms.

CP, CR and CF1 average over labels, OP, OR and OF1 pool all decisions; CF1 is the harmonic mean of
CP and CR, which is not macro F1, the mean of the labels' F1 (Chen et al., ML-GCN, CVPR 2019,
section 4.1). A label without a known positive has no recall: it is in no average over labels, and
is reported as absent. Its predictions still count in OP, OF1 and exact match.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import InputError
from edgeml.measure.thresholds import FEW_POSITIVES
from edgeml.spec.decide import decide
from edgeml.spec.labels import UNKNOWN, Scores, Targets
from edgeml.spec.model_spec import ModelSpec


@dataclass(frozen=True)
class LabelMetrics:
    """One label: average precision, F1 at its threshold, the threshold, and its positives."""

    AP: float
    F1: float
    threshold: float
    positives: int


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """The result of `evaluate`; NaN if no image allows to measure a value.

    Attributes:
        mAP, CP, CR, macro_F1: Means over the labels that have a known positive.
        CF1: The harmonic mean of CP and CR.
        OP, OR, OF1: Precision, recall and F1 of all known decisions together.
        exact_match: The share of images with all known labels right, among those with any.
        top1, top5: For a multiclass model, the share of images for which the best label, or one of
            the five best, is right, among those that have a label. None for other models.
        images: The number of images, with known labels or without.
        seen_in_training: The number of them that the model was trained on; None if unknown.
        labels: The metrics of each label. Without positives its AP is NaN.
    """

    mAP: float
    CP: float
    CR: float
    CF1: float
    macro_F1: float
    OP: float
    OR: float
    OF1: float
    exact_match: float
    images: int
    labels: dict[str, LabelMetrics]
    top1: float | None = None
    top5: float | None = None
    seen_in_training: int | None = None

    @property
    def absent(self) -> tuple[str, ...]:
        """The labels without a known positive, which are in no average over labels."""
        return tuple(name for name, label in self.labels.items() if not label.positives)

    @property
    def labels_averaged(self) -> int:
        """The number of labels that mAP, CP, CR and macro_F1 average over."""
        return len(self.labels) - len(self.absent)

    @property
    def weighted_mAP(self) -> float:
        """The mean AP, in which a label with few positives counts in proportion to them.

        The AP of a label with fewer than 20 positives is mostly noise, which would decide between
        two models that are nearly equal.
        """
        counted = [label for label in self.labels.values() if label.positives]
        weights = [min(label.positives, FEW_POSITIVES) for label in counted]
        if not counted:
            return math.nan
        return float(np.average([label.AP for label in counted], weights=weights))

    def summary(self) -> dict[str, float]:
        """Return the metrics that are one number for all labels: mAP first, or top1 and top5."""
        names = ("mAP", "CP", "CR", "CF1", "macro_F1", "OP", "OR", "OF1", "exact_match")
        first = () if self.top1 is None else ("top1", "top5")
        return {name: getattr(self, name) for name in (*first, *names)}

    def to_dict(self) -> dict[str, Any]:
        """Return what `edgeml eval --json` prints; NaN becomes None."""
        labels = {
            name: {key: _or_none(value) for key, value in asdict(label).items()}
            for name, label in self.labels.items()
        }
        return {
            "images": self.images,
            "seen_in_training": self.seen_in_training,
            "metrics": {name: _or_none(value) for name, value in self.summary().items()},
            "labels_averaged": self.labels_averaged,
            "absent_labels": list(self.absent),
            "labels": labels,
        }


def evaluate(scores: Scores, targets: Targets, spec: ModelSpec) -> Metrics:
    """Measure scores (N, labels) against targets (N, labels), by the spec's decision rule.

    Raises:
        InputError: The shapes do not fit each other or the spec, or a score is NaN.
    """
    _check(scores, targets, spec)
    known, positive = targets != UNKNOWN, targets > 0
    present = decide(scores, spec)
    predicted, hits = (present & known).sum(axis=0), (present & positive).sum(axis=0)
    positives = positive.sum(axis=0)
    precision, recall = _share(hits, predicted), _share(hits, positives)
    F1 = _share(2 * hits, predicted + positives)
    AP = [average_precision(scores[:, i], targets[:, i]) for i in range(len(spec.labels))]
    averaged = positives > 0
    CP, CR = _mean(precision[averaged]), _mean(recall[averaged])
    OP, OR = float(_share(hits.sum(), predicted.sum())), float(_share(hits.sum(), positives.sum()))
    right = ((present == positive) | ~known).all(axis=1)
    return Metrics(
        mAP=_mean(np.asarray(AP)[averaged]),
        CP=CP,
        CR=CR,
        CF1=_harmonic(CP, CR),
        macro_F1=_mean(F1[averaged]),
        OP=OP,
        OR=OR,
        OF1=_harmonic(OP, OR),
        exact_match=_mean(right[known.any(axis=1)]),
        images=len(targets),
        labels={
            name: LabelMetrics(AP[i], float(F1[i]), spec.thresholds[i], int(positives[i]))
            for i, name in enumerate(spec.labels)
        },
        top1=_top(1, scores, positive) if spec.task == "multiclass" else None,
        top5=_top(5, scores, positive) if spec.task == "multiclass" else None,
    )


def average_precision(scores: NDArray[np.float32], targets: NDArray[np.int8]) -> float:
    """Return the mean, over the positives, of the precision at or above their score.

    This is the sum of precision over the steps of recall, without interpolation and with ties as
    one step, as in scikit-learn's `average_precision_score`. NaN without a known positive.

    Args:
        scores: (N,); any scores that rank, also logits.
        targets: (N,); unknown targets do not count.
    """
    positives, known = np.sort(scores[targets > 0]), np.sort(scores[targets != UNKNOWN])
    if not len(positives):
        return math.nan
    hits = len(positives) - np.searchsorted(positives, positives)
    predicted = len(known) - np.searchsorted(known, positives)
    return float((hits / predicted).mean())


def _top(k: int, scores: Scores, positive: NDArray[np.bool_]) -> float:
    """Return the share of images with a label for which one of the `k` best is right."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    right: NDArray[np.bool_] = np.take_along_axis(positive, best, axis=1).max(axis=1)
    return _mean(right[positive.any(axis=1)])


def _check(scores: Scores, targets: Targets, spec: ModelSpec) -> None:
    width = len(spec.labels)
    if scores.shape != targets.shape or scores.shape[1:] != (width,):
        raise InputError(
            f"Scores and targets must both be (N, {width}), one column per label; "
            f"they are {scores.shape} and {targets.shape}."
        )
    if np.isnan(scores).any():
        raise InputError(
            f"{int(np.isnan(scores).any(axis=1).sum())} of {len(scores)} images have a score "
            "that is NaN: the model is broken; train or export it again."
        )


def _share(part: Any, total: Any) -> NDArray[np.float64]:
    """Divide; a total of 0 gives 0, as in scikit-learn."""
    share: NDArray[np.float64] = np.zeros(np.shape(part))
    np.divide(part, total, out=share, where=np.asarray(total) > 0)
    return share


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else math.nan


def _harmonic(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a + b else 0.0


def _or_none(value: float) -> float | None:
    return None if isinstance(value, float) and math.isnan(value) else value

"""Multi-label metrics and thresholds, in numpy: the same numbers on a workstation and a device.

Scores are probabilities (N, labels); targets are 0 or 1 (N, labels). All results are shares of 1.
CP, CR and CF1 average over labels, OP, OR and OF1 pool all decisions; CF1 is the harmonic mean of
CP and CR, which is not the mean of the labels' F1 (Chen et al., ML-GCN, CVPR 2019, section 4.1).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.spec import ModelSpec

Scores = NDArray[np.float32]
Targets = NDArray[np.int8]
"""(N, labels): 1 where a picture has a label, 0 where it has not, UNKNOWN where nobody looked."""

UNKNOWN = -1
Decisions = NDArray[np.bool_]

# Below this many positives a label's own best threshold is mostly noise.
_FEW_POSITIVES = 20


@dataclass(frozen=True, kw_only=True)
class LabelMetrics:
    """One label: average precision, F1 at its threshold, the threshold, and its positives."""

    AP: float
    F1: float
    threshold: float
    positives: int


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """What `evaluate` measures. AP of a label without positives is NaN and left out of mAP."""

    mAP: float
    CP: float
    CR: float
    CF1: float
    OP: float
    OR: float
    OF1: float
    exact_match: float
    images: int
    labels: dict[str, LabelMetrics]

    def summary(self) -> dict[str, float]:
        """Give the metrics that are one number for all labels, mAP first."""
        names = ("mAP", "CP", "CR", "CF1", "OP", "OR", "OF1", "exact_match")
        return {name: getattr(self, name) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """Give what `edgeml eval --json` prints; NaN, which JSON lacks, becomes None."""
        labels = {
            name: {key: _or_none(value) for key, value in asdict(label).items()}
            for name, label in self.labels.items()
        }
        summary = {name: _or_none(value) for name, value in self.summary().items()}
        return {"images": self.images, "metrics": summary, "labels": labels}


def evaluate(scores: Scores, targets: Targets, spec: ModelSpec) -> Metrics:
    """Measure scores (N, labels) against targets (N, labels), by the spec's decision rule."""
    present = decide(scores, spec)
    hits = (present & (targets > 0)).sum(axis=0)
    claimed, positives = present.sum(axis=0), (targets > 0).sum(axis=0)
    precision, recall = _share(hits, claimed), _share(hits, positives)
    CP, CR = float(precision.mean()), float(recall.mean())
    OP, OR = float(_share(hits.sum(), claimed.sum())), float(_share(hits.sum(), positives.sum()))
    AP = [average_precision(scores[:, i], targets[:, i]) for i in range(len(spec.labels))]
    labels = {
        name: LabelMetrics(
            AP=AP[i],
            F1=float(_share(2 * hits[i], claimed[i] + positives[i])),
            threshold=spec.thresholds[i],
            positives=int(positives[i]),
        )
        for i, name in enumerate(spec.labels)
    }
    known = [value for value in AP if not math.isnan(value)]
    return Metrics(
        mAP=float(np.mean(known)) if known else math.nan,
        CP=CP,
        CR=CR,
        CF1=_harmonic(CP, CR),
        OP=OP,
        OR=OR,
        OF1=_harmonic(OP, OR),
        exact_match=float((present == (targets > 0)).all(axis=1).mean()) if len(targets) else 0.0,
        images=len(targets),
        labels=labels,
    )


def decide(scores: Scores, spec: ModelSpec) -> Decisions:
    """Turn scores (N, labels) into present labels (N, labels): the only such rule in edgeml.

    A label is present at or above its threshold. In a group with rule `one` exactly the label
    with the highest score is, whatever the thresholds say.
    """
    present: Decisions = scores >= np.asarray(spec.thresholds, np.float32)
    for group in spec.groups:
        if group.rule == "one":
            columns = [spec.labels.index(label) for label in group.labels]
            best = scores[:, columns].argmax(axis=1)
            present[:, columns] = best[:, None] == np.arange(len(columns))
    return present


def average_precision(scores: NDArray[np.float32], targets: NDArray[np.int8]) -> float:
    """Sum precision over the steps of recall, without interpolation; ties count as one step.

    The definition of scikit-learn's `average_precision_score`. NaN if nothing is positive.
    """
    positives = int((targets > 0).sum())
    if not positives:
        return math.nan
    order = np.argsort(-scores, kind="stable")
    ranked = targets[order] > 0
    last_of_tie = np.append(np.diff(scores[order]) != 0, True)
    hits = np.cumsum(ranked)[last_of_tie]
    precision = hits / (np.flatnonzero(last_of_tie) + 1)
    return float((np.diff(hits, prepend=0) * precision).sum() / positives)


def fit_thresholds(scores: Scores, targets: Targets) -> tuple[float, ...]:
    """Find for each label the threshold of the best F1.

    A label with few positives would fit noise: its threshold is drawn towards the best global
    one, in proportion to the positives that it lacks.
    """
    shared = _best_threshold(scores.ravel(), targets.ravel())
    fitted = []
    for column in range(scores.shape[1]):
        own = _best_threshold(scores[:, column], targets[:, column])
        trust = min(1.0, float((targets[:, column] > 0).sum()) / _FEW_POSITIVES)
        fitted.append(round(trust * own + (1 - trust) * shared, 6))
    return tuple(fitted)


def _best_threshold(scores: NDArray[np.float32], targets: NDArray[np.int8]) -> float:
    """Take the middle of the gap below the score at which F1 is best; 0.5 without positives."""
    positives = (targets > 0).sum()
    if not positives:
        return 0.5
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order].astype(np.float64)
    hits = np.cumsum(targets[order] > 0)
    f1 = 2 * hits / (np.arange(1, len(ranked) + 1) + positives)
    f1[:-1][np.diff(ranked) == 0] = 0  # no threshold can separate equal scores
    best = int(f1.argmax())
    below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
    return float((ranked[best] + below) / 2)


def _share(part: Any, whole: Any) -> NDArray[np.float64]:
    """Divide; nothing claimed or nothing to find counts as 0, as scikit-learn does."""
    share: NDArray[np.float64] = np.zeros(np.shape(part))
    np.divide(part, whole, out=share, where=np.asarray(whole) > 0)
    return share


def _harmonic(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a + b else 0.0


def _or_none(value: float) -> float | None:
    return None if isinstance(value, float) and math.isnan(value) else value

"""Calibration of probabilities: reliability diagrams, and fitting a temperature."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import InputError
from edgeml.spec.labels import UNKNOWN, Scores, Targets

# A model without an error on its validation images has no best temperature: lower is always better.
# A temperature outside these bounds is a sign of that, or of a broken model.
_COLDEST, _HOTTEST = 0.2, 5.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Reliability:
    """How often predictions with probability p are true.

    Every known decision, an image and a label, is one binary event, predicted with probability p.
    Bins of equal width divide p; a bin includes its lower edge but not its upper, and the last
    one includes both.

    Attributes:
        edges: (bins + 1,) from 0 to 1.
        confidence: (bins,) mean p of the events in a bin; NaN without events.
        frequency: (bins,) the share of events in a bin that are true; NaN without events.
        count: (bins,) the number of events in a bin.
        ece: Expected calibration error: the mean of |confidence - frequency| over all events,
            each with the value of its bin (Naeini et al., Obtaining Well Calibrated
            Probabilities Using Bayesian Binning, AAAI 2015; Guo et al., ICML 2017). NaN without
            events.
        label_ece: (labels,) the same for each label alone, in the same bins.
        brier: The mean of (p - truth)^2 over all events (Brier, 1950); NaN without events.
    """

    edges: NDArray[np.float64]
    confidence: NDArray[np.float64]
    frequency: NDArray[np.float64]
    count: NDArray[np.int64]
    ece: float
    label_ece: NDArray[np.float64]
    brier: float


def reliability(scores: Scores, targets: Targets, bins: int = 15) -> Reliability:
    """Measure how well probabilities (N, labels) are calibrated on targets (N, labels).

    Raises:
        InputError: The shapes differ, a score is not in 0 to 1, or there is no bin.
    """
    _check_shapes(scores, targets)
    if scores.size and not (scores.min() >= 0 and scores.max() <= 1):
        raise InputError(f"Scores from {scores.min():g} to {scores.max():g} are not probabilities.")
    if bins < 1:
        raise InputError(f"Reliability needs at least one bin, not {bins}.")
    edges = np.linspace(0, 1, bins + 1)
    known = targets != UNKNOWN
    labels = scores.shape[1]
    p, truth = scores[known].astype(np.float64), (targets[known] > 0).astype(np.float64)
    # One index for the label and the bin of an event, so that one pass counts all.
    cell = np.nonzero(known)[1] * bins + np.searchsorted(edges[1:-1], p, side="right")

    def totals(weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        cells = np.bincount(cell, weights, minlength=labels * bins)
        return cells.reshape(labels, bins).astype(np.float64)

    count, predicted, true = totals(), totals(p), totals(truth)
    in_bin = count.sum(axis=0)
    return Reliability(
        edges=edges,
        confidence=_ratio(predicted.sum(axis=0), in_bin),
        frequency=_ratio(true.sum(axis=0), in_bin),
        count=in_bin.astype(np.int64),
        # A bin's count times |confidence - frequency| is the difference of its sums.
        ece=float(_ratio(np.abs((predicted - true).sum(axis=0)).sum(), in_bin.sum())),
        label_ece=_ratio(np.abs(predicted - true).sum(axis=1), count.sum(axis=1)),
        brier=float(_ratio(np.square(p - truth).sum(), len(p))),
    )


def fit_temperature(
    logits: NDArray[np.float32], targets: Targets, choices: Sequence[Sequence[int]] = ()
) -> float:
    """Return the T for which the probabilities of logits / T have the lowest cross entropy.

    One T for all labels, so no label's ranking changes (Guo et al., On Calibration of Modern
    Neural Networks, ICML 2017, section 4.2). The loss is convex in 1 / T: Newton's method within
    bounds finds its only minimum.

    Args:
        logits: (N, labels), before the sigmoid or the softmax.
        targets: (N, labels); unknown targets do not count.
        choices: `ModelSpec.softmax_groups()`: columns whose probabilities are a softmax;
            an image counts for one if exactly one label of the group is known to be present.

    Returns:
        0.2 to 5; above 1 if the model was overconfident. 1 if no target is known.

    Raises:
        InputError: The shapes differ, or a logit is not finite.
    """
    _check_shapes(logits, targets)
    if not np.isfinite(logits).all():
        raise InputError("A logit is NaN or infinity: the model is broken; train it again.")
    independent = np.ones(logits.shape[1], bool)
    independent[[column for columns in choices for column in columns]] = False
    known = (targets != UNKNOWN) & independent
    z, truth = logits[known].astype(np.float64), targets[known] > 0
    groups = [_with_one_label(logits[:, list(c)], targets[:, list(c)]) for c in choices]
    if not (z.any() or any(scores.any() for scores, _ in groups)):
        return 1.0
    low, high = 1 / _HOTTEST, 1 / _COLDEST
    scale = 1.0  # 1 / T
    for _ in range(100):
        p = 0.5 + 0.5 * np.tanh(scale * z / 2)  # the sigmoid; tanh does not overflow
        slope, curvature = float(z @ (p - truth)), float(np.square(z) @ (p * (1 - p)))
        for scores, right in groups:
            steeper, more = _softmax_slope(scale, scores, right)
            slope, curvature = slope + steeper, curvature + more
        low, high = (low, scale) if slope > 0 else (scale, high)
        newton = scale - slope / curvature if curvature else math.nan
        before, scale = scale, newton if low < newton < high else (low + high) / 2
        if abs(scale - before) <= 1e-9 * scale:
            break
    return 1 / scale


def _with_one_label(
    logits: NDArray[np.float32], targets: Targets
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return logits and truth (n, G) of the images with exactly one present label of a group."""
    rows = (targets > 0).sum(axis=1) == 1
    return logits[rows].astype(np.float64), targets[rows] > 0


def _softmax_slope(
    scale: float, z: NDArray[np.float64], right: NDArray[np.bool_]
) -> tuple[float, float]:
    """Return both derivatives by `scale` of the sum of -log softmax(scale z)[right]."""
    powers = np.exp(scale * (z - z.max(axis=1, keepdims=True)))
    p = powers / powers.sum(axis=1, keepdims=True)
    mean = (p * z).sum(axis=1)
    spread = (p * np.square(z - mean[:, None])).sum()
    return float(mean.sum() - z[right].sum()), float(spread)


def _ratio(part: NDArray[np.float64], total: NDArray[np.float64] | int) -> NDArray[np.float64]:
    """Divide; a total of 0 gives NaN."""
    ratio = np.full(np.shape(part), math.nan)
    np.divide(part, total, out=ratio, where=np.asarray(total) > 0)
    return ratio


def _check_shapes(scores: NDArray[np.float32], targets: Targets) -> None:
    if scores.ndim != 2 or scores.shape != targets.shape:
        raise InputError(
            "Scores and targets must both be (N, labels); "
            f"they are {scores.shape} and {targets.shape}."
        )

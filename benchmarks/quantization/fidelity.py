"""The cost of quantisation: the same figures for every tool, from the logits alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.measure.metrics import evaluate
from edgeml.measure.thresholds import fit_thresholds, transfer_thresholds
from edgeml.spec.decide import decide, probabilities
from edgeml.spec.labels import Targets
from edgeml.spec.model_spec import ModelSpec

Logits = NDArray[np.float32]
PerPhoto = NDArray[np.float64]

_LEAST = 1e-12


def squared_errors(reference: Logits, logits: Logits) -> PerPhoto:
    """Return each photo's squared error of the logits, in units of FP32's spread over photos.

    The spread is the variance of each label's logit, as a mean over labels. The root of the mean
    is the relative RMS error.
    """
    error = np.square(logits.astype(np.float64) - reference).mean(axis=1)
    spread = reference.astype(np.float64).var(axis=0).mean()
    relative: PerPhoto = error / spread
    return relative


def divergences(reference: Logits, logits: Logits, spec: ModelSpec) -> PerPhoto:
    """Return each photo's Kullback-Leibler divergence of the probabilities, in nats.

    It adds up that of each softmax group and, for each other label, that of present and absent.
    It is taken from FP32 to the quantised network.
    """
    p, q = (probabilities(side, spec).astype(np.float64) for side in (reference, logits))
    choices = spec.softmax_groups()
    chosen = [column for columns in choices for column in columns]
    alone = [column for column in range(p.shape[1]) if column not in chosen]
    parts = [_divergence(p[:, columns], q[:, columns]) for columns in choices]
    parts += [_divergence(a[:, alone], b[:, alone]) for a, b in ((p, q), (1 - p, 1 - q))]
    total: PerPhoto = np.sum(parts, axis=0)
    return total


def _divergence(p: PerPhoto, q: PerPhoto) -> PerPhoto:
    p, q = np.maximum(p, _LEAST), np.maximum(q, _LEAST)
    total: PerPhoto = (p * np.log(p / q)).sum(axis=1)
    return total


def difference(a: PerPhoto, b: PerPhoto, resamples: int = 2000) -> tuple[float, float]:
    """Return a 95 % interval of mean(a) - mean(b), by a bootstrap over the photos of both."""
    rows = np.random.default_rng(0).integers(0, len(a), (resamples, len(a)))
    low, high = np.percentile((a - b)[rows].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)


def cost(
    reference: tuple[Logits, Logits],
    logits: tuple[Logits, Logits],
    targets: tuple[Targets, Targets],
    spec: ModelSpec,
) -> dict[str, Any]:
    """Return what a trained network lost; shares in percent, drops in points.

    Args:
        reference: FP32's logits on the validation and on the test side.
        logits: The quantised network's.
        targets: Of both sides.
        spec: With the thresholds that were fitted for FP32.
    """
    known, scores = ([probabilities(side, spec) for side in pair] for pair in (reference, logits))
    before, after = (evaluate(pair[1], targets[1], spec) for pair in (known, scores))
    moved = transfer_thresholds(known[0], scores[0], spec.thresholds)
    refitted = fit_thresholds(scores[0], targets[0])
    by_moved, by_refitted = (
        evaluate(scores[1], targets[1], replace(spec, thresholds=thresholds)).exact_match
        for thresholds in (moved, refitted)
    )
    drops = {
        name: 100 * (before.labels[name].AP - after.labels[name].AP)
        for name in spec.labels
        if before.labels[name].positives
    }
    worst = max(drops, key=lambda name: drops[name])
    return {
        "mAP": 100 * after.mAP,
        "mAP_drop": 100 * (before.mAP - after.mAP),
        "worst_label": worst,
        "worst_label_positives": before.labels[worst].positives,
        "worst_label_drop": drops[worst],
        "exact_match": 100 * after.exact_match,
        "exact_match_drop": 100 * (before.exact_match - after.exact_match),
        "exact_match_moved_drop": 100 * (before.exact_match - by_moved),
        "exact_match_anew_drop": 100 * (before.exact_match - by_refitted),
        "flips_per_1000": 1000 * float((decide(known[1], spec) != decide(scores[1], spec)).mean()),
    }

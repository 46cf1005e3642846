"""Calibrate the scores of each label by a logistic regression on their logits.

This is Platt's method (Probabilistic Outputs for Support Vector Machines, 1999). A few positives
cannot determine the two numbers of a label. So these are taken to come from one normal distribution
for all labels, whose mean and variances are estimated as well: empirical Bayes, by the EM
algorithm (Dempster, Laird and Rubin, 1977). Where labels are alike they support each other; where
one is unlike the others, its own scores decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeml.spec.labels import UNKNOWN, Scores, Targets

Floats = NDArray[np.float64]

# float32 cannot tell a probability with a logit above this from 1.
_MAX_LOGIT = 16.0

# Slope and offset of scores that are calibrated already. They count as one more label.
_IDENTITY = np.array([1.0, 0.0])

# The variances of slope and offset among labels, before any is seen; they count as two labels.
_VARIANCES = np.array([0.1, 0.5])
_VARIANCES_COUNT = 2

# Scores may contradict their targets; a threshold needs a line that rises.
_MIN_SLOPE = 0.05

_MAX_ROUNDS = 50
_SMALL_CHANGE = 0.002


@dataclass(frozen=True, eq=False)
class Calibration:
    """A line for each label, from the logit of its score to the log odds that it is present.

    Attributes:
        slopes: (labels,), above 0.
        offsets: (labels,).
    """

    slopes: Floats
    offsets: Floats

    def probabilities(self, scores: Scores) -> Floats:
        """Return the calibrated probabilities (N, labels) of scores (N, labels)."""
        return _sigmoid(_logits(scores) * self.slopes + self.offsets)

    def scores_at(self, probabilities: Floats) -> Floats:
        """Return the score (labels,) at which each label has its calibrated probability."""
        logits = (_log_odds(probabilities) - self.offsets) / self.slopes
        # A score of 0 has the least logit, and must reach a threshold at or below it.
        return np.where(logits <= -_MAX_LOGIT, 0.0, _sigmoid(np.minimum(logits, _MAX_LOGIT)))


def fit_calibration(scores: Scores, targets: Targets) -> Calibration:
    """Calibrate scores (N, labels) by targets (N, labels); unknown targets do not count."""
    columns = []
    for i in range(scores.shape[1]):
        known = targets[:, i] != UNKNOWN
        columns.append((_logits(scores[known, i]), (targets[known, i] > 0).astype(np.float64)))
    lines = _fit_lines(columns)
    return Calibration(slopes=np.maximum(lines[:, 0], _MIN_SLOPE), offsets=lines[:, 1])


def _fit_lines(columns: Sequence[tuple[Floats, Floats]]) -> Floats:
    """Return slopes and offsets (labels, 2) of logits (K,) and presences (K,), a pair a label."""
    lines = np.tile(_IDENTITY, (len(columns), 1))
    mean, variances = _IDENTITY, _VARIANCES
    for _ in range(_MAX_ROUNDS):
        steps, uncertain = np.zeros_like(lines), np.zeros_like(lines)
        for i, (logits, present) in enumerate(columns):
            steps[i], uncertain[i] = _step(lines[i], logits, present, mean, 1 / variances)
        lines = lines + steps
        mean = (lines.sum(axis=0) + _IDENTITY) / (len(lines) + 1)
        squares = ((lines - mean) ** 2 + uncertain).sum(axis=0)
        variances = (squares + _VARIANCES_COUNT * _VARIANCES) / (len(lines) + _VARIANCES_COUNT)
        if np.abs(steps).max(initial=0) < _SMALL_CHANGE:
            break
    return lines


def _step(
    line: Floats, logits: Floats, present: Floats, mean: Floats, precision: Floats
) -> tuple[Floats, Floats]:
    """Return a step (2,) towards the most probable line, and the variances (2,) about that line.

    A Newton step can overshoot where probabilities are near 0 or 1. Shortened to log(1 + r) / r,
    where r is the most that it changes any log odds, it never makes the line less probable: Bach,
    Self-concordant Analysis for Logistic Regression, Electronic Journal of Statistics 4, 2010.
    """
    chances = _sigmoid(line[0] * logits + line[1])
    errors, weights = chances - present, chances * (1 - chances)
    gradient = np.array([errors @ logits, errors.sum()]) + precision * (line - mean)
    cross = weights @ logits
    curvature = np.array([[(weights * logits) @ logits, cross], [cross, weights.sum()]])
    covariance = np.linalg.inv(curvature + np.diag(precision))
    step = -covariance @ gradient
    reach = np.abs(step[0] * logits + step[1]).max(initial=1e-9)
    return step * (np.log1p(reach) / reach), np.diag(covariance)


def _logits(scores: Scores) -> Floats:
    least = 1 / (1 + np.exp(_MAX_LOGIT))
    return _log_odds(np.clip(scores.astype(np.float64), least, 1 - least))


def _log_odds(probabilities: Floats) -> Floats:
    odds: Floats = np.log(probabilities) - np.log1p(-probabilities)
    return odds


def _sigmoid(logits: Floats) -> Floats:
    # The most that differs from 1 in float64 is below 37; exp of 710 overflows.
    return 1 / (1 + np.exp(-np.clip(logits, -36.0, 36.0)))

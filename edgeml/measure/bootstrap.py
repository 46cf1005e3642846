"""Confidence intervals of losses of average precision, by resampling the images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import InputError
from edgeml.measure.metrics import average_precision
from edgeml.spec.labels import UNKNOWN, Scores, Targets

Counts = NDArray[np.int32]
"""(resamples, N): the number of times that each image is drawn in each resample."""

# With one or two positives every resample repeats the same accident. Simulated with 475 images and
# equally good models, the 95 % interval lay above 0 in 18 % of the cases with one positive and in
# 5 % with two, but with three or more in 0 to 3 %, where 2.5 % are expected. With three to five it
# covers a true loss in only 79 to 93 % of the cases; its misses are too low: it blames too rarely.
FEWEST_POSITIVES = 3

# Counts of one chunk of resamples take 8 MB, for any number of images.
_CHUNK = 2_000_000


@dataclass(frozen=True, kw_only=True)
class ApLoss:
    """Points of average precision (0 to 100) that were lost; negative if gained.

    Attributes:
        points: The loss on all images; NaN without a known positive.
        low, high: The ends of the interval; NaN with fewer than FEWEST_POSITIVES of a label,
            which are too few to estimate it.
    """

    points: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float | None]:
        """Return JSON values; NaN becomes None."""
        return {name: None if math.isnan(value) else value for name, value in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class ApLosses:
    """The losses of a candidate relative to its reference: of mAP, and of each label's AP."""

    mAP: ApLoss
    labels: Mapping[str, ApLoss]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        labels = {name: drop.to_dict() for name, drop in self.labels.items()}
        return {"mAP": self.mAP.to_dict(), "labels": labels}


def drop_intervals(
    reference: Scores,
    candidate: Scores,
    targets: Targets,
    labels: Sequence[str],
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> ApLosses:
    """Measure how much AP the candidate loses, with percentile intervals of a paired bootstrap.

    Each resample draws N images with replacement, and both models are measured on it: an image that
    is hard for both cancels (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
    chapters 8 and 13). AP is that of `edgeml.measure.metrics.average_precision`.

    A label counts in the resamples that have a positive of it. Within a resample both models
    average over the same labels, so a label that is sometimes missing changes the difference by
    its own loss, not by its AP.

    Args:
        reference: (N, labels); any scores that rank, also logits.
        candidate: (N, labels).
        targets: (N, labels); unknown targets do not count.
        labels: The names of the labels.
        resamples: The number of draws; with fewer, the ends of the intervals vary more.
        seed: The seed of the draws. The same seed gives the same intervals.
        level: The share of draws that lie in an interval.

    Raises:
        InputError: The shapes do not fit each other, or a score is NaN.
    """
    _check(reference, candidate, targets, labels)
    points, drawn = np.full(len(labels), math.nan), np.full((resamples, len(labels)), math.nan)
    positives = (targets > 0).sum(axis=0)
    shown = np.flatnonzero(positives)
    columns = [(reference[:, i], candidate[:, i], targets[:, i]) for i in shown]
    points[shown] = [
        100 * (average_precision(before, truth) - average_precision(after, truth))
        for before, after, truth in columns
    ]
    steps = [(_steps(before, truth), _steps(after, truth)) for before, after, truth in columns]
    for rows, counts in _draws(len(targets), resamples, seed) if len(shown) else ():
        for column, (before, after) in zip(shown, steps, strict=True):
            lost = _resampled_precision(counts, before) - _resampled_precision(counts, after)
            drawn[rows, column] = 100 * lost
    enough = np.where(positives >= FEWEST_POSITIVES, drawn, math.nan)
    return ApLosses(
        mAP=_with_interval(_mean(points[None])[0], _mean(drawn), level),
        labels={
            name: _with_interval(points[i], enough[:, i], level) for i, name in enumerate(labels)
        },
    )


def _draws(images: int, resamples: int, seed: int) -> Iterator[tuple[slice, Counts]]:
    """Draw images with replacement; yield resamples in chunks, which bounds the memory."""
    rng = np.random.default_rng(seed)
    size = max(1, _CHUNK // images)
    for start in range(0, resamples, size):
        rows = slice(start, min(start + size, resamples))
        count = rows.stop - rows.start
        drawn = rng.integers(images, size=(count, images))
        drawn += np.arange(count)[:, None] * images
        counts = np.bincount(drawn.ravel(), minlength=count * images)
        yield rows, counts.reshape(count, images).astype(np.int32)


@dataclass(frozen=True, eq=False)
class _Steps:
    """The images of one label by falling score, divided into the steps of recall.

    Equal scores are one step. A step without a positive adds nothing to AP, so it is joined to
    the next one that has some; images after the last positive are omitted.

    Attributes:
        images: Rows of known images, best first.
        starts: The index in `images` at which each step begins.
        positives: Rows of the positives among them, best first.
        positive_starts: The index in `positives` at which each step begins.
    """

    images: NDArray[np.intp]
    starts: NDArray[np.intp]
    positives: NDArray[np.intp]
    positive_starts: NDArray[np.intp]


def _steps(scores: NDArray[np.float32], targets: NDArray[np.int8]) -> _Steps:
    known = np.flatnonzero(targets != UNKNOWN)
    images = known[np.argsort(-scores[known], kind="stable")]
    falling, positive = -scores[images], targets[images] > 0
    # The ends of the runs of scores that equal the score of a positive.
    ends, starts = np.unique(
        np.searchsorted(falling, falling[positive], side="right"), return_index=True
    )
    return _Steps(images[: ends[-1]], np.append(0, ends[:-1]), images[positive], starts)


def _resampled_precision(counts: Counts, steps: _Steps) -> NDArray[np.float64]:
    """Return the AP of each resample (B,); NaN for one without a positive."""
    predicted = np.add.reduceat(np.take(counts, steps.images, axis=1), steps.starts, axis=1)
    hits = np.add.reduceat(np.take(counts, steps.positives, axis=1), steps.positive_starts, axis=1)
    precision = hits.cumsum(axis=1) / np.maximum(predicted.cumsum(axis=1), 1)
    positives = hits.sum(axis=1)
    share: NDArray[np.float64] = np.full(len(counts), math.nan)
    np.divide((hits * precision).sum(axis=1), positives, out=share, where=positives > 0)
    return share


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of each row without its NaN; NaN if it has no other value."""
    known = ~np.isnan(values)
    mean: NDArray[np.float64] = np.full(len(values), math.nan)
    np.divide(
        np.where(known, values, 0).sum(axis=1), known.sum(axis=1), out=mean, where=known.any(axis=1)
    )
    return mean


def _with_interval(points: float, drawn: NDArray[np.float64], level: float) -> ApLoss:
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return ApLoss(points=float(points), low=math.nan, high=math.nan)
    low, high = np.quantile(drawn, ((1 - level) / 2, (1 + level) / 2))
    return ApLoss(points=float(points), low=float(low), high=float(high))


def _check(reference: Scores, candidate: Scores, targets: Targets, labels: Sequence[str]) -> None:
    shapes = (reference.shape, candidate.shape, targets.shape)
    if len(set(shapes)) > 1 or reference.shape[1:] != (len(labels),):
        raise InputError(
            f"Scores of both models and targets must be (N, {len(labels)}), one column per label; "
            f"they are {shapes[0]}, {shapes[1]} and {shapes[2]}."
        )
    for name, scores in (("reference", reference), ("candidate", candidate)):
        if np.isnan(scores).any():
            raise InputError(f"Some scores of the {name} are NaN: check that model.")

"""The findings of a training report, computed once for its page, its JSON and its CSV."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgeml.data.dataset import cooccurrence
from edgeml.measure.analysis import confusion, precision_recall_curve, worst_errors
from edgeml.measure.metrics import Metrics, evaluate
from edgeml.measure.reliability import Reliability, reliability
from edgeml.spec.decide import decide
from edgeml.spec.labels import UNKNOWN, Scores, Targets
from edgeml.spec.model_spec import ModelSpec
from edgeml.training.history import Epoch

SplitName = Literal["val", "test"]
MAX_WORST = 24
"""The number of worst images that the report shows."""
# More points than this would exceed the pixels of the figure.
_MAX_POINTS = 120
# From this share of waiting time on, reading images counts as the bottleneck.
_WAITING = 0.1
_MAX_PAIRS = 15


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredSplit:
    """One split with the scores of the best weights: (N, L) float32 probabilities.

    `targets` are (N, L) int8: 1 present, 0 absent, -1 unknown. The report shows a placeholder for
    a missing file of `paths`.
    """

    scores: Scores
    targets: Targets
    paths: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Training:
    """The input of the report of `edgeml train`.

    Attributes:
        history: The epochs, first to last.
        spec: The spec of the best weights, with thresholds, groups and provenance.
        val: The split by which thresholds, temperature and epoch were chosen.
        test: The split by which nothing was chosen.
        uncalibrated: (N, L) float32 probabilities of `val` before the temperature was applied.
        temperature: The divisor of the logits; 1 changes nothing.
        held_out: Metrics on images with a combination of labels that training never saw.
        held_out_name: That combination, for example `red + dress`.
        audit: The summary of the data audit: (name, text) pairs.
        config: The resolved configuration.
        facts: The footer: the model, digests, versions.
        best_epoch: The `epoch` of the row whose weights were saved.
    """

    title: str
    history: Sequence[Epoch]
    spec: ModelSpec
    val: ScoredSplit
    test: ScoredSplit | None = None
    uncalibrated: Scores | None = None
    temperature: float = 1.0
    held_out: Metrics | None = None
    held_out_name: str | None = None
    audit: Sequence[tuple[str, str]] = ()
    config: Mapping[str, object]
    facts: Mapping[str, str]
    best_epoch: int


@dataclass(frozen=True, kw_only=True)
class LabelFindings:
    """The metrics of one label on one split; NaN where no image allows to measure them."""

    AP: float
    precision: float
    recall: float
    F1: float
    positives: int
    known: int


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Precision over rising recall of one label, thinned; average precision sums these steps.

    Attributes:
        mark: (recall, precision) of the actual decisions, by threshold or by group.
        prevalence: The precision of random guessing.
    """

    recall: tuple[float, ...]
    precision: tuple[float, ...]
    threshold: tuple[float, ...]
    mark: tuple[float, float] | None
    prevalence: float


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupConfusion:
    """Counts of true and predicted labels of a group: (G, G), truth in rows."""

    group: str
    labels: tuple[str, ...]
    counts: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ConfusedPair:
    """A label `truth` missed on images, of its `positives`, where another was predicted wrongly."""

    truth: str
    predicted: str
    count: int
    positives: int


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """An image with a wrong prediction. `scores` holds the labels that are true or predicted."""

    path: Path
    truth: tuple[str, ...]
    predicted: tuple[str, ...]
    unknown: tuple[str, ...]
    scores: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Speed:
    """The speed of training, without the first epoch if there are more: its median over epochs.

    `wait` is the share of time, 0 to 1, in which training waited for images. `bottleneck` is the
    part that limits the speed; None if that is not known.
    """

    images_per_s: float
    wait: float
    bottleneck: Literal["data", "compute"] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Findings:
    """The findings. Everything but `metrics`, `labels` and `reliability` describes `split`.

    Attributes:
        split: `test`, or `val` if there is no test split.
        labels: By split, then by label.
        group_of: The group of each label that has one, by label.
        by_group: Labels that are decided by their group, not by their threshold.
        curves: By label; labels without positives have none.
        reliability: `val_before`, `val` and `test`, those that exist.
        cooccurrence: (L, L) counts of images that have both labels.
        confusions: One per group with rule `one`.
        confused, worst: The most frequent first; the worst first.
        speed: None without a history.
    """

    split: SplitName
    metrics: dict[SplitName, Metrics]
    labels: dict[SplitName, dict[str, LabelFindings]]
    group_of: dict[str, str]
    by_group: frozenset[str]
    curves: dict[str, Curve]
    reliability: dict[str, Reliability]
    cooccurrence: NDArray[np.int64]
    confusions: tuple[GroupConfusion, ...]
    confused: tuple[ConfusedPair, ...]
    worst: tuple[Mistake, ...]
    speed: Speed | None


def analyse(training: Training) -> Findings:
    """Measure the best weights of a run on its validation and test splits.

    Raises:
        InputError: Scores, targets and spec do not fit each other, or a score is NaN.
    """
    spec = training.spec
    splits: dict[SplitName, ScoredSplit] = {"val": training.val}
    if training.test is not None and len(training.test.targets):
        splits["test"] = training.test
    split: SplitName = "test" if "test" in splits else "val"
    shown = splits[split]
    metrics = {name: evaluate(one.scores, one.targets, spec) for name, one in splits.items()}
    labels = {name: _labels(one, metrics[name], spec) for name, one in splits.items()}
    diagrams: dict[str, Reliability] = {}
    if training.uncalibrated is not None:
        diagrams["val_before"] = reliability(training.uncalibrated, training.val.targets)
    diagrams |= {name: reliability(one.scores, one.targets) for name, one in splits.items()}
    return Findings(
        split=split,
        metrics=metrics,
        labels=labels,
        group_of={label: group.name for group in spec.groups for label in group.labels},
        by_group=frozenset(
            label for group in spec.groups if group.rule == "one" for label in group.labels
        ),
        curves={
            name: _curve(shown.scores[:, column], shown.targets[:, column], labels[split][name])
            for column, name in enumerate(spec.labels)
            if labels[split][name].positives
        },
        reliability=diagrams,
        cooccurrence=cooccurrence(shown.targets),
        confusions=tuple(
            GroupConfusion(
                group=group.name,
                labels=group.labels,
                counts=confusion(shown.scores, shown.targets, spec, group),
            )
            for group in spec.groups
            if group.rule == "one"
        ),
        confused=_confused(shown.scores, shown.targets, spec),
        worst=tuple(
            _mistake(shown, int(row), spec)
            for row in worst_errors(shown.scores, shown.targets, spec, MAX_WORST)
        ),
        speed=_speed(training.history),
    )


def _labels(split: ScoredSplit, metrics: Metrics, spec: ModelSpec) -> dict[str, LabelFindings]:
    known = split.targets != UNKNOWN
    predicted = decide(split.scores, spec) & known
    hits = (predicted & (split.targets > 0)).sum(axis=0)
    labels = {}
    for column, name in enumerate(spec.labels):
        measured, positives = metrics.labels[name], int((split.targets[:, column] > 0).sum())
        predictions = int(predicted[:, column].sum())
        labels[name] = LabelFindings(
            AP=measured.AP,
            precision=float(hits[column] / predictions) if predictions else math.nan,
            recall=float(hits[column] / positives) if positives else math.nan,
            F1=measured.F1 if positives else math.nan,
            positives=positives,
            known=int(known[:, column].sum()),
        )
    return labels


def _curve(scores: NDArray[np.float32], targets: NDArray[np.int8], label: LabelFindings) -> Curve:
    precision, recall, threshold = precision_recall_curve(scores, targets)
    # The last point belongs to no threshold. Among equal recalls the first is the most precise.
    rising = slice(-2, None, -1)
    precision, recall, threshold = precision[rising], recall[rising], threshold[::-1]
    first = np.flatnonzero(np.diff(recall, prepend=0) > 0)
    if len(first) > _MAX_POINTS:
        first = first[np.linspace(0, len(first) - 1, _MAX_POINTS).round().astype(int)]
    mark = (label.recall, label.precision)
    return Curve(
        recall=tuple(recall[first].tolist()),
        precision=tuple(precision[first].tolist()),
        threshold=tuple(threshold[first].tolist()),
        mark=mark if all(map(math.isfinite, mark)) else None,
        prevalence=label.positives / label.known,
    )


def _confused(scores: Scores, targets: Targets, spec: ModelSpec) -> tuple[ConfusedPair, ...]:
    """Count, for each pair of labels, the images where one was missed and the other predicted.

    A colour is not confused with a garment: labels of an exclusive group are compared with each
    other only, and labels outside such groups with each other.
    """
    family = np.full(len(spec.labels), -1)
    for index, group in enumerate(spec.groups):
        if group.rule == "one":
            family[[spec.labels.index(label) for label in group.labels]] = index
    present = decide(scores, spec)
    missed = (targets > 0) & ~present
    wrong = (targets == 0) & present
    counts = (missed.T.astype(np.float64) @ wrong) * (family[:, None] == family)
    positives = (targets > 0).sum(axis=0)
    rows, columns = np.nonzero(counts)
    order = np.argsort(-counts[rows, columns], kind="stable")[:_MAX_PAIRS]
    return tuple(
        ConfusedPair(
            truth=spec.labels[row],
            predicted=spec.labels[column],
            count=int(counts[row, column]),
            positives=int(positives[row]),
        )
        for row, column in zip(rows[order], columns[order], strict=True)
    )


def _mistake(split: ScoredSplit, row: int, spec: ModelSpec) -> Mistake:
    targets, present = split.targets[row], decide(split.scores[row : row + 1], spec)[0]
    names = np.array(spec.labels)
    listed = (targets > 0) | present
    return Mistake(
        path=split.paths[row],
        truth=tuple(names[targets > 0].tolist()),
        predicted=tuple(names[present].tolist()),
        unknown=tuple(names[targets == UNKNOWN].tolist()),
        scores={str(names[i]): float(split.scores[row, i]) for i in np.flatnonzero(listed)},
    )


def _speed(history: Sequence[Epoch]) -> Speed | None:
    if not history:
        return None
    # The first epoch fills caches and starts workers.
    rows = history[1:] or history
    seconds = np.array([row.seconds for row in rows], float)
    waits = np.array([row.wait for row in rows], float)
    total = seconds.sum()
    wait = float((seconds * waits).sum() / total) if total > 0 else math.nan
    rates = [row.images_per_s for row in rows if math.isfinite(row.images_per_s)]
    return Speed(
        images_per_s=float(np.median(rates)) if rates else math.nan,
        wait=wait,
        bottleneck=None if math.isnan(wait) else "data" if wait >= _WAITING else "compute",
    )

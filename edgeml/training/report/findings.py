"""What the report of a training says, computed once: for its page, its JSON and its CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeml.data.dataset import cooccurrence
from edgeml.measure.analysis import confusion, precision_recall_curve, worst_errors
from edgeml.measure.metrics import Metrics, evaluate
from edgeml.measure.reliability import Reliability, reliability
from edgeml.spec.decide import decide
from edgeml.spec.labels import UNKNOWN, Scores, Targets
from edgeml.spec.model_spec import ModelSpec

SCHEMA = "edgeml.train/1"

SideName = Literal["val", "test"]

MOST_WORST = 24
"""So many of the worst pictures are shown."""

# So many points of a curve are kept: more than its figure has pixels for.
_MOST_POINTS = 120

# From this share of the time on that training waited, reading counts as the bottleneck.
_WAITING = 0.1

_MOST_PAIRS = 15

# Of an epoch; history.csv has more.
_ROW = (
    "epoch", "lr", "train_loss", "val_loss", "mAP", "macro_F1", "CF1", "OF1", "exact_match",
    "seconds", "images_per_s", "wait",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LabelFindings:
    """One label on one side of the split; NaN where there is nothing to measure it on."""

    AP: float
    precision: float
    recall: float
    F1: float
    positives: int
    known: int


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Precision over recall of one label, thinned; the steps that average precision sums.

    Attributes:
        recall: Rising.
        precision, threshold: At each recall.
        mark: (recall, precision) of the decisions as they are made, by threshold or by group.
        prevalence: The precision of chance.
    """

    recall: tuple[float, ...]
    precision: tuple[float, ...]
    threshold: tuple[float, ...]
    mark: tuple[float, float] | None
    prevalence: float


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupConfusion:
    """Which label of a group was decided where which was true: (G, G), truth in rows."""

    group: str
    labels: tuple[str, ...]
    counts: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Confused:
    """A label that was missed where another was wrongly found.

    Attributes:
        truth, predicted: The one that is on the pictures, the one that was found on them.
        count: On how many pictures.
        positives: How many pictures have `truth`.
    """

    truth: str
    predicted: str
    count: int
    positives: int


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A picture that was got wrong. `scores` has the labels that were true or predicted."""

    path: Path
    truth: tuple[str, ...]
    predicted: tuple[str, ...]
    unknown: tuple[str, ...]
    scores: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How fast training was, the first epoch left out if there are more.

    Attributes:
        images_per_s: The median over epochs.
        wait: The share of the time, 0 to 1, in which training waited for pictures.
        bottleneck: What would have to be faster first; None if that is not known.
    """

    images_per_s: float
    wait: float
    bottleneck: Literal["data", "compute"] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Findings:
    """What was found. Everything but `metrics`, `labels` and `reliability` is of `side`.

    Attributes:
        side: `test`, or `val` if there is no test side.
        metrics: By side.
        labels: By side, then by label.
        group_of: The group of each label that is in one, by name.
        by_group: Labels that are decided by their group and not by their threshold.
        curves: By label; those without a positive have none.
        reliability: `val_before`, `val` and `test`, as far as there are such.
        cooccurrence: (L, L) pictures that have both labels.
        confusions: One a group with rule `one`.
        confused: The most frequent first.
        worst: The worst first.
        speed: None without a history.
    """

    side: SideName
    metrics: dict[SideName, Metrics]
    labels: dict[SideName, dict[str, LabelFindings]]
    group_of: dict[str, str]
    by_group: frozenset[str]
    curves: dict[str, Curve]
    reliability: dict[str, Reliability]
    cooccurrence: NDArray[np.int64]
    confusions: tuple[GroupConfusion, ...]
    confused: tuple[Confused, ...]
    worst: tuple[Mistake, ...]
    speed: Speed | None


def find(training: Training) -> Findings:
    """Measure a training on both sides of its split.

    Raises:
        InputError: Scores, targets and spec do not fit each other, or a score is NaN.
    """
    spec = training.spec
    sides: dict[SideName, Scored] = {"val": training.val}
    if training.test is not None and len(training.test.targets):
        sides["test"] = training.test
    side: SideName = "test" if "test" in sides else "val"
    shown = sides[side]
    metrics = {name: evaluate(one.scores, one.targets, spec) for name, one in sides.items()}
    labels = {name: _labels(one, metrics[name], spec) for name, one in sides.items()}
    diagrams: dict[str, Reliability] = {}
    if training.uncalibrated is not None:
        diagrams["val_before"] = reliability(training.uncalibrated, training.val.targets)
    diagrams |= {name: reliability(one.scores, one.targets) for name, one in sides.items()}
    return Findings(
        side=side,
        metrics=metrics,
        labels=labels,
        group_of={label: group.name for group in spec.groups for label in group.labels},
        by_group=frozenset(
            label for group in spec.groups if group.rule == "one" for label in group.labels
        ),
        curves={
            name: _curve(shown.scores[:, column], shown.targets[:, column], labels[side][name])
            for column, name in enumerate(spec.labels)
            if labels[side][name].positives
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
            for row in worst_errors(shown.scores, shown.targets, spec, MOST_WORST)
        ),
        speed=_speed(training.history),
    )


def report_json(training: Training, found: Findings) -> str:
    """Write all that the page shows as JSON; the keys are stable, NaN becomes null.

    * `schema`: `edgeml.train/1`; `title`, `best_epoch`, `temperature`.
    * `side`: `test` or `val`; what has no side of its own is of this one.
    * `metrics`: by side, `images`, `labels_averaged`, `absent_labels`, and mAP, CP, CR, CF1,
      macro_F1, OP, OR, OF1, exact_match as shares of 1.
    * `labels`: by name, `threshold`, `group`, `decided_by` (`threshold` or `group`), and by side
      AP, precision, recall, F1, positives, known.
    * `history`: one object an epoch.
    * `speed`: `images_per_s`, `wait`, `bottleneck` (`data` or `compute`); or null.
    * `precision_recall`: by label, `recall`, `precision`, `threshold`, thinned; `mark`, the recall
      and precision of the decisions, and `prevalence`.
    * `reliability`: `val_before` (the temperature), `val`, `test`: `edges`, `confidence`,
      `frequency`, `count`, `ece`, `brier`, and `label_ece` by label.
    * `cooccurrence`: `labels` and `counts`, (L, L).
    * `confusion`: by group, `labels` and `counts`, (G, G), the truth in rows.
    * `confused`: `truth`, `predicted`, `count`, `positives`, the most frequent first.
    * `worst`: `path`, `truth`, `predicted`, `unknown`, `scores`, the worst first.
    * `held_out`: `name` and what `metrics` has for a side; or null.
    * `audit`: name and text, in pairs; `config`; `facts`.
    """
    spec = training.spec
    document = {
        "schema": SCHEMA,
        "title": training.title,
        "side": found.side,
        "best_epoch": training.best_epoch,
        "temperature": training.temperature,
        "metrics": {side: _summary(one) for side, one in found.metrics.items()},
        "labels": {
            name: {
                "threshold": threshold,
                "group": found.group_of.get(name),
                "decided_by": "group" if name in found.by_group else "threshold",
                **{side: asdict(of[name]) for side, of in found.labels.items()},
            }
            for name, threshold in zip(spec.labels, spec.thresholds, strict=True)
        },
        "history": [{name: getattr(row, name) for name in _ROW} for row in training.history],
        "speed": asdict(found.speed) if found.speed else None,
        "precision_recall": {name: asdict(curve) for name, curve in found.curves.items()},
        "reliability": {
            name: {
                **asdict(diagram),
                "label_ece": dict(zip(spec.labels, diagram.label_ece.tolist(), strict=True)),
            }
            for name, diagram in found.reliability.items()
        },
        "cooccurrence": {"labels": spec.labels, "counts": found.cooccurrence},
        "confusion": {
            one.group: {"labels": one.labels, "counts": one.counts} for one in found.confusions
        },
        "confused": [asdict(one) for one in found.confused],
        "worst": [asdict(one) for one in found.worst],
        "held_out": (
            {"name": training.held_out_name, **_summary(training.held_out)}
            if training.held_out
            else None
        ),
        "audit": [list(pair) for pair in training.audit],
        "config": dict(training.config),
        "facts": dict(training.facts),
    }
    return json.dumps(jsonable(document), indent=1, ensure_ascii=False) + "\n"


def per_label_csv(training: Training, found: Findings) -> str:
    """Write a row for each label, with the numbers of both sides; what is unknown is empty."""
    numbers = list(LabelFindings.__dataclass_fields__)
    sides = [side for side in ("val", "test") if side in found.labels]
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(
        ["label", "group", "threshold", *(f"{side}_{name}" for side in sides for name in numbers)]
    )
    for name, threshold in zip(training.spec.labels, training.spec.thresholds, strict=True):
        values = [getattr(found.labels[side][name], key) for side in sides for key in numbers]
        rows.writerow(
            [
                name,
                found.group_of.get(name, ""),
                threshold,
                *(_short(value) if math.isfinite(value) else "" for value in values),
            ]
        )
    return text.getvalue()


def jsonable(value: object) -> Any:
    """Give a value as JSON has it: arrays as lists, paths as text, what is not finite as None."""
    match value:
        case Mapping():
            return {str(key): jsonable(one) for key, one in value.items()}
        case np.ndarray() | np.generic():
            return jsonable(value.tolist())
        case bool() | int() | str() | None:
            return value
        case float():
            return _short(value) if math.isfinite(value) else None
        case list() | tuple() | set() | frozenset():
            return [jsonable(one) for one in value]
    return str(value)


def _labels(side: Scored, metrics: Metrics, spec: ModelSpec) -> dict[str, LabelFindings]:
    known = side.targets != UNKNOWN
    claimed = decide(side.scores, spec) & known
    hits = (claimed & (side.targets > 0)).sum(axis=0)
    found = {}
    for column, name in enumerate(spec.labels):
        of, positives = metrics.labels[name], int((side.targets[:, column] > 0).sum())
        claims = int(claimed[:, column].sum())
        found[name] = LabelFindings(
            AP=of.AP,
            precision=float(hits[column] / claims) if claims else math.nan,
            recall=float(hits[column] / positives) if positives else math.nan,
            F1=of.F1 if positives else math.nan,
            positives=positives,
            known=int(known[:, column].sum()),
        )
    return found


def _curve(scores: NDArray[np.float32], targets: NDArray[np.int8], label: LabelFindings) -> Curve:
    precision, recall, threshold = precision_recall_curve(scores, targets)
    # The last point is none of a threshold. Of those with one recall the first claims least.
    rising = slice(-2, None, -1)
    precision, recall, threshold = precision[rising], recall[rising], threshold[::-1]
    first = np.flatnonzero(np.diff(recall, prepend=0) > 0)
    if len(first) > _MOST_POINTS:
        first = first[np.linspace(0, len(first) - 1, _MOST_POINTS).round().astype(int)]
    mark = (label.recall, label.precision)
    return Curve(
        recall=tuple(recall[first].tolist()),
        precision=tuple(precision[first].tolist()),
        threshold=tuple(threshold[first].tolist()),
        mark=mark if all(map(math.isfinite, mark)) else None,
        prevalence=label.positives / label.known,
    )


def _confused(scores: Scores, targets: Targets, spec: ModelSpec) -> tuple[Confused, ...]:
    """Count, for each two labels, the pictures where one was missed and the other wrongly found.

    A colour is not taken for a garment: labels of a group that excludes all but one are compared
    with each other only, and all others with the rest.
    """
    kind = np.full(len(spec.labels), -1)
    for index, group in enumerate(spec.groups):
        if group.rule == "one":
            kind[[spec.labels.index(label) for label in group.labels]] = index
    present = decide(scores, spec)
    missed = (targets > 0) & ~present
    wrong = (targets == 0) & present
    counts = (missed.T.astype(np.float64) @ wrong) * (kind[:, None] == kind)
    positives = (targets > 0).sum(axis=0)
    rows, columns = np.nonzero(counts)
    order = np.argsort(-counts[rows, columns], kind="stable")[:_MOST_PAIRS]
    return tuple(
        Confused(
            truth=spec.labels[row],
            predicted=spec.labels[column],
            count=int(counts[row, column]),
            positives=int(positives[row]),
        )
        for row, column in zip(rows[order], columns[order], strict=True)
    )


def _mistake(side: Scored, row: int, spec: ModelSpec) -> Mistake:
    targets, present = side.targets[row], decide(side.scores[row : row + 1], spec)[0]
    names = np.array(spec.labels)
    told = (targets > 0) | present
    return Mistake(
        path=side.paths[row],
        truth=tuple(names[targets > 0].tolist()),
        predicted=tuple(names[present].tolist()),
        unknown=tuple(names[targets == UNKNOWN].tolist()),
        scores={str(names[i]): float(side.scores[row, i]) for i in np.flatnonzero(told)},
    )


def _speed(history: Sequence[FullRow]) -> Speed | None:
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


def _summary(metrics: Metrics) -> dict[str, object]:
    return {
        "images": metrics.images,
        "labels_averaged": metrics.labels_averaged,
        "absent_labels": metrics.absent,
        **metrics.summary(),
    }


def _short(value: float) -> float:
    """Keep six digits that matter: more are noise, and make the file three times as large."""
    return float(f"{value:.6g}")


class EpochRow(Protocol):
    """One epoch of training; the rows of `edgeml.training`'s history are such."""

    @property
    def epoch(self) -> int: ...

    @property
    def train_loss(self) -> float: ...

    @property
    def val_loss(self) -> float: ...

    @property
    def mAP(self) -> float:
        """On the validation side, a share of 1."""
        ...


class FullRow(EpochRow, Protocol):
    """An epoch as the report of a training shows it. Metrics are shares of 1, on validation."""

    @property
    def lr(self) -> float:
        """The learning rate of the epoch's last step."""
        ...

    @property
    def macro_F1(self) -> float: ...

    @property
    def CF1(self) -> float: ...

    @property
    def OF1(self) -> float: ...

    @property
    def exact_match(self) -> float: ...

    @property
    def seconds(self) -> float:
        """What training took, without the look at the validation side."""
        ...

    @property
    def images_per_s(self) -> float: ...

    @property
    def wait(self) -> float:
        """The share of `seconds`, 0 to 1, in which training waited for pictures."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """One side of the split, read with the weights that were kept.

    Attributes:
        scores: (N, L) float32 probabilities.
        targets: (N, L) int8: 1 present, 0 absent, -1 unknown.
        paths: The N pictures. One that is gone is shown as missing.
    """

    scores: Scores
    targets: Targets
    paths: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Training:
    """All that the report of `edgeml train` shows.

    Attributes:
        title: The headline.
        history: The epochs, first to last.
        spec: Of the kept weights, with its thresholds, groups and origin.
        val: The side by which thresholds, temperature and epoch were chosen.
        test: The side by which nothing was chosen.
        uncalibrated: (N, L) float32 probabilities of `val` before the temperature.
        temperature: What logits are divided by; 1 changes nothing.
        held_out: Metrics on pictures of a combination of labels that training never saw.
        held_out_name: Which combination that is, for example `red + dress`.
        audit: What the audit of the data says in short: (name, text) pairs.
        config: The configuration as it was resolved.
        facts: What stands at the foot: the model, digests, versions.
        best_epoch: The `epoch` of the row whose weights were kept.
    """

    title: str
    history: Sequence[FullRow]
    spec: ModelSpec
    val: Scored
    test: Scored | None = None
    uncalibrated: Scores | None = None
    temperature: float = 1.0
    held_out: Metrics | None = None
    held_out_name: str | None = None
    audit: Sequence[tuple[str, str]] = ()
    config: Mapping[str, object]
    facts: Mapping[str, str]
    best_epoch: int

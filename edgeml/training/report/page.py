"""The report of `edgeml train`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from edgeml.errors import ImageError
from edgeml.files import write_text
from edgeml.image.jpeg import jpeg_url
from edgeml.image.reading import read_image
from edgeml.report.drawn import curve, heatmap
from edgeml.report.page import UNKNOWN, Tile, figure, is_known, percent, write_page
from edgeml.training.report.findings import (
    Findings,
    GroupConfusion,
    Mistake,
    Speed,
    Training,
    find,
    jsonable,
    per_label_csv,
    report_json,
)
from edgeml.training.report.plots import (
    METRICS,
    loss_plot,
    lr_finder_plot,
    metrics_plot,
    rate_plot,
    reliability_plot,
    speed_plot,
)

_SIDES = {"val": "validation", "test": "test"}
_DIAGRAMS = {
    "val_before": "validation, before",
    "val": "validation",
    "test": "test",
}

# So many precision-recall curves are shown, of the labels with the lowest AP.
_MOST_CURVES = 24

# So many pairs of labels that meet are told in words, and so many labels of doubtful probability.
_MOST_PAIRS = 6


@dataclass(frozen=True, kw_only=True)
class _Curve:
    """A precision-recall curve with what stands below it."""

    name: str
    AP: float
    plot: Markup
    decided: str


@dataclass(frozen=True, kw_only=True)
class _Chip:
    """A label of a picture: `right`, `wrong`, `missed`, or `unsaid` if nobody knows the truth."""

    kind: str
    name: str
    score: str


@dataclass(frozen=True, kw_only=True)
class _Picture:
    """A picture that was got wrong; `url` is None if the file cannot be read."""

    url: str | None
    alt: str
    file: str
    chips: tuple[_Chip, ...]


def train_report(training: Training, out: Path) -> None:
    """Write the page to `out`; beside it report.json and per_label.csv, with all its numbers.

    Raises:
        InputError: `out` cannot be written, or what is to be shown does not fit together.
    """
    found = find(training)
    spec = training.spec
    curves, left_out = _curves(training, found)
    write_text(out.with_name("report.json"), report_json(training, found))
    write_text(out.with_name("per_label.csv"), per_label_csv(training, found))
    write_page(
        out,
        "train.html",
        {
            "kind": "training",
            "title": training.title,
            "training": training,
            "found": found,
            "side": _SIDES[found.side],
            "sides": _SIDES,
            "metrics": found.metrics[found.side],
            "tiles": _tiles(found),
            "lead": _lead(training, found),
            "course": _course(training),
            "speed": _speed_told(found.speed),
            "has_unknown": any(
                one.known < found.metrics[side].images
                for side, labels in found.labels.items()
                for one in labels.values()
            ),
            "show_groups": len(set(found.group_of.values())) > 1,
            "never_predicted": [
                name
                for name, one in found.labels[found.side].items()
                if one.positives and not is_known(one.precision)
            ],
            "by_threshold": len(found.by_group) < len(spec.labels),
            "curves": curves,
            "curves_left_out": left_out,
            "reliability": reliability_plot(
                {_named(name, training): one for name, one in found.reliability.items()}
            ),
            "diagrams": [(_named(name, training), one) for name, one in found.reliability.items()],
            "least_reliable": _least_reliable(found, spec.labels),
            "pairs": _pairs(found, spec.labels),
            "cooccurrence": _cooccurrence(found, spec.labels),
            "confusions": [(one, _confusion(one)) for one in found.confusions],
            "pictures": [_picture(one) for one in found.worst],
            "config": json.dumps(jsonable(dict(training.config)), indent=2, ensure_ascii=False),
            "facts": list(training.facts.items()),
        },
    )


def write_lr_report(
    rates: Sequence[float], losses: Sequence[float], suggested: float | None, out: Path
) -> None:
    """Write the page of a search for a learning rate to `out`.

    Args:
        rates: The rate of each step, rising.
        losses: The training loss at each.
        suggested: The rate to take; None if the search found none.
        out: The .html file.

    Raises:
        InputError: `out` cannot be written.
    """
    tiles = [
        Tile(
            name="Suggested",
            value=f"{suggested:.2g}" if suggested is not None else UNKNOWN,
            of="learning rate, for --lr",
        ),
        Tile(name="Tried", value=figure(len(rates), 0), unit="steps", of=_span(rates)),
    ]
    write_page(
        out,
        "lr.html",
        {
            "kind": "training",
            "title": "Learning rates tried",
            "tiles": tiles,
            "plot": lr_finder_plot(rates, losses, suggested),
        },
    )


def _span(rates: Sequence[float]) -> str:
    return f"{min(rates):.2g} to {max(rates):.2g}" if len(rates) else ""


def _tiles(found: Findings) -> list[Tile]:
    metrics, side = found.metrics[found.side], _SIDES[found.side]
    of_labels = f"mean of {metrics.labels_averaged} labels"
    return [
        Tile(name=name, value=percent(value), unit="%" * is_known(value), of=f"{side}: {of}")
        for name, value, of in (
            ("mAP", metrics.mAP, of_labels),
            ("Exact match", metrics.exact_match, "every label right"),
            ("Macro F1", metrics.macro_F1, of_labels),
            ("CF1", metrics.CF1, "labels weigh the same"),
            ("OF1", metrics.OF1, "decisions weigh the same"),
        )
    ]


def _lead(training: Training, found: Findings) -> str:
    count = found.metrics[found.side].images
    images = "one picture" if count == 1 else f"{figure(count, 0)} pictures"
    epochs = len(training.history)
    said = (
        f"Measured on the {images} of the test side, by which nothing was chosen. "
        if found.side == "test"
        else f"There is no test side: measured on the {images} of the validation side, "
        "by which epoch and thresholds were chosen. On new pictures expect less. "
    )
    if epochs < 2:
        return said
    return f"{said}Kept are the weights of epoch {training.best_epoch} of {epochs}."


def _course(training: Training) -> list[tuple[str, Markup]]:
    """Draw what is known of the epochs."""
    history, kept = training.history, training.best_epoch

    def known(*names: str) -> bool:
        return any(is_known(getattr(row, name)) for row in history for name in names)

    plots = []
    if known("train_loss", "val_loss"):
        plots.append(("Loss", loss_plot(history, kept)))
    if known(*METRICS):
        plots.append(("Metrics on the validation side", metrics_plot(history, kept)))
    if known("lr"):
        plots.append(("Learning rate", rate_plot(history)))
    if known("images_per_s"):
        plots.append(("Speed", speed_plot(history)))
    return plots


def _speed_told(speed: Speed | None) -> str:
    if speed is None or not is_known(speed.images_per_s):
        return ""
    said = f"Training ran at {figure(speed.images_per_s, 0)} images a second, the median of epochs"
    match speed.bottleneck:
        case "data":
            gain = f"{1 / max(1 - speed.wait, 0.01):.1f}"
            return (
                f"{said}. For {percent(speed.wait, 0)} % of the time it waited for pictures: "
                "reading them was the bottleneck. Without waiting it would be "
                f"{gain} times as fast."
            )
        case "compute":
            return (
                f"{said}. It waited for pictures {percent(speed.wait, 0)} % of the time: "
                "computing was the bottleneck, not reading."
            )
    return f"{said}."


def _named(diagram: str, training: Training) -> str:
    """Name a reliability diagram by its side, and whether a temperature was applied."""
    if training.uncalibrated is None or diagram == "val_before":
        return _DIAGRAMS[diagram]
    return f"{_DIAGRAMS[diagram]}, after"


def _curves(training: Training, found: Findings) -> tuple[list[_Curve], int]:
    """Draw the curves, in the order of the labels; if there are too many those of the lowest AP."""
    labels = found.labels[found.side]
    thresholds = dict(zip(training.spec.labels, training.spec.thresholds, strict=True))
    chosen = list(found.curves)
    if len(chosen) > _MOST_CURVES:
        chosen = sorted(chosen, key=lambda name: labels[name].AP)[:_MOST_CURVES]
    drawn = []
    for name in chosen:
        of, label = found.curves[name], labels[name]
        group = found.group_of.get(name)
        decided = f"by {group}" if name in found.by_group else f"threshold {thresholds[name]:.2f}"
        at = (
            "nothing was found"
            if of.mark is None
            else (f"precision {percent(of.mark[1])} %, recall {percent(of.mark[0])} %")
        )
        drawn.append(
            _Curve(
                name=name,
                AP=label.AP,
                decided=decided,
                plot=curve(
                    of.recall,
                    of.precision,
                    mark=of.mark,
                    prevalence=of.prevalence,
                    description=f"Precision over recall of {name}: AP {percent(label.AP)} %; {at}.",
                ),
            )
        )
    return drawn, len(found.curves) - len(drawn)


def _cooccurrence(found: Findings, labels: tuple[str, ...]) -> Markup | None:
    counts = found.cooccurrence
    if not counts.any():
        return None
    shares = counts / np.maximum(counts.diagonal()[:, None], 1)
    told = [f"{row} and {column} {count}" for row, column, count in _pairs(found, labels)]
    return heatmap(
        counts,
        shares,
        labels,
        told="{row} with {column}: {count} pictures, {share} of those with {row}",
        between="with ↓ … also →",
        description=f"Which labels occur together. Most often: {', '.join(told) or 'none do'}.",
        diagonal="alone",
    )


def _pairs(found: Findings, labels: tuple[str, ...]) -> list[tuple[str, str, int]]:
    """Give the pairs of labels that are together on most pictures, and on how many."""
    above = np.triu(found.cooccurrence, 1)
    order = np.argsort(-above, axis=None, kind="stable")[:_MOST_PAIRS]
    rows, columns = np.unravel_index(order, above.shape)
    return [
        (labels[row], labels[column], int(above[row, column]))
        for row, column in zip(rows, columns, strict=True)
        if above[row, column]
    ]


def _least_reliable(found: Findings, labels: tuple[str, ...]) -> list[tuple[str, float]]:
    """Give the labels with the highest calibration error of their own, and that error."""
    errors = np.nan_to_num(found.reliability[found.side].label_ece)
    order = np.argsort(-errors, kind="stable")[:_MOST_PAIRS]
    return [(labels[column], float(errors[column])) for column in order if errors[column] > 0]


def _confusion(one: GroupConfusion) -> Markup | None:
    if not one.counts.any():
        return None
    shares = one.counts / np.maximum(one.counts.sum(axis=1, keepdims=True), 1)
    right = one.counts.diagonal().sum() / one.counts.sum()
    return heatmap(
        one.counts,
        shares,
        one.labels,
        told="{row}, taken for {column}: {count} pictures, {share} of those with {row}",
        between="truth ↓  predicted →",
        description=f"Confusion in the group {one.group}: {percent(float(right))} % are right.",
        diagonal="good",
    )


def _picture(mistake: Mistake) -> _Picture:
    try:
        url = jpeg_url(read_image(mistake.path, at_least=(192, 192)))
    except ImageError:
        url = None
    kinds = {
        "right": [one for one in mistake.predicted if one in mistake.truth],
        "wrong": [
            one for one in mistake.predicted if one not in (*mistake.truth, *mistake.unknown)
        ],
        "missed": [one for one in mistake.truth if one not in mistake.predicted],
        "unsaid": [one for one in mistake.predicted if one in mistake.unknown],
    }
    return _Picture(
        url=url,
        alt=f"Picture of {', '.join(mistake.truth) or 'nothing that has a label'}",
        file=mistake.path.name,
        chips=tuple(
            _Chip(kind=kind, name=name, score=f"{mistake.scores[name]:.2f}")
            for kind, names in kinds.items()
            for name in names
        ),
    )

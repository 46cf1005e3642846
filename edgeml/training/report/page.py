"""The HTML report of `edgeml train`, and that of a search for the learning rate."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from edgeml.files import write_text
from edgeml.report.page import UNKNOWN, Tile, figure, image_url, is_known, percent, write_page
from edgeml.report.svg_figures import cooccurrence_heatmap, curve, frequent_pairs, heatmap
from edgeml.training.report.files import jsonable, per_label_csv, report_json
from edgeml.training.report.findings import (
    Findings,
    GroupConfusion,
    Mistake,
    Speed,
    Training,
    analyse,
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

_SPLITS = {"val": "validation", "test": "test"}
# Precision-recall curves to show: those of the labels with the lowest AP.
_MAX_CURVES = 24
# Pairs of labels to list by name, and labels with unreliable probabilities to list.
_MAX_PAIRS = 6


@dataclass(frozen=True, kw_only=True)
class _Curve:
    """A precision-recall curve with its caption."""

    name: str
    AP: float
    plot: Markup
    decided: str


@dataclass(frozen=True, kw_only=True)
class _Chip:
    """A label of an image: `right`, `wrong`, `missed`, or `unknown` if the truth is unknown."""

    kind: str
    name: str
    score: str


@dataclass(frozen=True, kw_only=True)
class _WrongImage:
    """An image with a wrong prediction; `url` is empty if the file cannot be read."""

    url: str
    alt: str
    file: str
    chips: tuple[_Chip, ...]


def train_report(training: Training, out: Path) -> None:
    """Write the page to `out`, and its numbers to report.json and per_label.csv next to it.

    Raises:
        InputError: `out` cannot be written, or scores, targets and spec do not fit together.
    """
    findings = analyse(training)
    spec = training.spec
    after = "" if training.uncalibrated is None else ", after"  # after calibration
    names = {"val_before": "validation, before"}
    names |= {split: f"{name}{after}" for split, name in _SPLITS.items()}
    diagrams = [(names[name], one) for name, one in findings.reliability.items()]
    curves, omitted = _curves(training, findings)
    together = findings.cooccurrence
    pairs = frequent_pairs(together, spec.labels, _MAX_PAIRS)
    write_text(out.with_name("report.json"), report_json(training, findings))
    write_text(out.with_name("per_label.csv"), per_label_csv(training, findings))
    write_page(
        out,
        "train.html",
        {
            "kind": "training",
            "title": training.title,
            "training": training,
            "findings": findings,
            "split": _SPLITS[findings.split],
            "split_names": _SPLITS,
            "metrics": findings.metrics[findings.split],
            "tiles": _tiles(findings),
            "lead": _lead(training, findings),
            "plots": _epoch_plots(training),
            "speed": _speed_text(findings.speed),
            "has_unknown": any(
                one.known < findings.metrics[split].images
                for split, labels in findings.labels.items()
                for one in labels.values()
            ),
            "show_groups": len(set(findings.group_of.values())) > 1,
            "never_predicted": [
                name
                for name, one in findings.labels[findings.split].items()
                if one.positives and not is_known(one.precision)
            ],
            "by_threshold": len(findings.by_group) < len(spec.labels),
            "curves": curves,
            "curves_omitted": omitted,
            "reliability": reliability_plot(dict(diagrams)),
            "diagrams": diagrams,
            "least_reliable": _least_reliable(findings, spec.labels),
            "pairs": pairs,
            "cooccurrence": cooccurrence_heatmap(together, spec.labels, pairs)
            if together.any()
            else None,
            "confusions": [(one, _confusion(one)) for one in findings.confusions],
            "images": [_wrong_image(one) for one in findings.worst],
            "config": json.dumps(jsonable(dict(training.config)), indent=2, ensure_ascii=False),
            "facts": list(training.facts.items()),
        },
    )


def write_lr_report(
    rates: Sequence[float], losses: Sequence[float], suggested: float | None, out: Path
) -> None:
    """Write the losses at rising learning rates, with the suggested rate if there is one, to `out`.

    Raises:
        InputError: `out` cannot be written.
    """
    span = f"{min(rates):.2g} to {max(rates):.2g}" if len(rates) else ""
    tiles = [
        Tile(
            name="Suggested",
            value=f"{suggested:.2g}" if suggested is not None else UNKNOWN,
            of="learning rate, for --lr",
        ),
        Tile(name="Tried", value=figure(len(rates), 0), unit="steps", of=span),
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


def _tiles(findings: Findings) -> list[Tile]:
    metrics, split = findings.metrics[findings.split], _SPLITS[findings.split]
    averaged = f"mean of {metrics.labels_averaged} labels"
    return [
        Tile(name=name, value=percent(value), unit="%" * is_known(value), of=f"{split}: {detail}")
        for name, value, detail in (
            ("mAP", metrics.mAP, averaged),
            ("Exact match", metrics.exact_match, "every label right"),
            ("Macro F1", metrics.macro_F1, averaged),
            ("CF1", metrics.CF1, "labels weigh the same"),
            ("OF1", metrics.OF1, "decisions weigh the same"),
        )
    ]


def _lead(training: Training, findings: Findings) -> str:
    count = findings.metrics[findings.split].images
    images = "one image" if count == 1 else f"{figure(count, 0)} images"
    epochs = len(training.history)
    lead = (
        f"Measured on the {images} of the test split, by which nothing was chosen. "
        if findings.split == "test"
        else f"There is no test split: measured on the {images} of the validation split, "
        "by which epoch and thresholds were chosen. Expect less on new images. "
    )
    if epochs < 2:
        return lead
    return f"{lead}The saved weights are those of epoch {training.best_epoch} of {epochs}."


def _epoch_plots(training: Training) -> list[tuple[str, Markup]]:
    """Return the titles and plots of all epoch columns that have values."""
    history, best = training.history, training.best_epoch

    def known(*names: str) -> bool:
        return any(is_known(getattr(row, name)) for row in history for name in names)

    plots = []
    if known("train_loss", "val_loss"):
        plots.append(("Loss", loss_plot(history, best)))
    if known(*METRICS):
        plots.append(("Metrics on the validation split", metrics_plot(history, best)))
    if known("lr"):
        plots.append(("Learning rate", rate_plot(history)))
    if known("images_per_s"):
        plots.append(("Speed", speed_plot(history)))
    return plots


def _speed_text(speed: Speed | None) -> str:
    if speed is None or not is_known(speed.images_per_s):
        return ""
    text = f"Training ran at {figure(speed.images_per_s, 0)} images per second (median of epochs)."
    if speed.bottleneck is None:
        return text
    text += f" It waited for images {percent(speed.wait, 0)} % of the time: "
    if speed.bottleneck == "compute":
        return f"{text}computing was the bottleneck, not reading."
    gain = f"{1 / max(1 - speed.wait, 0.01):.1f}"
    return (
        f"{text}reading them was the bottleneck. Without waiting it would be {gain} times as fast."
    )


def _curves(training: Training, findings: Findings) -> tuple[list[_Curve], int]:
    """Draw the curves of the labels with the lowest AP; return also the number of omitted ones."""
    labels = findings.labels[findings.split]
    thresholds = dict(zip(training.spec.labels, training.spec.thresholds, strict=True))
    chosen = list(findings.curves)
    if len(chosen) > _MAX_CURVES:
        chosen = sorted(chosen, key=lambda name: labels[name].AP)[:_MAX_CURVES]
    drawn = []
    for name in chosen:
        values, label = findings.curves[name], labels[name]
        group = findings.group_of.get(name)
        decided = (
            f"by {group}" if name in findings.by_group else f"threshold {thresholds[name]:.2f}"
        )
        mark = "nothing was predicted"
        if values.mark is not None:
            mark = f"precision {percent(values.mark[1])} %, recall {percent(values.mark[0])} %"
        summary = f"AP {percent(label.AP)} %; {mark}"
        drawn.append(
            _Curve(
                name=name,
                AP=label.AP,
                decided=decided,
                plot=curve(
                    values.recall,
                    values.precision,
                    mark=values.mark,
                    prevalence=values.prevalence,
                    description=f"Precision over recall of {name}: {summary}.",
                ),
            )
        )
    return drawn, len(findings.curves) - len(drawn)


def _least_reliable(findings: Findings, labels: tuple[str, ...]) -> list[tuple[str, float]]:
    """Return the labels with the highest calibration error, and that error."""
    errors = np.nan_to_num(findings.reliability[findings.split].label_ece)
    order = np.argsort(-errors, kind="stable")[:_MAX_PAIRS]
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
        cell_text="{row}, predicted as {column}: {count} images, {share} of those with {row}",
        between="truth ↓  predicted →",
        description=f"Confusion in the group {one.group}: {percent(float(right))} % are right.",
        diagonal="good",
    )


def _wrong_image(mistake: Mistake) -> _WrongImage:
    kinds = {
        "right": [one for one in mistake.predicted if one in mistake.truth],
        "wrong": [
            one for one in mistake.predicted if one not in (*mistake.truth, *mistake.unknown)
        ],
        "missed": [one for one in mistake.truth if one not in mistake.predicted],
        "unknown": [one for one in mistake.predicted if one in mistake.unknown],
    }
    return _WrongImage(
        url=image_url(mistake.path, 192),
        alt=f"Image with {', '.join(mistake.truth) or 'no label'}",
        file=mistake.path.name,
        chips=tuple(
            _Chip(kind=kind, name=name, score=f"{mistake.scores[name]:.2f}")
            for kind, names in kinds.items()
            for name in names
        ),
    )

"""Predictions and predictors as one line of text, or as HTML in a notebook.

The HTML has no scripts and no style sheet, and loads nothing. Text and lines have the colour of the
page around them, so they are as readable on dark pages as on light ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

from edgeml.spec.model_spec import ModelSpec, labels_summary, printable_label

if TYPE_CHECKING:
    from edgeml.predict.picture import Picture
    from edgeml.runtimes import Runtime
    from edgeml.spec.labels import Scores

# What is shown of a model with a thousand labels.
_ROWS = 12
_MIN_SCORE = 0.01
_NAMES = 24

# A contrast of 3:1 and more to white and to #111 (WCAG 2.2, 1.4.11: graphics).
_PRESENT = "#1f9d6b"
_QUIET = "opacity:.66"


def prediction_line(spec: ModelSpec, scores: Scores, labels: Sequence[str]) -> str:
    """Return the present labels with their scores, best first; without any, the best label."""
    ranked = _ranked(spec, scores)
    present = [item for item in ranked if item[0] in labels]
    if not present:
        label, score = ranked[0]
        return f"Prediction(no label; best is {printable_label(label)} {score:.2f})"
    shown = [f"{printable_label(label)} {score:.2f}" for label, score in present[:5]]
    if len(present) > len(shown):
        shown.append(f"and {len(present) - len(shown)} more")
    return f"Prediction({', '.join(shown)})"


def predictor_line(runtime: Runtime, spec: ModelSpec) -> str:
    """Return the runtime, its precision and the labels on one line."""
    computes_in = runtime.metadata.get("precision", "unknown")
    return f"Predictor({runtime.name}, computes in {computes_in}, {labels_summary(spec.labels, 5)})"


def prediction_html(
    spec: ModelSpec, scores: Scores, labels: Sequence[str], picture: Picture | None
) -> str:
    """Show the image, and a bar for each label that matters, group by group."""
    url = picture.url(224) if picture else None
    image = (
        f'<img src="{url}" alt="the image" style="max-width:224px;max-height:224px;'
        'border-radius:4px;margin:0">'
        if url
        else ""
    )
    grid = (
        "display:grid;grid-template-columns:auto minmax(90px,180px) auto auto;column-gap:10px;"
        "row-gap:3px;align-items:center;align-content:start"
    )
    return (
        '<div style="display:flex;flex-wrap:wrap;gap:18px;align-items:flex-start;'
        'font-size:13px;line-height:1.35;padding:4px 0">'
        f'{image}<div style="{grid}">{"".join(_bars(spec, scores, labels))}</div></div>'
    )


def predictor_html(runtime: Runtime, spec: ModelSpec) -> str:
    """Show the runtime and the spec, as `edgeml inspect` does."""
    shape = ", ".join("N" if side is None else str(side) for side in runtime.input_shape)
    facts = [
        ("computes in", escape(runtime.metadata.get("precision", "unknown"))),
        ("input shape", f"({shape})"),
        *_spec_facts(spec),
    ]
    cells = "".join(
        f'<div style="{_QUIET}">{name}</div><div style="overflow-wrap:anywhere">{value}</div>'
        for name, value in facts
    )
    return (
        '<div style="font-size:13px;line-height:1.45;padding:4px 0;max-width:760px">'
        f'<div style="font-weight:600;margin-bottom:4px">{escape(runtime.name)}</div>'
        '<div style="display:grid;grid-template-columns:max-content 1fr;column-gap:14px;'
        f'row-gap:2px;text-align:left">{cells}</div></div>'
    )


def _ranked(spec: ModelSpec, scores: Scores) -> list[tuple[str, float]]:
    """Return all labels with their scores, best first."""
    return sorted(
        zip(spec.labels, map(float, scores), strict=True), key=lambda item: item[1], reverse=True
    )


def _bars(spec: ModelSpec, scores: Scores, labels: Sequence[str]) -> Iterator[str]:
    """Yield a heading for each group and four cells for each of its labels that is shown."""
    ranked = _ranked(spec, scores)
    score_of = dict(ranked)
    threshold_of = dict(zip(spec.labels, spec.thresholds, strict=True))
    present = set(labels)
    shown = present | {label for label, score in ranked[:_ROWS] if score >= _MIN_SCORE}
    for heading, members, one in _sections(spec):
        if heading:
            yield f'<div style="grid-column:1/-1;{_QUIET};margin-top:4px">{heading}</div>'
        best_first = sorted(members, key=lambda label: -score_of[label])
        drawn = [label for label in best_first if label in shown] or best_first[:1]
        for label in drawn:
            # Where one label is chosen, it is the best one, whatever its threshold.
            threshold = None if one else threshold_of[label]
            yield _bar(label, score_of[label], threshold, label in present)
        if rest := [label for label in best_first if label not in drawn]:
            best = score_of[rest[0]]
            limit = f"at most {best:.2f}" if best >= _MIN_SCORE else f"under {_MIN_SCORE}"
            text = f"{len(rest)} more, {limit}"
            yield f'<div style="grid-column:1/-1;{_QUIET}">{text}</div>'


def _bar(label: str, score: float, threshold: float | None, present: bool) -> str:
    weight, sign = ("600", "&#10003;") if present else ("400", "")
    length = f"{100 * min(max(score, 0.0), 1.0) if math.isfinite(score) else 0:.1f}%"
    colour = _PRESENT if present else "rgba(128,128,128,.7)"
    track = "rgba(128,128,128,.2)"
    layers = [f"linear-gradient(90deg,{colour} {length},{track} {length})"]
    title = f"{label}: {score:.4f}"
    if threshold is not None:
        at = f"{100 * threshold:.1f}%"
        layers.insert(
            0,
            f"linear-gradient(90deg,transparent calc({at} - 1px),currentColor calc({at} - 1px),"
            f"currentColor calc({at} + 1px),transparent calc({at} + 1px))",
        )
        title += f", threshold {threshold:.4g}"
    return (
        f'<div style="font-weight:{weight};overflow-wrap:anywhere;text-align:left">'
        f"{escape(label)}</div>"
        f'<div title="{escape(title)}" style="height:12px;border-radius:2px;'
        f'background:{",".join(layers)}"></div>'
        f'<div style="font-weight:{weight};font-variant-numeric:tabular-nums">{score:.2f}</div>'
        f'<div style="color:{_PRESENT};font-weight:700;min-width:1em">{sign}</div>'
    )


def _sections(spec: ModelSpec) -> Iterator[tuple[str, Sequence[str], bool]]:
    """Yield a heading, its labels, and whether exactly one of them is chosen."""
    if spec.task == "multiclass":
        yield f"one of {len(spec.labels)}", spec.labels, True
        return
    for group in spec.groups:
        one = group.rule == "one"
        kind = f", one of {len(group.labels)}" if one else ""
        yield f"{escape(group.name)}{kind}", group.labels, one
    grouped = {label for group in spec.groups for label in group.labels}
    if others := [label for label in spec.labels if label not in grouped]:
        yield "other labels" if grouped else "", others, False


def _spec_facts(spec: ModelSpec) -> Iterator[tuple[str, str]]:
    threshold_of = dict(zip(spec.labels, spec.thresholds, strict=True))
    for heading, labels, one in _sections(spec):
        shown = [escape(label) for label in labels[:_NAMES]]
        if not one:
            at = (f"&ge;&nbsp;{threshold_of[label]:.2g}" for label in labels)
            shown = [
                f'{name}&nbsp;<span style="{_QUIET}">{threshold}</span>'
                for name, threshold in zip(shown, at, strict=False)
            ]
        if len(labels) > len(shown):
            shown.append(f"and {len(labels) - len(shown)} more")
        yield heading or "labels", ", ".join(shown)
    frame = spec.preprocess
    height, width = frame.size
    mean, std = (" ".join(f"{value:g}" for value in levels) for levels in (frame.mean, frame.std))
    yield "image", f"{width} x {height}, {escape(frame.resize)}, {escape(frame.interpolation)}"
    yield "input", f"{escape(spec.input)}, {escape(frame.channels)}, mean {mean}, std {std}"
    yield "activation", escape(spec.activation)
    yield "precision", escape(spec.precision)
    if spec.metrics:
        yield "metrics", ", ".join(f"{escape(k)} {v:.4g}" for k, v in spec.metrics.items())
    for name, value in spec.provenance.to_texts().items():
        text = value if len(value) <= 80 else f"{value[:60]}..."
        yield f"provenance, {escape(name)}", escape(text)

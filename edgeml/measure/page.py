"""The report of an export, and of any comparison of two models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from edgeml.benchmark.speedup import Speedup
from edgeml.measure.bootstrap import ApLoss
from edgeml.measure.compare import Fidelity, Recovery
from edgeml.measure.plots import damage_plot, difference_plot, steps_plot
from edgeml.report.page import Tile, figure, is_known, percent, signed, write_page
from edgeml.report.svg_figures import Scale, axis, density, whisker
from edgeml.spec.labels import Scores

# The table names this many of the most damaging nodes; the plot shows all.
_MAX_NODES = 12

# The page names this many of the labels that flip most.
_MAX_FLIPS = 6

# The share of labels whose intervals fit the axis entirely.
_SHARE_OF_INTERVALS = 0.85

_RECOVERED = ("CF1", "OF1", "macro_F1", "exact_match", "mAP")


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """The contents of the page. What is None or empty is omitted.

    Attributes:
        kind: The text above the headline: `export`, `comparison` or `check`.
        title: The headline, for example `model.int8.onnx`.
        reference, candidate: The names of the two models, for example `FP32` and `INT8`.
        fidelity: The four levels, and the verdict.
        findings: The reasons for a refusal, a sentence each.
        max_drop: Points of mAP that may be lost; None or infinite without a limit.
        max_label_drop: Points of AP that any one label may lose.
        scores: (N, labels) float32 probabilities of both models.
        recovery: What new thresholds recover.
        methods: The divergence on the fitting images by calibration method; NaN or infinite if it
            could not be measured.
        method: The method that was chosen.
        mixed: A `MixedPrecision` of the export layer.
        speed: The speed of the candidate relative to the reference on this machine.
        calibration: A `Calibration` of the export layer.
        overlap: The number of its images that also serve fitting or reporting.
        notes: Other remarks, a sentence each.
        facts: The footer: files, digests, versions, target, seconds.
    """

    kind: str = "comparison"
    title: str
    reference: str
    candidate: str
    fidelity: Fidelity
    findings: Sequence[str] = ()
    max_drop: float | None = None
    max_label_drop: float | None = None
    scores: tuple[Scores, Scores] | None = None
    recovery: Recovery | None = None
    methods: Mapping[str, float] = field(default_factory=dict)
    method: str = ""
    mixed: Any = None
    speed: Speedup | None = None
    calibration: Any = None
    overlap: int = 0
    notes: Sequence[str] = ()
    facts: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A label in the table, or mAP, which has no positives, flips and thresholds.

    Attributes:
        before, after: AP, shares of 1.
        drop: The loss, and `plot` its figure.
        flips: Images on which the label flips.
        thresholds: Those of the reference and of the candidate.
        over: Whether the loss exceeds its limit.
    """

    name: str
    positives: int | None = None
    before: float
    after: float
    drop: ApLoss
    plot: Markup
    flips: int | None = None
    thresholds: tuple[float, float] | None = None
    over: bool


def export_report(comparison: Comparison, out: Path) -> None:
    """Write the page to `out`.

    Raises:
        InputError: `out` cannot be written.
    """
    fidelity, mixed, speed = comparison.fidelity, comparison.mixed, comparison.speed
    ranked = enumerate(mixed.nodes if mixed else (), start=1)
    flips = sorted(fidelity.flips.items(), key=lambda pair: -pair[1])
    scale = _scale(comparison)
    write_page(
        out,
        "export.html",
        {
            "kind": comparison.kind,
            "title": comparison.title,
            "comparison": comparison,
            "fidelity": fidelity,
            "lead": _lead(comparison),
            "tiles": _tiles(comparison),
            "flipping": [(name, count) for name, count in flips[:_MAX_FLIPS] if count],
            "overall": _overall(comparison, scale),
            "rows": _rows(comparison, scale),
            "axis": axis(scale),
            "refitted": any(
                before.threshold != fidelity.exported.labels[name].threshold
                for name, before in fidelity.reference.labels.items()
            ),
            "recovered": _recovered(comparison.recovery),
            "methods": sorted(
                comparison.methods.items(),
                key=lambda method: method[1] if is_known(method[1]) else math.inf,
            ),
            "named": [(r, node) for r, node in ranked if r <= _MAX_NODES or node.in_float],
            "damage": damage_plot(mixed.nodes, mixed.unit) if mixed and mixed.nodes else None,
            "steps": steps_plot(mixed.steps, comparison.max_drop)
            if mixed and mixed.steps
            else None,
            "speed": speed.sentence(comparison.candidate, comparison.reference) if speed else "",
            "plots": _plots(comparison),
        },
    )


def _scale(comparison: Comparison) -> Scale:
    """Return an axis with room for every loss, both limits, and most of the intervals.

    The intervals of a few rare labels would flatten all others: they run off the edge.
    """
    drops = [comparison.fidelity.drops.mAP, *comparison.fidelity.drops.labels.values()]
    limits = [limit for limit in (comparison.max_drop, comparison.max_label_drop) if limit]
    points = [drop.points for drop in drops if is_known(drop.points)]
    # Less than a fifth of a point does not matter: the axis never makes it look large.
    shown = [-0.1, 0.1, *points, *filter(is_known, limits)]
    ends = [(drop.low, drop.high) for drop in drops if is_known(drop.low)] or [(0.0, 0.0)]
    low = np.quantile([low for low, _ in ends], 1 - _SHARE_OF_INTERVALS)
    high = np.quantile([high for _, high in ends], _SHARE_OF_INTERVALS)
    return Scale(low=min(*shown, float(low)), high=max(*shown, float(high)))


def _overall(comparison: Comparison, scale: Scale) -> _Row:
    fidelity, drop = comparison.fidelity, comparison.fidelity.drops.mAP
    over = _exceeds(drop.points, comparison.max_drop)
    return _Row(
        name="mAP",
        before=fidelity.reference.mAP,
        after=fidelity.exported.mAP,
        drop=drop,
        plot=whisker(drop.points, drop.low, drop.high, scale, comparison.max_drop, over=over),
        over=over,
    )


def _rows(comparison: Comparison, scale: Scale) -> list[_Row]:
    """Return the labels, the largest loss first; labels without a positive are last."""
    fidelity, limit = comparison.fidelity, comparison.max_label_drop
    rows = []
    for name, before in fidelity.reference.labels.items():
        after, drop = fidelity.exported.labels[name], fidelity.drops.labels[name]
        # A loss whose interval includes 0 may be chance: it does not count against the label.
        over = _exceeds(drop.points, limit) and drop.low > 0
        rows.append(
            _Row(
                name=name,
                positives=before.positives,
                before=before.AP,
                after=after.AP,
                drop=drop,
                plot=whisker(drop.points, drop.low, drop.high, scale, limit, over=over),
                flips=fidelity.flips[name],
                thresholds=(before.threshold, after.threshold),
                over=over,
            )
        )
    return sorted(rows, key=lambda row: -row.drop.points if is_known(row.drop.points) else math.inf)


def _exceeds(points: float, limit: float | None) -> bool:
    return limit is not None and points > limit


def _lead(comparison: Comparison) -> str:
    fidelity, drop = comparison.fidelity, comparison.fidelity.drops.mAP
    images = f"{figure(fidelity.images, 0)} image{'s' if fidelity.images != 1 else ''}"
    flips = f"{figure(fidelity.label_flips_per_1000, 2)} of 1000 decisions differ"
    names = f"{comparison.candidate} against {comparison.reference}, on {images}"
    if not is_known(drop.points):
        return f"{names}: {flips}. No image has a label, so there is no mAP."
    if f"{drop.points:.2f}" in ("0.00", "-0.00"):
        return f"{names}: {flips}, and no mAP is lost."
    verb = "lost" if drop.points > 0 else "gained"
    return f"{names}: {flips}, and {abs(drop.points):.2f} points of mAP are {verb}."


def _tiles(comparison: Comparison) -> list[Tile]:
    fidelity, drop = comparison.fidelity, comparison.fidelity.drops.mAP
    interval = f"95 %: {signed(drop.low)} to {signed(drop.high)}"
    exact = percent(fidelity.exported.exact_match)
    of = f"{comparison.reference}: {percent(fidelity.reference.exact_match)} %"
    flips = figure(fidelity.label_flips_per_1000, 2)
    tiles = [
        Tile(name="mAP lost", value=signed(drop.points), unit="points", of=interval),
        Tile(name="Exact match", value=exact, unit="%", of=of),
        Tile(name="Label flips", value=flips, of="of 1000 decisions"),
    ]
    if speed := comparison.speed:
        of = f"{speed.low:.2f} to {speed.high:.2f}, on this machine"
        tiles.append(Tile(name="Speed", value=f"{speed.ratio:.2f}×", of=of))
    if mixed := comparison.mixed:
        of = f"of {figure(mixed.quantizable, 0)} nodes"
        count = figure(sum(node.in_float for node in mixed.nodes), 0)
        tiles.append(Tile(name="Back in float", value=count, of=of))
    return tiles


def _recovered(recovery: Recovery | None) -> list[tuple[str, float, float, float]]:
    """Return the name of each metric, and its values before, with old and with new thresholds."""
    if recovery is None:
        return []
    before, unfitted, fitted = (
        one.summary() for one in (recovery.before, recovery.unfitted, recovery.fitted)
    )
    return [(n.replace("_", " "), before[n], unfitted[n], fitted[n]) for n in _RECOVERED]


def _plots(comparison: Comparison) -> list[tuple[str, Markup]]:
    if comparison.scores is None or not comparison.scores[0].size:
        return []
    before, after = comparison.scores
    names = (f"probability, {comparison.reference}", f"probability, {comparison.candidate}")
    description = f"Probabilities of {comparison.candidate} over those of {comparison.reference}."
    return [
        ("One against the other", density(before.ravel(), after.ravel(), names, description)),
        ("Size of the differences", difference_plot(np.abs(before.astype(np.float64) - after))),
    ]

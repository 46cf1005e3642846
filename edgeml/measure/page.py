"""The report of an export, and of any comparison of two models."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from edgeml.measure.bootstrap import Drop
from edgeml.measure.contents import Comparison, MixedPrecision, RankedNode, Recovery
from edgeml.measure.plots import damage_plot, difference_plot, steps_plot
from edgeml.report.drawn import Scale, axis, density, whisker
from edgeml.report.page import Tile, figure, is_known, percent, signed, write_page

# So many nodes are named, the most damaging ones; all are in the plot.
_MOST_NODES = 12

# So many labels are named among those that flip most.
_MOST_FLIPS = 6

# Of all labels, as a share of 1, so many have room for the whole of an interval.
_MOST_INTERVALS = 0.85

_RECOVERED = {
    "CF1": "CF1",
    "OF1": "OF1",
    "macro_F1": "macro F1",
    "exact_match": "exact match",
    "mAP": "mAP",
}


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A label in the table; mAP is one without flips and thresholds.

    Attributes:
        name: Of the label.
        positives: Images that show it; None for mAP.
        before, after: AP, shares of 1.
        drop: What was lost.
        plot: The same, drawn.
        flips: Images on which it flips; None for mAP.
        thresholds: Of the reference and of the candidate; None for mAP.
        over: Whether more was lost than is allowed.
    """

    name: str
    positives: int | None = None
    before: float
    after: float
    drop: Drop
    plot: Markup
    flips: int | None = None
    thresholds: tuple[float, float] | None = None
    over: bool


@dataclass(frozen=True, kw_only=True)
class _Recovered:
    """A metric before, with the old thresholds and with new ones; shares of 1."""

    name: str
    before: float
    unfitted: float
    fitted: float


def export_report(comparison: Comparison, out: Path) -> None:
    """Write the page to `out`.

    Raises:
        InputError: `out` cannot be written.
    """
    fidelity = comparison.fidelity
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
            "flipping": _flipping(fidelity.flips),
            "overall": _overall(comparison, scale),
            "rows": _rows(comparison, scale),
            "axis": axis(scale),
            "refitted": any(
                before.threshold != fidelity.exported.labels[name].threshold
                for name, before in fidelity.reference.labels.items()
            ),
            "recovered": _recovered(comparison.recovery),
            "methods": sorted(comparison.methods.items(), key=_divergence),
            "named": _named(comparison.mixed),
            "damage": _damage(comparison.mixed),
            "steps": _steps(comparison),
            "speed": _speed(comparison),
            "plots": _plots(comparison),
        },
    )


def _scale(comparison: Comparison) -> Scale:
    """Find an axis with room for every loss, both limits, and most of the intervals.

    Those of a few rare labels would press all others flat: they run off the edge.
    """
    drops = [comparison.fidelity.drops.mAP, *comparison.fidelity.drops.labels.values()]
    limits = [limit for limit in (comparison.max_drop, comparison.max_label_drop) if limit]
    # Less than a fifth of a point is nothing: the axis never makes it look like much.
    points = [drop.points for drop in drops if is_known(drop.points)]
    shown = [-0.1, 0.1, *points, *filter(is_known, limits)]
    ends = [(drop.low, drop.high) for drop in drops if is_known(drop.low)] or [(0.0, 0.0)]
    low = np.quantile([low for low, _ in ends], 1 - _MOST_INTERVALS)
    high = np.quantile([high for _, high in ends], _MOST_INTERVALS)
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
    """Give the labels, those that lost most first; those without a positive last."""
    fidelity, limit = comparison.fidelity, comparison.max_label_drop
    rows = []
    for name, before in fidelity.reference.labels.items():
        after, drop = fidelity.exported.labels[name], fidelity.drops.labels[name]
        # Outside its interval: a loss that chance explains is not held against the label.
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
    """Say in a sentence what the candidate is worth beside the reference."""
    fidelity, drop = comparison.fidelity, comparison.fidelity.drops.mAP
    images = f"{figure(fidelity.images, 0)} image{'s' if fidelity.images != 1 else ''}"
    flips = f"{figure(fidelity.label_flips_per_1000, 2)} of 1000 decisions differ"
    names = f"{comparison.candidate} against {comparison.reference}, on {images}"
    if not is_known(drop.points):
        return f"{names}: {flips}. No image shows a label, so that there is no mAP."
    if f"{drop.points:.2f}" in ("0.00", "-0.00"):
        return f"{names}: {flips}, and no mAP is lost."
    verb = "lost" if drop.points > 0 else "gained"
    return f"{names}: {flips}, and {abs(drop.points):.2f} points of mAP are {verb}."


def _tiles(comparison: Comparison) -> list[Tile]:
    fidelity, drop = comparison.fidelity, comparison.fidelity.drops.mAP
    tiles = [
        Tile(
            name="mAP lost",
            value=signed(drop.points),
            unit="points",
            of=f"95 %: {signed(drop.low)} to {signed(drop.high)}",
        ),
        Tile(
            name="Exact match",
            value=percent(fidelity.exported.exact_match),
            unit="%",
            of=f"{comparison.reference}: {percent(fidelity.reference.exact_match)} %",
        ),
        Tile(
            name="Label flips",
            value=figure(fidelity.label_flips_per_1000, 2),
            of="of 1000 decisions",
        ),
    ]
    if comparison.speed:
        tiles.append(
            Tile(
                name="Speed",
                value=f"{comparison.speed.ratio:.2f}×",
                of=f"{comparison.speed.low:.2f} to {comparison.speed.high:.2f}, on this machine",
            )
        )
    if comparison.mixed:
        count = sum(node.in_float for node in comparison.mixed.nodes)
        of = f"of {figure(comparison.mixed.quantizable, 0)} nodes"
        tiles.append(Tile(name="Back in float", value=figure(count, 0), of=of))
    return tiles


def _flipping(flips: dict[str, int]) -> list[tuple[str, int]]:
    """Name the labels that flip most."""
    most = sorted(flips.items(), key=lambda pair: -pair[1])
    return [(name, count) for name, count in most[:_MOST_FLIPS] if count]


def _recovered(recovery: Recovery | None) -> list[_Recovered]:
    if recovery is None:
        return []
    values = [one.summary() for one in (recovery.before, recovery.unfitted, recovery.fitted)]
    return [
        _Recovered(
            name=shown, before=values[0][name], unfitted=values[1][name], fitted=values[2][name]
        )
        for name, shown in _RECOVERED.items()
    ]


def _divergence(method: tuple[str, float]) -> float:
    return method[1] if is_known(method[1]) else math.inf


def _named(mixed: MixedPrecision | None) -> list[tuple[int, RankedNode]]:
    """Give the most damaging nodes, and all that are in float, with their ranks."""
    ranked = enumerate(mixed.nodes if mixed else (), start=1)
    return [(rank, node) for rank, node in ranked if rank <= _MOST_NODES or node.in_float]


def _damage(mixed: MixedPrecision | None) -> Markup | None:
    return damage_plot(mixed) if mixed and mixed.nodes else None


def _steps(comparison: Comparison) -> Markup | None:
    mixed = comparison.mixed
    return steps_plot(mixed.steps, comparison.max_drop) if mixed and mixed.steps else None


def _speed(comparison: Comparison) -> str:
    if comparison.speed is None:
        return ""
    return comparison.speed.sentence(comparison.candidate, comparison.reference)


def _plots(comparison: Comparison) -> list[tuple[str, Markup]]:
    if comparison.scores is None or not comparison.scores[0].size:
        return []
    before, after = comparison.scores
    names = (f"probability, {comparison.reference}", f"probability, {comparison.candidate}")
    told = f"Probabilities of {comparison.candidate} over those of {comparison.reference}."
    return [
        ("One against the other", density(before.ravel(), after.ravel(), names, told)),
        ("How far apart", difference_plot(np.abs(before.astype(np.float64) - after))),
    ]

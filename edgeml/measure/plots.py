"""DOOR matplotlib: the plots of an export: how outputs differ, and what single nodes cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from edgeml.report.page import SUPERSCRIPTS
from edgeml.report.svg import CARD, MUTED, SERIES, WIDTH, axes_of, markup, styled

# Smaller differences are drawn at this value: a logarithmic axis has no 0.
_MIN_DIFFERENCE = 1e-8


def difference_plot(difference: NDArray[np.floating]) -> Markup:
    """Plot the distribution of absolute differences of probabilities, on a logarithmic axis."""
    values = np.clip(difference.ravel(), _MIN_DIFFERENCE, 1)
    with styled():
        figure, axes = axes_of(WIDTH, 250)
        bins = np.logspace(-8, 0, 49)
        axes.hist(values, bins=bins.tolist(), color=SERIES[0], alpha=0.85)
        axes.set_xscale("log")
        axes.set_yscale("log", nonpositive="clip")
        axes.set_ylim(bottom=0.7)
        axes.set_xlim(_MIN_DIFFERENCE, 1)
        axes.set_xlabel("difference of a probability; left: 10⁻⁸ and less")
        axes.set_ylabel("decisions")
        axes.xaxis.set_major_locator(LogLocator(numticks=9))
        axes.xaxis.set_major_formatter(FuncFormatter(_power))
        axes.yaxis.set_major_locator(LogLocator(numticks=6))
        axes.yaxis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{value:,.0f}".replace(",", " "))
        )
        for one in (axes.xaxis, axes.yaxis):
            one.set_minor_locator(NullLocator())
        middle, tail = np.quantile(values, (0.5, 0.99))
        return markup(
            figure,
            "difference",
            f"Differences of probabilities: half of them are at most {middle:.2g}, "
            f"99 % at most {tail:.2g}.",
        )


def damage_plot(nodes: Sequence[Any], unit: str) -> Markup:
    """Plot the damage of each `RankedNode` by rank; nodes in floating point stand out."""
    damage = np.array([node.damage for node in nodes], float)
    rank = np.arange(1, len(damage) + 1)
    in_float = np.array([node.in_float for node in nodes], bool)
    known = np.isfinite(damage) & (damage > 0)
    # The axis begins below the smallest value, but no lower than 10⁻⁶ of the largest.
    bottom = max(damage[known].min(), 1e-6 * damage[known].max()) / 2 if known.any() else 0.1
    with styled():
        figure, axes = axes_of(WIDTH, 280)
        heights = np.where(known, damage, bottom * 1.15)
        for chosen, colour, label in (
            (~in_float, SERIES[5], "in INT8"),
            (in_float, SERIES[1], "back in float"),
        ):
            axes.bar(rank[chosen], heights[chosen] - bottom, 0.8, bottom, color=colour, label=label)
        axes.set_yscale("log")
        axes.set_ylim(bottom=bottom)
        axes.set_xlim(0.3, max(len(rank), 4) + 0.7)
        axes.grid(visible=False, axis="x")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("node, by what it costs to quantise it")
        axes.set_ylabel(unit)
        figure.legend(loc="outside lower center", ncols=2, fontsize=11)
        return markup(
            figure,
            "damage",
            f"The cost of each of {len(rank)} nodes. The most: {nodes[0].name}, "
            f"{nodes[0].damage:.3g}. {int(in_float.sum())} are back in float.",
        )


def steps_plot(steps: Sequence[tuple[int, float]], limit: float | None) -> Markup:
    """Plot the points of mAP that are lost over the number of nodes in floating point."""
    ordered = sorted(steps)
    with styled():
        figure, axes = axes_of(WIDTH, 280)
        counts, lost = [count for count, _ in ordered], [points for _, points in ordered]
        axes.plot(counts, lost, "o-", color=SERIES[0], ms=7, mec=CARD)
        axes.axhline(0, color=MUTED, lw=0.8)
        if limit is not None and math.isfinite(limit):
            axes.axhline(limit, color=SERIES[1], lw=1.6, ls=(0, (2, 2)), label="allowed")
            axes.legend()
        spare = max(0.5, 0.04 * (counts[-1] - counts[0]))
        axes.set_xlim(counts[0] - spare, counts[-1] + spare)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlabel("nodes in float")
        axes.set_ylabel("points of mAP lost, fitting images")
        values = "; ".join(f"{count} nodes: {points:.2f}" for count, points in ordered)
        return markup(
            figure, "steps", f"Points of mAP lost by the number of nodes in float. {values}."
        )


def _power(value: float, _: object) -> str:
    exponent = round(math.log10(value)) if value > 0 else 0
    return "1" if exponent == 0 else f"10{str(exponent).translate(SUPERSCRIPTS)}"

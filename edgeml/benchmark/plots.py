"""DOOR matplotlib: the plots of benchmark reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from edgeml.benchmark.statistics import Samples, percentile_ms
from edgeml.report.svg import (
    _CENTRE,
    CARD,
    INK,
    MUTED,
    SERIES,
    WIDTH,
    axes_of,
    markup,
    style,
    styled,
)

Latencies = Mapping[str, Samples]
"""Latencies in nanoseconds, by model."""


def stages_plot(medians: Mapping[str, Mapping[str, float]]) -> Markup:
    """Plot the stages' medians in milliseconds, stacked by model."""
    names = list(medians)
    stages = list(dict.fromkeys(stage for parts in medians.values() for stage in parts))
    with styled():
        figure, axes = axes_of(WIDTH, 90 + 34 * len(names))
        left = np.zeros(len(names))
        for index, stage in enumerate(stages):
            values = np.array([medians[name].get(stage, 0.0) for name in names])
            axes.barh(names, values, left=left, height=0.6, color=SERIES[index], label=stage)
            for y, (start, value) in enumerate(zip(left, values, strict=True)):
                if value > 0.14 * max(sum(parts.values()) for parts in medians.values()):
                    axes.text(start + value / 2, y, f"{value:.2g}", color=CARD, **_CENTRE)
            left += values
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("sum of the stages' medians, ms")
        figure.legend(loc="outside upper center", ncols=len(stages), fontsize=11)
        description = "; ".join(
            f"{name}: " + ", ".join(f"{stage} {value:.2f} ms" for stage, value in parts.items())
            for name, parts in medians.items()
        )
        return markup(figure, "stages", f"Median time of each stage. {description}.")


def ecdf_plot(latencies: Latencies, stage: str) -> Markup:
    """Plot the share of calls over their longest latency, by model."""
    with styled():
        figure, axes = axes_of(WIDTH, 250 + 14 * len(latencies))
        for index, (name, samples) in enumerate(latencies.items()):
            times, shares = _steps(samples)
            axes.plot(times, shares, drawstyle="steps-post", label=name, **style(index))
        for share in (0.5, 0.95, 0.99):
            axes.axhline(share, color=MUTED, lw=0.8, ls=":")
        log_ms_axis(axes)
        axes.set_ylim(0, 1.02)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 0.95], ["0", "25 %", "50 %", "75 %", "95 %"])
        axes.set_xlabel(f"latency of {stage}, ms")
        axes.set_ylabel("share of calls")
        figure.legend(loc="outside lower center", ncols=1, fontsize=11)
        description = f"Share of calls over their longest {stage} time."
        return markup(figure, f"ecdf-{stage}", description)


def box_plot(latencies: Latencies, stage: str) -> Markup:
    """Plot quartiles as a box, 5th to 95th percentile as a line, p99 and the slowest as marks."""
    with styled():
        figure, axes = axes_of(WIDTH, 60 + 30 * len(latencies))
        for y, samples in enumerate(latencies.values()):
            colour = SERIES[y % len(SERIES)]
            ms = samples / 1e6
            low, first, middle, third, high = np.percentile(ms, (5, 25, 50, 75, 95))
            axes.plot([low, high], [y, y], color=colour, lw=1.5)
            axes.barh(y, third - first, left=first, height=0.5, color=colour, alpha=0.55)
            axes.plot([middle, middle], [y - 0.25, y + 0.25], color=INK, lw=2)
            if p99 := percentile_ms(samples, 99):
                axes.plot(p99, y, "|", color=colour, ms=11, mew=2)
            axes.plot(ms.max(), y, "o", mfc="none", mec=colour, ms=4)
        axes.set_yticks(range(len(latencies)), list(latencies))
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        log_ms_axis(axes)
        axes.set_xlabel("ms")
        description = "; ".join(
            f"{name}: median {np.median(ns) / 1e6:.3f} ms, slowest {ns.max() / 1e6:.3f} ms"
            for name, ns in latencies.items()
        )
        return markup(figure, f"box-{stage}", f"Spread of {stage}. {description}.")


def log_ms_axis(axes: Axes) -> None:
    """Use a logarithmic axis of milliseconds, labelled with numbers and not powers."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    ticks = [
        factor * 10.0**power
        for power in range(-5, 7)
        for factor in (1, 2, 5)
        if low <= factor * 10.0**power <= high
    ]
    axes.set_xticks(ticks or [low, high])
    axes.set_xlim(low, high)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _steps(samples: Samples, limit: int = 400) -> tuple[Any, Any]:
    """Return an ECDF in milliseconds, of at most `limit` points at even shares."""
    ordered = np.sort(samples) / 1e6
    shares = np.arange(1, len(ordered) + 1) / len(ordered)
    if len(ordered) > limit:
        chosen = np.unique(np.linspace(0, len(ordered) - 1, limit).round().astype(int))
        ordered, shares = ordered[chosen], shares[chosen]
    return ordered, shares

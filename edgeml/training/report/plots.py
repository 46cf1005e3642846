"""DOOR matplotlib: plots of a training run and of a learning rate search."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullLocator,
    PercentFormatter,
)
from numpy.typing import NDArray

from edgeml.measure.reliability import Reliability
from edgeml.report.page import is_known
from edgeml.report.svg import CARD, MUTED, SERIES, WIDTH, axes_of, markup, style, styled
from edgeml.training.history import Epoch

METRICS = {
    "mAP": "mAP",
    "macro_F1": "macro F1",
    "CF1": "CF1",
    "OF1": "OF1",
    "exact_match": "exact match",
}
"""The metrics of an epoch to draw, with their names in the legend."""
_UNHINDERED = "without waiting"


def metrics_plot(history: Sequence[Epoch], best: int) -> Markup:
    """Plot the metrics on the validation split by epoch; mark the best epoch."""
    curves = {name: [getattr(row, name) for row in history] for name in METRICS}
    best_row = next((row for row in history if row.epoch == best), None)
    with styled():
        figure, axes = axes_of(WIDTH, 270)
        mark_best(axes, history, best)
        for index, (name, values) in enumerate(curves.items()):
            line(axes, history, values, METRICS[name], style(index))
            if best_row and is_known(value := getattr(best_row, name)):
                axes.plot(best, value, "o", ms=7, mfc=CARD, mec=SERIES[index], mew=2)
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
        figure.legend(loc="outside lower center", ncols=3, fontsize=11)
        ranges = ", ".join(
            f"{METRICS[name]} {_percent(values[0])} to {_percent(values[-1])}"
            for name, values in curves.items()
        )
        note = f" Epoch {best} was saved." if best_row else ""
        return markup(figure, "metrics", f"Metrics by epoch, validation split: {ranges}.{note}")


def rate_plot(history: Sequence[Epoch]) -> Markup:
    """Plot the learning rate by epoch."""
    rates = [row.lr for row in history]
    with styled():
        figure, axes = axes_of(WIDTH, 190)
        line(axes, history, rates, "learning rate", style(3))
        axes.set_ylim(bottom=0)
        axes.set_ylabel("learning rate")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        return markup(
            figure,
            "rate",
            f"Learning rate at the end of each epoch: {rates[0]:.3g} in the first, "
            f"{max(rates):.3g} at most, {rates[-1]:.3g} in the last.",
        )


def speed_plot(history: Sequence[Epoch]) -> Markup:
    """Plot images per second by epoch, in front of the speed without waiting."""
    epochs = np.array([row.epoch for row in history])
    speed = np.array([row.images_per_s for row in history], float)
    wait = np.nan_to_num(np.array([row.wait for row in history], float))
    possible = speed / np.maximum(1 - wait, 0.02)
    with styled():
        figure, axes = axes_of(WIDTH, 190)
        if (wait >= 0.005).any():
            _bars(axes, epochs, possible, {"color": SERIES[1], "alpha": 0.35, "label": _UNHINDERED})
        _bars(axes, epochs, speed, {"color": SERIES[2], "label": "images per second"})
        if (wait >= 0.005).any():
            figure.legend(loc="outside lower center", ncols=2, fontsize=11)
        line(axes, history, [math.nan] * len(history), "", {"color": MUTED})
        spare = 0.6 if len(history) > 2 else 2
        axes.set_xlim(epochs[0] - spare, epochs[-1] + spare)
        axes.set_ylim(0, None if np.isfinite(speed).any() else 1)
        axes.set_ylabel("images per second")
        median = (
            f"{np.nanmedian(speed):.0f} images per second"
            if np.isfinite(speed).any()
            else "unknown"
        )
        return markup(
            figure,
            "speed",
            f"Speed of training by epoch: median {median}, waiting for images "
            f"{100 * wait.mean():.0f} % of the time.",
        )


def reliability_plot(diagrams: Mapping[str, Reliability]) -> Markup:
    """Plot the frequency of true labels over predicted probability, and the number of decisions.

    The diagrams have their names in the legend; the bars show the counts of the last one.
    """
    with styled():
        figure = Figure(figsize=(WIDTH / 72, 380 / 72), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        above.plot([0, 1], [0, 1], color=MUTED, lw=1, ls=":")
        for index, (name, diagram) in enumerate(diagrams.items()):
            filled = diagram.count > 0
            above.plot(
                diagram.confidence[filled],
                diagram.frequency[filled],
                label=f"{name}, ECE {_percent(diagram.ece)}",
                marker="osD"[index % 3],
                ms=5,
                **style(index),
            )
        last = list(diagrams.values())[-1]
        colour = SERIES[(len(diagrams) - 1) % len(SERIES)]
        middles, wide = (last.edges[:-1] + last.edges[1:]) / 2, np.diff(last.edges)
        below.bar(middles, last.count, 0.9 * wide, color=colour, alpha=0.6)
        if last.count.max() > 50:
            below.set_yscale("log")
            below.yaxis.set_major_locator(LogLocator(numticks=4))
            below.yaxis.set_minor_locator(NullLocator())
            below.yaxis.set_major_formatter(FuncFormatter(_plain))
        else:
            below.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=3))
        below.set_ylabel("decisions")
        below.set_xlabel("predicted probability")
        above.set_ylabel("share that is true")
        for axis in (above.xaxis, above.yaxis):
            axis.set_major_formatter(PercentFormatter(1))
        above.set_xlim(0, 1)
        above.set_ylim(0, 1.02)
        figure.legend(loc="outside lower center", ncols=1, fontsize=11)
        errors = ", ".join(f"{name} {_percent(one.ece)}" for name, one in diagrams.items())
        return markup(figure, "reliability", f"Reliability. Expected calibration error: {errors}.")


def lr_finder_plot(
    rates: Sequence[float], losses: Sequence[float], suggestion: float | None
) -> Markup:
    """Plot the loss over learning rates that rise from step to step (Smith, WACV 2017).

    A loss of NaN leaves a gap; the suggested rate is marked, if there is one.
    """
    x, y = np.asarray(rates, float), np.asarray(losses, float)
    curve = smoothed(y)
    with styled():
        figure, axes = axes_of(2 * WIDTH, 380)
        axes.plot(x, y, color=SERIES[0], lw=1, alpha=0.35, label="each step")
        axes.plot(x, curve, color=SERIES[0], label="smoothed")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=12))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlabel("learning rate")
        axes.set_ylabel("loss")
        if np.isfinite(curve).any():
            # Beyond the lowest point the loss grows without bound and would flatten the rest.
            lowest = int(np.nanargmin(curve))
            low, high = curve[lowest], np.nanmax(curve[: lowest + 1])
            margin = max(high - low, 0.02 * abs(high), 1e-9)
            axes.set_ylim(low - 0.25 * margin, high + 0.6 * margin)
        note = "No rate is suggested."
        if suggestion is not None and is_known(suggestion):
            axes.axvline(suggestion, color=SERIES[1], ls="--", label=f"suggested {suggestion:.2g}")
            note = f"Suggested: {suggestion:.2g}."
        axes.legend(loc="lower left")
        span = f"{x.min():.1e} to {x.max():.1e}" if len(x) else "none"
        return markup(figure, "lr", f"Loss over learning rates from {span}. {note}")


def smoothed(values: NDArray[np.float64], decay: float = 0.9) -> NDArray[np.float64]:
    """Return the exponential mean of the values so far, without the bias towards 0 at the start.

    Values that are NaN or infinite are skipped, and are NaN in the result.
    """
    mean, weight = 0.0, 0.0
    curve = np.full(len(values), math.nan)
    for index, value in enumerate(values):
        if math.isfinite(value):
            mean = decay * mean + (1 - decay) * value
            weight = decay * weight + (1 - decay)
            curve[index] = mean / weight
    return curve


def _bars(axes: Axes, epochs: NDArray[Any], values: NDArray[Any], look: dict[str, Any]) -> None:
    """Draw bars from 0; many bars become one area, because their seams would show as stripes."""
    if len(epochs) <= 60:
        axes.bar(epochs, values, 0.8, **look)
    else:
        axes.stairs(
            np.nan_to_num(values), np.append(epochs, epochs[-1] + 1) - 0.5, fill=True, **look
        )


def _plain(value: float, _: object) -> str:
    return f"{value:g}" if value < 1e4 else f"{value / 1e3:g}k"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if is_known(share) else "unknown"


def loss_plot(history: Sequence[Epoch], best: int | None = None) -> Markup:
    """Plot training and validation loss by epoch; mark the best epoch."""
    first, last = history[0], history[-1]
    with styled():
        figure, axes = axes_of(WIDTH, 250)
        line(axes, history, [row.train_loss for row in history], "training", style(0))
        line(axes, history, [row.val_loss for row in history], "validation", style(1))
        axes.set_ylim(bottom=0)
        axes.set_ylabel("loss")
        mark_best(axes, history, best)
        axes.legend()
        return markup(
            figure,
            "loss",
            f"Loss by epoch: training from {first.train_loss:.3f} to {last.train_loss:.3f}, "
            f"validation from {first.val_loss:.3f} to {last.val_loss:.3f}.",
        )


def line(
    axes: Axes,
    history: Sequence[Epoch],
    values: Sequence[float],
    label: str,
    style: Mapping[str, Any],
) -> None:
    """Draw a curve over epochs; one or two epochs are drawn with markers."""
    marker = "o" if len(history) < 3 else None
    axes.plot([row.epoch for row in history], values, label=label, marker=marker, **style)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")


def mark_best(axes: Axes, history: Sequence[Epoch], best: int | None) -> None:
    """Draw a vertical line at the epoch whose weights were saved, if it is among the rows."""
    if best is not None and len(history) > 1 and any(row.epoch == best for row in history):
        axes.axvline(best, color=MUTED, lw=1.2, ls=(0, (2, 2)), zorder=0)

"""Figures written as SVG without matplotlib, which would take 100 times the bytes and the time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from edgeml.report.page import MINUS

# Longer names are cut; the tooltip shows all of them.
_MAX_NAME = 22

# Cells of a heatmap with more columns are too small for numbers.
_MAX_NUMBERED = 26


def heatmap(
    counts: NDArray[np.integer],
    shades: NDArray[np.floating],
    names: Sequence[str],
    *,
    cell_text: str,
    between: str,
    description: str,
    diagonal: str = "diagonal",
) -> Markup:
    """Draw a square table of counts.

    Args:
        counts: (L, L); 0 is blank.
        shades: (L, L) shares of 1, the strength of the colour of a cell.
        names: The names of the L rows and columns.
        cell_text: The tooltip of a cell, with {row}, {column}, {count} and {share}.
        between: The meaning of rows and columns, for example `truth ↓ · prediction →`.
        description: The text for screen readers.
        diagonal: The CSS class of the cells on the diagonal.
    """
    side = 30 if len(names) <= 12 else 25 if len(names) <= _MAX_NUMBERED else 15
    short = [_cut(name) for name in names]
    letter = 6.6 if side > 20 else 5.8
    margin = 14 + letter * max(map(len, short))
    left, top = margin, 18 + 0.75 * margin  # names of columns are rotated by 45 degrees
    width = left + side * len(names) + 0.75 * margin
    height = top + side * len(names) + 2
    parts = _names(short, names, left, top, side)
    for row, column in np.argwhere(counts > 0):
        count, share = int(counts[row, column]), float(np.clip(shades[row, column], 0, 1))
        x, y = left + side * column, top + side * row
        title = cell_text.format(
            row=names[row], column=names[column], count=count, share=f"{100 * share:.0f} %"
        )
        kind = f' class="{diagonal}"' if row == column else ""
        opacity = 0.1 + 0.9 * share
        parts.append(
            f'<rect{kind} x="{x + 1:g}" y="{y + 1:g}" width="{side - 2}" height="{side - 2}" '
            f'fill-opacity="{opacity:.2f}"><title>{escape(title)}</title></rect>'
        )
        if len(names) <= _MAX_NUMBERED:
            # On a dark cell the number takes the colour of the card.
            on = ' class="on"' if opacity > 0.6 else ""
            parts.append(
                f'<text{on} x="{x + side / 2:g}" y="{y + side / 2 + 3.5:g}">{_number(count)}</text>'
            )
    parts.append(f'<text class="axis" x="0" y="12">{escape(between)}</text>')
    style = f"width: {width:.0f}px; min-width: {min(0.75 * width, 700):.0f}px; max-width: 100%"
    return Markup(
        f'<svg class="plot heat" role="img" aria-label="{escape(description)}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" style="{style}">'
        f'<rect class="ground" x="{left:g}" y="{top:g}" width="{side * len(names)}" '
        f'height="{side * len(names)}"/>{"".join(parts)}</svg>'
    )


def cooccurrence_heatmap(
    counts: NDArray[np.integer], names: Sequence[str], most_often: Sequence[tuple[str, str, int]]
) -> Markup:
    """Draw the number of images that have two labels; shades are shares of the row."""
    pairs = ", ".join(f"{row} and {column} {count}" for row, column, count in most_often)
    return heatmap(
        counts,
        counts / np.maximum(counts.diagonal()[:, None], 1),
        names,
        cell_text="{row} with {column}: {count} images, {share} of those with {row}",
        between="with ↓ … also →",
        description=f"Which labels occur together. Most often: {pairs or 'none do'}.",
        diagonal="alone",
    )


def frequent_pairs(
    counts: NDArray[np.integer], names: Sequence[str], limit: int
) -> list[tuple[str, str, int]]:
    """Return the pairs of labels that most often occur together, with the number of images."""
    above = np.triu(counts, 1)
    order = np.argsort(-above, axis=None, kind="stable")[:limit]
    rows, columns = np.unravel_index(order, above.shape)
    return [
        (names[row], names[column], int(above[row, column]))
        for row, column in zip(rows, columns, strict=True)
        if above[row, column]
    ]


def curve(
    recall: Sequence[float],
    precision: Sequence[float],
    *,
    mark: tuple[float, float] | None,
    prevalence: float,
    description: str,
) -> Markup:
    """Draw a small precision-recall curve as the steps that average precision sums.

    Args:
        recall: Rising shares of 1.
        precision: The precision at each recall.
        mark: (recall, precision) of the decisions, a dot.
        prevalence: The precision of random guessing, a dotted line.
        description: The text for screen readers.
    """
    width, height, left, top = 150, 96, 22, 6

    def x(share: float) -> str:
        return f"{left + width * share:.1f}".rstrip("0").rstrip(".")

    def y(share: float) -> str:
        return f"{top + height * (1 - share):.1f}".rstrip("0").rstrip(".")

    grid = "".join(
        f'<path class="grid" d="M{x(0)} {y(s)}H{x(1)}M{x(s)} {y(0)}V{y(1)}"/>' for s in (0, 0.5, 1)
    )
    ticks = "".join(
        f'<text class="end" x="{left - 4}" y="{float(y(s)) + 3:g}">{s:g}</text>'
        f'<text class="mid" x="{x(s)}" y="{top + height + 12}">{s:g}</text>'
        for s in (0, 0.5, 1)
    )
    line = ""
    if len(recall):
        steps = "".join(f"V{y(p)}H{x(r)}" for r, p in zip(recall, precision, strict=True))
        start = f"M{x(0)} {y(precision[0])}"
        line = (
            f'<path class="under" d="M{x(0)} {y(0)}{steps}V{y(0)}Z"/>'
            f'<path class="line" d="{start}{steps}"/>'
        )
    chance = f'<path class="chance" d="M{x(0)} {y(prevalence)}H{x(1)}"/>'
    dot = f'<circle cx="{x(mark[0])}" cy="{y(mark[1])}" r="4"/>' if mark else ""
    return Markup(
        f'<svg class="plot curve" role="img" aria-label="{escape(description)}" '
        f'viewBox="0 0 {left + width + 6} {top + height + 16}">'
        f"{grid}{ticks}{chance}{line}{dot}</svg>"
    )


@dataclass(frozen=True, kw_only=True)
class Scale:
    """An axis that the figures of a column share.

    Attributes:
        low, high: The values at its ends; 0 lies between.
        width: In pixels, with a margin at both ends.
    """

    low: float
    high: float
    width: int = 210

    def x(self, value: float) -> float:
        """Return the position of a value in pixels; values beyond an end are moved to it."""
        inside = min(max(value, self.low), self.high)
        return round(8 + (self.width - 16) * (inside - self.low) / (self.high - self.low), 1)

    def ticks(self) -> list[float]:
        """Return three to eight round values, including 0."""
        limit = (self.high - self.low) / 3
        power = 10.0 ** math.floor(math.log10(limit))
        step = max(power * factor for factor in (1, 2, 5) if power * factor <= limit)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [step * number for number in range(first, last + 1)]


def axis(scale: Scale) -> Markup:
    """Draw the values of a scale, for the head of a column of whiskers."""
    texts = "".join(
        f'<text x="{scale.x(tick):g}" y="11">{f"{tick:g}".replace("-", MINUS)}</text>'
        for tick in scale.ticks()
    )
    return Markup(
        f'<svg class="whisker" aria-hidden="true" viewBox="0 0 {scale.width} 14" '
        f'width="{scale.width}" height="14">{texts}</svg>'
    )


def whisker(
    points: float, low: float, high: float, scale: Scale, limit: float | None, *, over: bool
) -> Markup:
    """Draw a loss as a bar from 0, its interval as a line, and its limit as a dotted line.

    Args:
        points: The loss; a gain is negative and goes to the left. NaN is not drawn.
        low: The lower end of its interval; NaN is not drawn.
        high: The upper end.
        scale: The axis of the column.
        limit: The points that may be lost; None or infinity is not drawn.
        over: Whether the loss exceeds the limit.
    """
    zero = scale.x(0)
    parts = [f'<path class="zero" d="M{zero:g} 0V22"/>']
    if math.isfinite(points):
        end = scale.x(points)
        kind = "over" if over else "lost" if points > 0 else "won"
        parts.append(
            f'<rect class="{kind}" x="{min(zero, end):g}" y="6" height="10" '
            f'width="{max(abs(end - zero), 1):.1f}"/>'
        )
    if math.isfinite(low) and math.isfinite(high):
        a, b = scale.x(low), scale.x(high)
        ends = "".join(  # an interval that extends beyond the edge has no end there
            f"M{scale.x(end):g} 7V15" for end in (low, high) if scale.low <= end <= scale.high
        )
        parts.append(f'<path class="range" d="M{a:g} 11H{b:g}{ends}"/>')
    if limit is not None and math.isfinite(limit):
        parts.append(f'<path class="limit" d="M{scale.x(limit):g} 0V22"/>')
    return Markup(
        f'<svg class="whisker" aria-hidden="true" viewBox="0 0 {scale.width} 22" '
        f'width="{scale.width}" height="22">{"".join(parts)}</svg>'
    )


def density(
    across: NDArray[np.floating], up: NDArray[np.floating], names: tuple[str, str], description: str
) -> Markup:
    """Draw the density of pairs of probabilities, each cell by the logarithm of its count.

    Args:
        across: (K,) from 0 to 1.
        up: (K,) from 0 to 1.
        names: The names of the two axes.
        description: The text for screen readers.
    """
    cells, side, left, top = 40, 7, 44, 8
    counts, _, _ = np.histogram2d(across, up, bins=cells, range=((0, 1), (0, 1)))
    highest = math.log1p(float(counts.max())) or 1.0
    extent = cells * side
    parts = []
    for column, row in np.argwhere(counts > 0):
        count = int(counts[column, row])
        opacity = 0.15 + 0.85 * math.log1p(count) / highest
        parts.append(
            f'<rect x="{left + side * column}" y="{top + side * (cells - 1 - row)}" '
            f'width="{side}" height="{side}" fill-opacity="{opacity:.2f}">'
            f"<title>{count}</title></rect>"
        )
    ticks = "".join(
        f'<text x="{left + extent * share:g}" y="{top + extent + 15}">{share:g}</text>'
        f'<text class="end" x="{left - 6}" y="{top + extent * (1 - share) + 4:g}">{share:g}</text>'
        for share in (0, 0.5, 1)
    )
    first, second = (_cut(name) for name in names)
    middle = top + extent / 2
    return Markup(
        f'<svg class="plot heat" role="img" aria-label="{escape(description)}" '
        f'viewBox="0 0 {left + extent + 8} {top + extent + 36}" style="max-width: 420px">'
        f'<rect class="ground" x="{left}" y="{top}" width="{extent}" height="{extent}"/>'
        f'<path class="same" d="M{left} {top + extent}L{left + extent} {top}"/>'
        f"{''.join(parts)}{ticks}"
        f'<text x="{left + extent / 2:g}" y="{top + extent + 32}">{escape(first)}</text>'
        f'<text transform="translate(12 {middle:g}) rotate(-90)">{escape(second)}</text></svg>'
    )


def _names(
    short: Sequence[str], names: Sequence[str], left: float, top: float, side: int
) -> list[str]:
    small = "" if side > 20 else " small"
    rows = [
        f'<text class="end{small}" x="{left - 6:g}" y="{top + side * (row + 0.5) + 4:g}">'
        f"{escape(cut)}{_tooltip(cut, name)}</text>"
        for row, (cut, name) in enumerate(zip(short, names, strict=True))
    ]
    return rows + [
        f'<text class="start{small}" transform="translate({left + side * (column + 0.6):g} '
        f'{top - 6:g}) rotate(-45)">{escape(cut)}{_tooltip(cut, name)}</text>'
        for column, (cut, name) in enumerate(zip(short, names, strict=True))
    ]


def _tooltip(cut: str, name: str) -> str:
    return "" if cut == name else f"<title>{escape(name)}</title>"


def _cut(name: str) -> str:
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…"


def _number(count: int) -> str:
    return f"{count}" if count < 10_000 else f"{count / 1000:.0f}k"

"""DOOR matplotlib: figures as SVG that takes colours and fonts from the page around it."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Matplotlib does not support CSS variables: it draws in these colours, which are then replaced.
# SVG omits black as the default, so none of them is black.
INK, MUTED, GRID, CARD = "#010101", "#010102", "#010103", "#010104"
SERIES = ("#020001", "#020002", "#020003", "#020004", "#020005", "#020006")
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    CARD: "var(--card)",
    **{colour: f"var(--series-{i})" for i, colour in enumerate(SERIES, start=1)},
}

_SETTINGS: dict[Any, Any] = {
    "axes.edgecolor": GRID,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 11.5,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "font.size": 11.5,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 2,
    "svg.fonttype": "none",  # text stays text: searchable, and readable for screen readers
    "text.color": INK,
    "text.parse_math": False,  # a name with two $ is not a formula
    "xtick.color": MUTED,
    "xtick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.color": MUTED,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw and save inside this block; matplotlib's settings outside do not change."""
    with rc_context(_SETTINGS), warnings.catch_warnings():
        # Matplotlib's own font may lack a glyph of a name; the browser's has it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def axes_of(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure with one plot; sizes in CSS pixels."""
    figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
    return figure, figure.add_subplot()


def markup(figure: Figure, name: str, description: str) -> Markup:
    """Return a figure, drawn inside `styled`, as an <svg> element.

    Args:
        figure: The figure.
        name: The prefix of its ids, unique in the page.
        description: The text for screen readers.
    """
    text = io.StringIO()
    # No date, no version, no random salt: the same figure gives the same bytes.
    with rc_context({"svg.hashsalt": name}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    # Remove licence links, and a style rule that would apply to the entire page.
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg, flags=re.DOTALL)
    view = re.search(r'viewBox="([^"]*)"', svg)
    assert view, "matplotlib writes a viewBox"
    opening = (
        f'<svg class="plot" role="img" aria-label="{escape(description)}" viewBox="{view[1]}">'
    )
    svg = opening + svg[svg.index(">") + 1 :]
    svg = re.sub(r'\sid="([^"]*)"', rf' id="{name}-\1"', svg)
    svg = re.sub(r'(?:xlink:)?href="#', f'href="#{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-")
    svg = re.sub(r"font-family: [^;\"]*", "font-family: var(--font)", svg)
    svg = re.sub(r"(font: [^;\"]*?px) [^;\"]*", r"\1 var(--font)", svg)  # matplotlib before 3.11
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(f": {colour}", f": {variable}")
    # Safe: matplotlib escapes text, and we the description.
    return Markup(svg)


WIDTH = 460
_MARKERS = ("o", "s", "D", "^", "v", "P")
_DASHES = ("-", "--", ":", "-.")
_CENTRE: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 10.5}


def tag(axes: Axes, x: float, y: float, text: str, middle: float) -> None:
    """Label a point, below or above it, on the side of `middle`, which has room."""
    right, high = x > middle, y > 0.5
    axes.annotate(
        text,
        (x, y),
        xytext=(0 if right else 4, -12 if high else 12),
        textcoords="offset points",
        ha="right" if right else "left",
        va="top" if high else "bottom",
        fontweight="bold",
    )


def style(index: int) -> dict[str, Any]:
    """Return the colour and the dashes of a curve: colour alone is not accessible to all."""
    return {"color": SERIES[index % len(SERIES)], "linestyle": _DASHES[index % len(_DASHES)]}

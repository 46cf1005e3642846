"""DOOR jinja2: fill templates, to a self-contained HTML page; the kit of all pages."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from edgeml.errors import ImageError
from edgeml.files import write_text
from edgeml.image.jpeg import jpeg_url
from edgeml.image.reading import read_image

UNKNOWN = "–"
"""Shown for a value that is not known."""

MINUS = "\N{MINUS SIGN}"

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
"""The digits of an exponent."""


def write_page(out: Path, template: str, values: dict[str, Any]) -> None:
    """Fill `template` with `values` and write it to `out`. All values are escaped.

    Raises:
        InputError: `out` cannot be written.
    """
    environment = Environment(
        loader=PackageLoader("edgeml.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        percent=percent, ms=ms, figure=figure, width=width, jpeg=jpeg_url,
        signed=signed, small=small, plain=plain,
    )  # fmt: skip
    environment.tests.update(known=is_known)
    write_text(out, environment.get_template(template).render(values))


def image_url(path: Path, side: int) -> str:
    """Return an image file as a data URL of at most `side` pixels a side; empty if unreadable."""
    try:
        return jpeg_url(read_image(path, at_least=(side, side)), side)
    except ImageError:
        return ""


def is_known(value: float | None) -> bool:
    """Whether a number is known: not None, NaN or infinity."""
    return value is not None and math.isfinite(value)


def percent(share: float | None, digits: int = 1) -> str:
    """Format a share of 1 in per cent, without the sign."""
    return f"{100 * share:.{digits}f}" if share is not None and is_known(share) else UNKNOWN


def ms(value: float | None) -> str:
    """Format milliseconds with three significant digits."""
    if value is None or not is_known(value):
        return UNKNOWN
    return f"{value:.{max(0, 2 - math.floor(math.log10(max(value, 1e-3))))}f}"


def figure(value: float | None, digits: int = 1) -> str:
    """Format a number with thin spaces between thousands."""
    if value is None or not is_known(value):
        return UNKNOWN
    return f"{value:,.{digits}f}".replace(",", " ")


def signed(value: float | None, digits: int = 2) -> str:
    """Format a number with a typographic minus sign; a number that rounds to 0 has no sign."""
    if value is None or not is_known(value):
        return UNKNOWN
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", MINUS)


def small(value: float | None) -> str:
    """Format a number of any size with two digits, for example 0.0021 or 3.2 × 10⁻⁶."""
    if value is None or not is_known(value):
        return UNKNOWN
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e4:
        return f"{value:#.2g}".rstrip(".") if abs(value) < 100 else f"{value:.0f}"
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits} × 10{str(int(exponent)).translate(SUPERSCRIPTS)}"


def plain(value: float) -> str:
    """Format a number as short as possible."""
    return f"{value:g}"


def width(share: float | None) -> str:
    """Format a share of 1 as the CSS width of a bar."""
    return f"{100 * min(max(share, 0), 1):.1f}%" if share is not None and is_known(share) else "0"


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A number at the top of a page."""

    name: str
    value: str
    unit: str = ""
    of: str = ""

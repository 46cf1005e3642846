"""DOOR jinja2: templates to one HTML page that needs nothing but itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from edgeml.files import write_text
from edgeml.image.jpeg import jpeg_url

UNKNOWN = "–"
"""Shown for what was not measured, or cannot be told."""

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


def is_known(value: float | None) -> bool:
    """Tell whether a number was measured."""
    return value is not None and math.isfinite(value)


def percent(share: float | None, digits: int = 1) -> str:
    """Write a share of 1 as per cent, without the sign."""
    return f"{100 * share:.{digits}f}" if share is not None and is_known(share) else UNKNOWN


def ms(value: float | None) -> str:
    """Write milliseconds with three digits that matter."""
    if value is None or not is_known(value):
        return UNKNOWN
    return f"{value:.{max(0, 2 - math.floor(math.log10(max(value, 1e-3))))}f}"


def figure(value: float | None, digits: int = 1) -> str:
    """Write a number with thin spaces between thousands."""
    if value is None or not is_known(value):
        return UNKNOWN
    return f"{value:,.{digits}f}".replace(",", " ")


def signed(value: float | None, digits: int = 2) -> str:
    """Write a number that may be negative with a real minus sign; what rounds to 0 has none."""
    if value is None or not is_known(value):
        return UNKNOWN
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", MINUS)


def small(value: float | None) -> str:
    """Write a number of any size with two digits that matter, for example 0.0021 or 3.2 × 10⁻⁶."""
    if value is None or not is_known(value):
        return UNKNOWN
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e4:
        return f"{value:#.2g}".rstrip(".") if abs(value) < 100 else f"{value:.0f}"
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits} × 10{str(int(exponent)).translate(SUPERSCRIPTS)}"


def plain(value: float) -> str:
    """Write a number as short as it is."""
    return f"{value:g}"


def width(share: float | None) -> str:
    """Write a share of 1 as the CSS width of a bar."""
    return f"{100 * min(max(share, 0), 1):.1f}%" if share is not None and is_known(share) else "0"


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A number that should be seen first."""

    name: str
    value: str
    unit: str = ""
    of: str = ""

"""The report of `edgeml demo`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeml.image.jpeg import jpeg_url
from edgeml.report.contents import Demo, DemoRow, Sample
from edgeml.report.facts import facts_of
from edgeml.report.page import Tile, is_known, ms, percent, write_page
from edgeml.report.plots import map_plot, tradeoff_plot
from edgeml.train.report.plots import loss_plot

_HIGHER_IS_BETTER = {"mAP": True, "exact_match": True, "p50_ms": False, "p99_ms": False}


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A row of the table, and how it stands among the others.

    Attributes:
        row: The row.
        speed: How many times faster than the FP32 model of its format; None if it is that one.
        best: Names of the columns in which it is the best.
        first_of_format: Whether the row above is of another format.
    """

    row: DemoRow
    speed: float | None
    best: frozenset[str]
    first_of_format: bool


@dataclass(frozen=True, kw_only=True)
class _Picture:
    """A sample, ready to be shown."""

    url: str
    alt: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    missed: tuple[str, ...]


def demo_report(demo: Demo, out: Path) -> None:
    """Write the page to `out`.

    Raises:
        InputError: `out` cannot be written.
    """
    write_page(
        out,
        "demo.html",
        {
            "kind": "demo",
            "title": demo.title,
            "lead": _lead(demo.rows),
            "tiles": _tiles(demo.rows),
            "demo": demo,
            "lines": _lines(demo.rows),
            "tradeoff": tradeoff_plot(demo.rows),
            "loss": loss_plot(demo.history) if demo.history else None,
            "map": map_plot(demo.history) if demo.history else None,
            "pictures": [_picture(sample) for sample in demo.samples],
            "facts": facts_of(demo.host, demo.software),
        },
    )


def _lines(rows: Sequence[DemoRow]) -> list[_Line]:
    best: dict[str, float] = {}
    for column, higher in {**_HIGHER_IS_BETTER, "size_mb": False}.items():
        values = [value for row in rows if is_known(value := getattr(row, column))]
        # Where all are alike none is the best; numbers are compared as they are shown.
        if len({f"{value:.3g}" for value in values}) > 1:
            best[column] = max(values) if higher else min(values)
    return [
        _Line(
            row=row,
            speed=_speed(row, rows),
            best=frozenset(name for name, value in best.items() if getattr(row, name) == value),
            first_of_format=index == 0 or rows[index - 1].format != row.format,
        )
        for index, row in enumerate(rows)
    ]


def _speed(row: DemoRow, rows: Sequence[DemoRow]) -> float | None:
    """Give the ratio of medians, FP32 of the same format over this."""
    if row.precision == "fp32" or not row.p50_ms:
        return None
    for other in rows:
        if other.format == row.format and other.precision == "fp32" and other.p50_ms:
            return other.p50_ms / row.p50_ms
    return None


def _tiles(rows: Sequence[DemoRow]) -> list[Tile]:
    """Pick the most accurate, the fastest and the smallest."""
    tiles = []
    if row := _least(rows, lambda row: -row.mAP):
        tiles.append(Tile(name="Best mAP", value=percent(row.mAP), unit="%", of=_name(row)))
        tiles.append(
            Tile(name="Its exact match", value=percent(row.exact_match), unit="%", of=_name(row))
        )
    if row := _least(rows, lambda row: row.p50_ms):
        tiles.append(Tile(name="Fastest, p50", value=ms(row.p50_ms), unit="ms", of=_name(row)))
    if row := _least(rows, lambda row: row.size_mb):
        tiles.append(Tile(name="Smallest", value=f"{row.size_mb:.2f}", unit="MB", of=_name(row)))
    return tiles


def _lead(rows: Sequence[DemoRow]) -> str:
    """Say in a sentence what the fastest model costs in accuracy."""
    fastest = _least(rows, lambda row: row.p50_ms)
    best = _least(rows, lambda row: -row.mAP)
    if not fastest or not best:
        return ""
    said = (
        f"{_name(fastest)} is the fastest of {len(rows)} models: {ms(fastest.p50_ms)} ms an image"
    )
    if (speed := _speed(fastest, rows)) is not None:
        said += f", {speed:.2f} times the speed of its FP32 file"
    lost = best.mAP - fastest.mAP
    if not is_known(lost):
        return f"{said}."
    if percent(lost) == percent(0):
        return f"{said}, and none is more accurate."
    return f"{said}; the most accurate has {percent(lost)} points of mAP more."


def _least(rows: Sequence[DemoRow], key: Callable[[DemoRow], float | None]) -> DemoRow | None:
    """Give the first row whose key is the least; unknown keys do not count."""
    known = [(value, row) for row in rows if (value := key(row)) is not None and is_known(value)]
    return min(known, key=lambda pair: pair[0])[1] if known else None


def _name(row: DemoRow) -> str:
    return f"{row.format} {row.precision}"


def _picture(sample: Sample) -> _Picture:
    right = tuple(name for name in sample.labels if name in sample.truth)
    return _Picture(
        url=jpeg_url(sample.frame),
        alt=f"Picture of {', '.join(sample.truth) or 'nothing that has a label'}",
        right=right,
        wrong=tuple(name for name in sample.labels if name not in right),
        missed=tuple(name for name in sample.truth if name not in right),
    )

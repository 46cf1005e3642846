"""The report of `edgeml demo`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from matplotlib.ticker import PercentFormatter

from edgeml.benchmark.environment import Host, facts_of
from edgeml.benchmark.plots import log_ms_axis
from edgeml.image.frame import Frame
from edgeml.image.jpeg import jpeg_url
from edgeml.measure.metrics import Metrics
from edgeml.report.page import Tile, is_known, ms, percent, write_page
from edgeml.report.svg import _MARKERS, CARD, SERIES, WIDTH, axes_of, markup, styled, tag
from edgeml.training.history import Epoch
from edgeml.training.report.plots import line, loss_plot

_LARGEST_IS_BEST = {
    "mAP": True, "exact_match": True, "p50_ms": False, "p99_ms": False, "size_mb": False,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A row of the table, compared with the other rows."""

    row: DemoRow
    speed: float | None  # relative to the FP32 model of its format; None for that model
    best: frozenset[str]  # the columns in which it is the best
    first_of_format: bool


def demo_report(demo: Demo, out: Path) -> None:
    """Write the page to `out`."""
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
            "jpeg_url": jpeg_url,
            "facts": facts_of(demo.host, demo.software),
        },
    )


def _lines(rows: Sequence[DemoRow]) -> list[_Line]:
    best: dict[str, float] = {}
    for column, largest in _LARGEST_IS_BEST.items():
        values = [value for row in rows if is_known(value := getattr(row, column))]
        # Numbers are compared as they are shown; if all are equal, none is the best.
        if len({f"{value:.3g}" for value in values}) > 1:
            best[column] = max(values) if largest else min(values)
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
    """Return the ratio of medians, FP32 of the same format over this."""
    if row.precision == "fp32" or not row.p50_ms:
        return None
    for other in rows:
        if other.format == row.format and other.precision == "fp32" and other.p50_ms:
            return other.p50_ms / row.p50_ms
    return None


def _tiles(rows: Sequence[DemoRow]) -> list[Tile]:
    """Pick the most accurate, the fastest and the smallest."""
    tiles = []
    if row := _smallest(rows, lambda row: -row.mAP):
        tiles.append(Tile(name="Best mAP", value=percent(row.mAP), unit="%", of=_name(row)))
        tiles.append(
            Tile(name="Its exact match", value=percent(row.exact_match), unit="%", of=_name(row))
        )
    if row := _smallest(rows, lambda row: row.p50_ms):
        tiles.append(Tile(name="Fastest, p50", value=ms(row.p50_ms), unit="ms", of=_name(row)))
    if row := _smallest(rows, lambda row: row.size_mb):
        tiles.append(Tile(name="Smallest", value=f"{row.size_mb:.2f}", unit="MB", of=_name(row)))
    return tiles


def _lead(rows: Sequence[DemoRow]) -> str:
    """Return a sentence on how much accuracy the fastest model costs."""
    fastest = _smallest(rows, lambda row: row.p50_ms)
    best = _smallest(rows, lambda row: -row.mAP)
    if not fastest or not best:
        return ""
    text = f"{_name(fastest)} is the fastest of {len(rows)} models: "
    text += f"{ms(fastest.p50_ms)} ms per image"
    if (speed := _speed(fastest, rows)) is not None:
        text += f", {speed:.2f} times the speed of its FP32 file"
    loss = best.mAP - fastest.mAP
    if not is_known(loss):
        return f"{text}."
    if percent(loss) == percent(0):
        return f"{text}, and none is more accurate."
    return f"{text}; the most accurate has {percent(loss)} points of mAP more."


def _smallest(rows: Sequence[DemoRow], key: Callable[[DemoRow], float | None]) -> DemoRow | None:
    """Return the first row with the smallest key; unknown keys do not count."""
    known = [(value, row) for row in rows if (value := key(row)) is not None and is_known(value)]
    return min(known, key=lambda pair: pair[0])[1] if known else None


def _name(row: DemoRow) -> str:
    return f"{row.format} {row.precision}"


@dataclass(frozen=True, kw_only=True)
class DemoRow:
    """One exported model. Shares of 1; None and NaN are shown as unknown."""

    format: str  # such as onnx; torch for the source of the others
    precision: str
    mAP: float  # on the test split, as is exact_match
    exact_match: float
    label_flips_per_1000: float | None  # decisions that differ from the source's
    p50_ms: float | None  # latency of a complete `predict`
    p99_ms: float | None
    size_mb: float  # of all files of the model, in units of 10^6 bytes
    path: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """One image, (H, W, 3) uint8 BGR, with its true and its predicted labels."""

    frame: Frame
    truth: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Demo:
    """The contents of the report of `edgeml demo`; `host` and `software` are the benchmark's."""

    title: str
    steps: tuple[str, ...]  # what was done, one sentence each
    rows: tuple[DemoRow, ...]
    history: Sequence[Epoch]
    metrics: Metrics
    metrics_of: str  # the model and the split of `metrics`, for example `ONNX FP32, test split`
    samples: tuple[Sample, ...]  # of the test split
    flags: tuple[str, ...]  # reasons to doubt the latencies, from the benchmark
    commands: tuple[tuple[str, str], ...]  # what to do next: purposes and commands
    host: Host
    software: Mapping[str, str | None]


def map_plot(history: Sequence[Epoch]) -> Markup:
    """Plot mAP on the validation side by epoch; the epoch whose weights were saved is marked."""
    values = [row.mAP for row in history]
    known = [value for value in values if is_known(value)]
    description = "mAP on the validation side was never known."
    with styled():
        figure, axes = axes_of(WIDTH, 250)
        line(axes, history, values, "validation", {"color": SERIES[2]})
        if known:
            best = max((row for row in history if is_known(row.mAP)), key=lambda row: row.quality)
            axes.plot(best.epoch, best.mAP, "o", ms=9, mfc=CARD, mec=SERIES[2], mew=2)
            middle = (history[0].epoch + history[-1].epoch) / 2
            tag(axes, best.epoch, best.mAP, f"saved: {100 * best.mAP:.1f} %", middle)
            description = (
                f"mAP on the validation side by epoch: from {100 * known[0]:.1f} % to "
                f"{100 * known[-1]:.1f} %; the saved epoch {best.epoch} has {100 * best.mAP:.1f} %."
            )
        axes.set_ylim(0, 1.08)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
        axes.set_ylabel("mAP")
        return markup(figure, "map", description)


def tradeoff_plot(rows: Sequence[DemoRow]) -> Markup | None:
    """Plot accuracy over latency; the colour is the format, the marker the precision.

    Returns None if no row has both.
    """
    points = [row for row in rows if is_known(row.mAP) and is_known(row.p50_ms)]
    if not points:
        return None
    formats = list(dict.fromkeys(row.format for row in points))
    precisions = list(dict.fromkeys(row.precision for row in points))
    with styled():
        figure, axes = axes_of(WIDTH, 300)
        for row in points:
            colour = SERIES[formats.index(row.format) % len(SERIES)]
            marker = _MARKERS[precisions.index(row.precision) % len(_MARKERS)]
            style = {"color": colour, "label": f"{row.format} {row.precision}"}
            if is_known(row.p99_ms):
                span = [row.p50_ms or 0, row.p99_ms or 0]
                axes.plot(span, [row.mAP] * 2, lw=1.5, alpha=0.5, color=colour)
            axes.plot(row.p50_ms, row.mAP, marker, ms=9, mec=CARD, **style)  # type: ignore[arg-type]
        log_ms_axis(axes)
        axes.set_xlabel("latency of predict, ms: mark p50, line to p99")
        axes.set_ylabel("mAP")
        low, high = min(row.mAP for row in points), max(row.mAP for row in points)
        # Differences of a tenth of a point are noise: the axis never spans less than 2 points.
        margin = max(0.01, 0.15 * (high - low))
        axes.set_ylim(max(0, low - margin), high + margin)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
        figure.legend(loc="outside lower center", ncols=min(3, len(points)), fontsize=11)
        description = "; ".join(
            f"{row.format} {row.precision}: {row.p50_ms:.2f} ms, {100 * row.mAP:.1f} %"
            for row in points
        )
        return markup(figure, "tradeoff", f"mAP over median latency. {description}.")

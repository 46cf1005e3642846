"""How commands print results for people: tables and aligned lines on stdout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from edgeml.measure.compare import Fidelity

_MAX_NAMES = 30
"""Longer lists of names are shortened."""


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table: the first column is text, the others are numbers."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    console = Console()
    # Without a terminal the table goes to a log: do not cut it to 80 columns.
    Console(width=console.width if console.is_terminal else 160).print(table)


def print_metrics(result: Mapping[str, Any]) -> None:
    """Print the metrics of `edgeml eval`: a summary, labels without positives, each label."""
    summary = "  ".join(f"{name} {_cell(value)}" for name, value in result["metrics"].items())
    typer.echo(f"{result['images']} images  {summary}")
    if absent := result["absent_labels"]:
        averaged = f"{result['labels_averaged']} of {len(result['labels'])}"
        names = ", ".join(absent[:_MAX_NAMES]) + (", ..." if len(absent) > _MAX_NAMES else "")
        typer.echo(f"mAP over {averaged} labels; without positives: {names}")
    labels = result["labels"]
    if len(labels) > _MAX_NAMES:
        labels = {name: label for name, label in labels.items() if label["positives"]}
    rows = [(name, *label.values()) for name, label in labels.items()]
    print_table("Labels", ("label", "AP", "F1", "threshold", "positives"), rows)


def print_fidelity(fidelity: Fidelity, reference: str, candidate: str) -> None:
    """Print the four levels, then the metrics side by side, then the labels that lost AP."""
    drop = fidelity.drops.mAP
    inputs = f"{fidelity.inputs_equal} of {fidelity.images} inputs are equal"
    if fidelity.inputs_equal < fidelity.images:
        inputs += f", the others differ by up to {fidelity.inputs_max_abs:.2g}"
    quantiles = "  ".join(f"{name} {value:.2e}" for name, value in fidelity.quantiles.items())
    flips = sorted(fidelity.flips.items(), key=lambda pair: -pair[1])[:5]
    names = ", ".join(f"{name} {count}" for name, count in flips if count)
    typer.echo(f"preprocessing  {inputs}")
    typer.echo(
        f"tensor         max abs {fidelity.max_abs:.2e}  mean {fidelity.mean_abs:.2e}  {quantiles}"
    )
    flipped = f"{fidelity.label_flips_per_1000:.2f} per 1000" + (f": {names}" if names else "")
    typer.echo(f"decision       label flips {flipped}")
    typer.echo(
        f"metric         mAP lost {drop.points:.2f} points, "
        f"95 % interval {drop.low:.2f} to {drop.high:.2f}, on {fidelity.images} images"
    )
    exported = fidelity.exported.summary()
    rows = [(name, value, exported[name]) for name, value in fidelity.reference.summary().items()]
    print_table("Metrics", ("metric", reference, candidate), rows)
    losses = {name: loss for name, loss in fidelity.drops.labels.items() if loss.low > 0}
    if losses:
        columns = ("label", "positives", "points lost", "at least", "at most")
        lost = [
            (name, fidelity.reference.labels[name].positives, loss.points, loss.low, loss.high)
            for name, loss in sorted(losses.items(), key=lambda pair: -pair[1].points)
        ]
        print_table("Labels that surely lost AP", columns, lost)


def print_description(description: dict[str, Any]) -> None:
    """Print one fact per line: its name, its source, its value."""
    sources, preprocess = description.pop("sources"), description.pop("preprocess")
    for group in description.pop("groups"):
        description[group["name"]] = f"{group['rule']} of {_text(group['labels'])}"
        sources[group["name"]] = sources["groups"]
    if len(set(description["thresholds"])) == 1:
        description["thresholds"] = f"{description['thresholds'][0]:.4g} for all"
    facts = {**description, **preprocess}
    width = max(len(sources.get(key, "")) for key in facts)
    for key, value in facts.items():
        typer.echo(f"{key:>13}  {sources.get(key, ''):{width}}  {_text(value)}")


def _cell(value: object) -> str:
    if value is None or value != value:  # NaN
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _text(value: object) -> str:
    if value is None or value in ({}, [], ()):
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{key}={_text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        if len(value) > _MAX_NAMES:
            return f"{_text(value[:5])} ... {len(value)} in all"
        return ", ".join(_text(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)

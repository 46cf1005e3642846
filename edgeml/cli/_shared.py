"""What several commands share: options by the same name, and the way results are printed."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeml.errors import InputError
from edgeml.progress import Progress, TerminalProgress

Data = Annotated[
    Path, typer.Argument(help="Folders named after labels, a .csv or .parquet, COCO, or YOLO.")
]
Delimiter = Annotated[
    str, typer.Option(help="Between labels in a folder's name; / makes each folder a label.")
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out what is bad, and name it, not stop at it.")
]
Model = Annotated[
    Path, typer.Argument(help="An .onnx or .xml file, a run folder, or that of another tool.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Html = Annotated[Path | None, typer.Option(help="Write a page that shows it, one file.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same result.")]
Device = Annotated[str, typer.Option(help="Where to run: auto, cpu, or a runtime's own name.")]
RuntimeName = Annotated[
    str,
    typer.Option("--runtime", help="auto, onnxruntime, openvino, tensorrt, tensorrt_rtx or torch."),
]


def progress() -> Progress:
    """Give the progress that all commands show on stderr."""
    return TerminalProgress()


def label_pair(text: str | None) -> tuple[str, ...]:
    """Read two labels joined by `+`, or none.

    Raises:
        InputError: There are not two.
    """
    if text is None:
        return ()
    parts = [part.strip() for part in text.split("+")]
    if len(parts) != 2 or not all(parts):
        raise InputError(f"{text!r} does not name two labels; expected for example black+dress.")
    return tuple(parts)


def print_json(document: object) -> None:
    """Print one JSON document on stdout; NaN, which JSON lacks, is a bug and refused."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


@contextmanager
def json_list() -> Iterator[Callable[[object], None]]:
    """Print one JSON document on stdout, a list, item by item: no more than one is in memory."""
    before = "["

    def item(value: object) -> None:
        nonlocal before
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        try:
            text.encode()
        except UnicodeEncodeError:  # a file's name that is not UTF-8 is escaped, and comes back so
            text = json.dumps(value, indent=2)
        typer.echo(before + "\n" + textwrap.indent(text, "  "), nl=False)
        before = ","

    yield item
    typer.echo("[]" if before == "[" else "\n]")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table on stdout: the first column is text, the others are figures."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    console = Console()
    # Not on a terminal a table must not be cut to 80 columns: somebody reads it from a log.
    Console(width=console.width if console.is_terminal else 160).print(table)


def print_metrics(result: Mapping[str, Any]) -> None:
    """Print what `edgeml eval` measured: the summary, what it leaves out, then each label."""
    summary = "  ".join(f"{name} {_cell(value)}" for name, value in result["metrics"].items())
    typer.echo(f"{result['images']} images  {summary}")
    if absent := result["absent_labels"]:
        of = f"{result['labels_averaged']} of {len(result['labels'])}"
        named = ", ".join(absent[:_MOST_NAMES]) + (", ..." if len(absent) > _MOST_NAMES else "")
        typer.echo(f"mAP over {of} labels; without positives: {named}")
    shown = result["labels"]
    if len(shown) > _MOST_NAMES:
        shown = {name: one for name, one in shown.items() if one["positives"]}
    rows = [(name, *label.values()) for name, label in shown.items()]
    print_table("Labels", ("label", "AP", "F1", "threshold", "positives"), rows)


_MOST_NAMES = 30


def _cell(value: object) -> str:
    if value is None or value != value:  # NaN
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)

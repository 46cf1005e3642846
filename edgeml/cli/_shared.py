"""What several commands share: options of the same name, progress and JSON output."""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeml.cli._effect import reading_options
from edgeml.cli._formats import names
from edgeml.errors import InputError
from edgeml.progress import Progress, TerminalProgress

if TYPE_CHECKING:
    from edgeml.data import Dataset

Read = Callable[..., "Dataset"]
"""Reads a data set at a path, with the options of the command line."""

Data = Annotated[
    Path,
    typer.Argument(
        help="Folders named after labels, a table, COCO, YOLO, or an annotation export."
    ),
]
Delimiter = Annotated[
    str, typer.Option(help="Between labels in a folder's name; / makes each folder a label.")
]
Separator = Annotated[
    str | None, typer.Option(help="Between labels in a cell of a table, or tab; default: ;.")
]
Labels = Annotated[
    str | None, typer.Option(metavar="A,B,C", help="Labels to read, or their columns.")
]
IgnoreLabels = Annotated[
    str | None, typer.Option(metavar="A,B,C", help="Labels, or columns of a table, to leave out.")
]
Root = Annotated[
    Path | None,
    typer.Option(help="The folder that paths in a table start from, if not the one it states."),
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Skip bad rows and images and list them, not stop.")
]
Model = Annotated[
    Path, typer.Argument(help="An .onnx or .xml file, a run folder, or another tool's folder.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Html = Annotated[Path | None, typer.Option(help="Write the result as one HTML file.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same result.")]
Device = Annotated[str, typer.Option(help="Where to run: auto, cpu, or a runtime's own name.")]
RuntimeName = Annotated[
    str,
    typer.Option("--runtime", help="auto, onnxruntime, openvino, tensorrt, tensorrt_rtx or torch."),
]
MaxDrop = Annotated[
    float | None, typer.Option(min=0, metavar="PP", help="Points of mAP that may be lost.")
]
MaxLabelDrop = Annotated[
    float | None, typer.Option(min=0, metavar="PP", help="Points of AP that a label may lose.")
]


def progress() -> Progress:
    """Return the progress that all commands show on stderr."""
    return TerminalProgress()


def reads_data(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of reading data to a command with the argument `read`, a `Read`."""
    signature = inspect.signature(command, eval_str=True)
    added = {
        name: p
        for name, p in inspect.signature(_reader, eval_str=True).parameters.items()
        if name != "sources"
    }
    parameters = [p for p in signature.parameters.values() if p.name != "read"]
    kinds = [p.replace(kind=p.KEYWORD_ONLY) for p in (*parameters, *added.values())]

    def run(**values: Any) -> None:
        options = {name: values.pop(name) for name in added}
        sources = sum(values.get(name) is not None for name in ("data", "calib", "check"))
        entered = [name for name, p in added.items() if options[name] != p.default]
        if entered and not sources:
            flag = "--" + entered[0].replace("_", "-")
            raise InputError(f"{flag} would have no effect: no labelled images are read.")
        command(**values, read=_reader(**options, sources=sources))

    run.__doc__, run.__name__ = command.__doc__, command.__name__
    run.__signature__ = signature.replace(parameters=kinds)  # type: ignore[attr-defined]
    return run


def _reader(
    delimiter: Delimiter = "_",
    separator: Separator = None,
    labels: Labels = None,
    ignore_labels: IgnoreLabels = None,
    root: Root = None,
    *,
    sources: int = 1,
) -> Read:
    options = {"delimiter": delimiter, "separator": separator, "root": root}

    def read(path: Path, *, skip_bad: bool = False, unpack: Path | None = None) -> Dataset:
        from edgeml.data import read_dataset

        return read_dataset(
            path,
            labels=names(labels or "", ","),
            ignore_labels=names(ignore_labels or "", ","),
            skip_bad=skip_bad,
            unpack=unpack,
            progress=progress(),
            **reading_options(path, options, strict=sources == 1),
        )

    return read


def print_json(document: object) -> None:
    """Print one JSON document on stdout; NaN, which JSON lacks, is a bug and refused."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


@contextmanager
def json_list() -> Iterator[Callable[[object], None]]:
    """Print one JSON list on stdout, item by item: only one item is in memory at a time."""
    before = "["

    def item(value: object) -> None:
        nonlocal before
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        try:
            text.encode()
        except UnicodeEncodeError:  # a file name: escape it, so that it reads back
            text = json.dumps(value, indent=2)
        typer.echo(before + "\n" + textwrap.indent(text, "  "), nl=False)
        before = ","

    yield item
    typer.echo("[]" if before == "[" else "\n]")

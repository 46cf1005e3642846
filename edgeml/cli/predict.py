"""`edgeml predict`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from edgeml.cli._shared import Device, Json, Model, RuntimeName, json_list, progress
from edgeml.errors import EdgemlError


def predict(
    model: Model,
    sources: Annotated[
        list[Path],
        typer.Argument(help="Images, folders, a .txt with one path per line, or - for stdin."),
    ],
    jsonl: Annotated[Path | None, typer.Option(help="Write one line per image.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write a table: source, labels, scores.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write the same table as Parquet.")] = None,
    overlay: Annotated[Path | None, typer.Option(help="Write the images with labels here.")] = None,
    runtime: RuntimeName = "auto",
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Classify images. If stopped or killed, the same command continues where it was."""
    from edgeml.predict.many_files import Outputs, classify, list_files, resume_key
    from edgeml.predict.predictor import Predictor

    outputs = Outputs(jsonl=jsonl, csv=csv, parquet=parquet, overlay=overlay)
    files = list_files(sources, progress())
    mode: Literal["latency", "throughput"] = "latency" if len(files) == 1 else "throughput"
    with Predictor(model, runtime=runtime, device=device, mode=mode) as predictor:
        outputs.check(sources)
        key = resume_key(predictor, model)
        # Without an output file, lines go to stdout; --json always prints there.
        lines = nullcontext(None if outputs.files else _print_line)
        with json_list() if json else lines as out:
            summary = classify(
                predictor, files, outputs, key=key, on_entry=out, progress=progress()
            )
    if outputs.files and not json:
        where = ", ".join(map(str, outputs.files))
        typer.echo(f"{summary.images} images, {summary.failed} failed: {where}")
    if summary.failed:
        raise EdgemlError(
            f"{summary.failed} of {summary.images} images failed: {summary.first_error}"
        )


def _print_line(entry: dict[str, Any]) -> None:
    line = f"{entry['source']}: {entry['error'] or ', '.join(entry['labels']) or '(none)'}"
    typer.echo(line.encode("utf-8", "backslashreplace").decode())

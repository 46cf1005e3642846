"""`edgeml stream`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeml.cli._shared import Device, Json, Model, RuntimeName, print_json, progress


def stream(
    model: Model,
    source: Annotated[str, typer.Argument(help="Camera index, video file, folder, or URL.")],
    out: Annotated[Path | None, typer.Option(help="Write one JSON line per frame.")] = None,
    video: Annotated[Path | None, typer.Option(help="Write a video with the labels on it.")] = None,
    show: Annotated[bool, typer.Option(help="Open a window.")] = False,
    max_seconds: Annotated[
        float | None, typer.Option(min=0.1, help="Stop after this many seconds.")
    ] = None,
    runtime: RuntimeName = "auto",
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Classify a camera or a video, frame by frame, and count dropped frames."""
    from edgeml.predict.predictor import Predictor
    from edgeml.streaming import run_stream

    with Predictor(model, runtime=runtime, device=device) as predictor:
        summary = run_stream(
            predictor,
            source,
            jsonl=out,
            video=video,
            show=show,
            max_seconds=max_seconds,
            progress=progress(),
        )
    if json:
        print_json(summary.to_dict())
    else:
        typer.echo(summary.line())
    if summary.ended == "lost":
        raise typer.Exit(1)

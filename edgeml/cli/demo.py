"""`edgeml demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeml.cli._shared import Json, Seed, print_json, progress
from edgeml.cli._tables import print_table


def demo(
    out: Annotated[Path, typer.Option(help="The folder to write everything to.")] = Path("demo"),
    images: Annotated[int, typer.Option(min=300, help="How many images to draw.")] = 2500,
    epochs: Annotated[int, typer.Option(min=1)] = 14,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Run every step on this machine: draw, train, export, verify, time, report."""
    from edgeml.demo.run import COLUMNS, run_demo

    result = run_demo(out, images=images, epochs=epochs, seed=seed, progress=progress())
    if json:
        print_json(result.to_dict())
        return
    print_table("The model, as this machine runs it", COLUMNS, result.table())
    typer.echo(f"Report: {result.report}")

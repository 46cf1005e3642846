"""`edgeml bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from edgeml.cli._shared import Json, print_json, progress
from edgeml.cli._tables import print_table


def bench(
    models: Annotated[list[Path], typer.Argument(help="Models to time side by side.")],
    data: Annotated[Path | None, typer.Option(help="Images; default: one synthetic photo.")] = None,
    scenario: Annotated[Literal["single"], typer.Option(help="One image at a time.")] = "single",
    seconds: Annotated[float, typer.Option(min=0.1, help="Shortest time per model.")] = 5.0,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for bench.json and report.html.")] = None,
    json: Json = False,
) -> None:
    """Time every stage of models that take turns, each in its own process."""
    from edgeml.benchmark import BenchPlan, run_benchmark
    from edgeml.data import find_images

    plan = BenchPlan(scenario=scenario, min_s=seconds, threads=threads)
    images = find_images(data) if data else []
    report = run_benchmark(models, images=images, plan=plan, out=out, progress=progress())
    if json:
        print_json(report.to_dict())
        return
    print_table("Latency of one image", report.COLUMNS, report.table())
    for result in report.results:
        for flag in result.flags:
            typer.echo(f"{result.model}: {flag}")

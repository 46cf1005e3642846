"""`edgeml doctor` and `edgeml demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeml.cli._shared import Json, Seed, print_json, print_table, progress


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"edgeml {version('edgeml')}")
        raise typer.Exit


def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """From a folder of labelled images to a verified classifier on an edge device."""


def doctor(
    known_issues: Annotated[
        bool, typer.Option("--known-issues", help="List what goes wrong with NVIDIA GPUs.")
    ] = False,
    json: Json = False,
) -> None:
    """Say what works on this machine, what does not, why, and the line that mends it."""
    from edgeml.doctor.checks import examine
    from edgeml.runtimes.known_issues import KNOWN_ISSUES

    if known_issues:
        if json:
            print_json([issue.to_dict() for issue in KNOWN_ISSUES])
            return
        for issue in KNOWN_ISSUES:
            typer.echo(f"{issue.name}: {issue.what}\n      {issue.mend}\n      {issue.link}")
        return
    findings = examine()
    if json:
        print_json([finding.to_dict() for finding in findings])
        return
    marks = {True: "ok", False: "NO", None: "-"}
    for finding in findings:
        typer.echo(f"{marks[finding.ok]:>2}  {finding.name}: {finding.detail}")
        for line in filter(None, (finding.mend, finding.see)):
            typer.echo(f"      {line}")


def demo(
    out: Annotated[Path, typer.Option(help="The folder to write everything to.")] = Path("demo"),
    images: Annotated[int, typer.Option(min=300, help="How many pictures to draw.")] = 2500,
    epochs: Annotated[int, typer.Option(min=1)] = 14,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Walk the whole road on this machine: draw, train, export, verify, time, report."""
    from edgeml.demo.run import COLUMNS, run_demo

    result = run_demo(out, images=images, epochs=epochs, seed=seed, progress=progress())
    if json:
        print_json(result.to_dict())
        return
    print_table("The model, as this machine runs it", COLUMNS, result.table())
    typer.echo(f"Report: {result.report}")

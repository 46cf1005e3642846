"""`edgeml doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from edgeml.cli._shared import Json, print_json


def doctor(
    known_issues: Annotated[
        bool, typer.Option("--known-issues", help="List known problems with NVIDIA GPUs.")
    ] = False,
    json: Json = False,
) -> None:
    """Show what works on this machine, what does not, why, and the command that fixes it."""
    from edgeml.doctor.checks import examine
    from edgeml.runtimes.known_issues import KNOWN_ISSUES

    if known_issues:
        if json:
            print_json([issue.to_dict() for issue in KNOWN_ISSUES])
            return
        for issue in KNOWN_ISSUES:
            typer.echo(f"{issue.name}: {issue.what}\n      {issue.fix}\n      {issue.link}")
        return
    findings = examine()
    if json:
        print_json([finding.to_dict() for finding in findings])
        return
    marks = {True: "ok", False: "NO", None: "-"}
    for finding in findings:
        typer.echo(f"{marks[finding.ok]:>2}  {finding.name}: {finding.detail}")
        for line in filter(None, (finding.fix, finding.see)):
            typer.echo(f"      {line}")

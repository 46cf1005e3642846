"""`edgeml verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from edgeml.cli._shared import (
    Html,
    Json,
    MaxDrop,
    MaxLabelDrop,
    Model,
    Read,
    print_json,
    progress,
    reads_data,
)
from edgeml.cli._tables import print_fidelity
from edgeml.errors import InputError


@reads_data
def verify(
    model: Model,
    against: Annotated[
        Path | None, typer.Option(help="The source, for example its run folder.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Labelled images; of a split, its test part.")
    ] = None,
    target: Annotated[
        Literal["x86", "arm", "openvino", "tensorrt"] | None,
        typer.Option(help="Where an INT8 .onnx must run; default: any of these."),
    ] = None,
    max_drop: MaxDrop = None,
    max_label_drop: MaxLabelDrop = None,
    html: Html = None,
    json: Json = False,
    *,
    read: Read,
) -> None:
    """Check that a model file is sound and, with a source and images, that both agree."""
    from edgeml.report.check import check_report
    from edgeml_export.verify import verify as run

    if html and not against:
        raise InputError("--html shows a comparison: give --against SOURCE --data DATA too.")
    check_report(html)
    result = run(
        model,
        against=against,
        data=read(data) if data else None,
        target=target,
        max_drop=max_drop,
        max_label_drop=max_label_drop,
        progress=progress(),
    )
    if html and against and data:
        from edgeml_export.report import verify_page

        verify_page(result, against, data, html)
    if json:
        print_json(result.to_dict())
    elif result.fidelity:
        print_fidelity(result.fidelity, str(against), str(model))
    if not result.passed:
        typer.secho(f"edgeml: {result.sentence()}", fg="red", err=True)
        raise typer.Exit(1)
    if not json:
        typer.echo(result.sentence())

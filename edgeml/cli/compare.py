"""`edgeml compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeml.cli._shared import Html, Json, Model, Read, print_json, progress, reads_data
from edgeml.cli._tables import print_fidelity


@reads_data
def compare(
    reference: Model,
    candidate: Model,
    data: Annotated[Path, typer.Option(help="Labelled images to run both models on.")],
    html: Html = None,
    json: Json = False,
    *,
    read: Read,
) -> None:
    """Show how far two models disagree: in their input, in numbers, in labels, in metrics.

    A model without a spec, as other tools write them, uses the spec of the other model.
    """
    from edgeml.measure.compare_files import compare_files

    fidelity = compare_files(reference, candidate, data, read=read, html=html, progress=progress())
    if json:
        print_json(fidelity.to_dict())
    else:
        print_fidelity(fidelity, str(reference), str(candidate))

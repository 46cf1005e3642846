"""`edgeml eval`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from edgeml.cli._shared import (
    Data,
    Device,
    Json,
    Model,
    Read,
    RuntimeName,
    print_json,
    progress,
    reads_data,
)
from edgeml.cli._tables import print_metrics


@reads_data
def evaluate(
    model: Model,
    data: Data,
    split: Annotated[
        Literal["train", "val", "test", "all"] | None,
        typer.Option(help="Default: test where the split is known, else all."),
    ] = None,
    runtime: RuntimeName = "auto",
    device: Device = "auto",
    json: Json = False,
    *,
    read: Read,
) -> None:
    """Measure a model of any format on labelled images."""
    from edgeml.data.run_split import find_run_split
    from edgeml.measure.evaluation import evaluate_model
    from edgeml.predict.predictor import Predictor

    with Predictor(model, runtime=runtime, device=device, mode="throughput") as predictor:
        dataset = read(data)
        run = find_run_split(model, predictor.spec, data)
        result = evaluate_model(predictor, dataset, split, run=run, progress=progress())
    if json:
        print_json(result.to_dict())
    else:
        print_metrics(result.to_dict())

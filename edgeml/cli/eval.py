"""`edgeml eval`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from edgeml.cli._shared import (
    Data,
    Delimiter,
    Device,
    Json,
    Model,
    RuntimeName,
    print_json,
    progress,
)
from edgeml.cli._tables import print_metrics


def evaluate(
    model: Model,
    data: Data,
    split: Annotated[
        Literal["train", "val", "test", "all"] | None,
        typer.Option(help="Default: test where the split is known, else all."),
    ] = None,
    delimiter: Delimiter = "_",
    runtime: RuntimeName = "auto",
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Measure a model of any format on labelled images."""
    from edgeml.data import read_dataset
    from edgeml.measure.evaluation import evaluate_model
    from edgeml.predict.predictor import Predictor

    with Predictor(model, runtime=runtime, device=device, mode="throughput") as predictor:
        dataset = read_dataset(data, delimiter=delimiter)
        result = evaluate_model(predictor, dataset, split, progress=progress())
    if json:
        print_json(result.to_dict())
    else:
        print_metrics(result.to_dict())

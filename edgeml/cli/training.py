"""`edgeml train` and `edgeml eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from edgeml.cli._settings import with_settings
from edgeml.cli._shared import (
    Data,
    Delimiter,
    Device,
    Json,
    Model,
    RuntimeName,
    print_json,
    print_metrics,
    progress,
)
from edgeml.errors import InputError, needs
from edgeml.training.config import CONFIG_FILE, TrainConfig, read_settings


@with_settings
def train(
    data: Data,
    out: Annotated[Path, typer.Option(help="The run folder to write.")] = Path("run"),
    config: Annotated[
        Path | None, typer.Option(help="A .yaml of settings; flags win over it.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, where it was killed.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a run that stands in --out.")
    ] = False,
    find: Annotated[
        Literal["lr", "batch"] | None,
        typer.Option(help="Do not train: look for a good learning rate, or for the fastest batch."),
    ] = None,
    json: Json = False,
    **settings: Any,
) -> None:
    """Train a multi-label classifier."""
    from edgeml.data import read_dataset

    with needs("torch", extra="train", to="train a model"):
        from edgeml.training.find import find_batch, find_lr
        from edgeml.training.loop import train as run

    chosen = _config(config, out, settings, resume=resume)
    dataset = read_dataset(data, delimiter=chosen.delimiter, skip_bad=chosen.skip_bad)
    if find is not None:
        search = find_lr if find == "lr" else find_batch
        found = search(dataset, chosen, out, progress=progress())
        if json:
            print_json(found.to_dict())
        else:
            typer.echo(found.told())
        return
    result = run(dataset, chosen, out, resume=resume, overwrite=overwrite, progress=progress())
    if json:
        print_json({"path": str(result.path), **result.metrics.to_dict()})
    else:
        print_metrics(result.metrics.to_dict())
        typer.echo(f"Report: {out / 'report.html'}")
        # What was left out of the data would be in the way of the next command.
        check = out / "split.csv" if chosen.skip_bad else data
        typer.echo(f"Next: edgeml export {out} --fmt onnx --check {check}")


def _config(file: Path | None, out: Path, given: dict[str, Any], *, resume: bool) -> TrainConfig:
    """Lay flags over a .yaml, or over the settings of the run that is resumed."""
    if resume:
        if not (out / CONFIG_FILE).is_file():
            raise InputError(f"There is no run in {str(out)!r} to resume.")
        if file is not None:
            raise InputError("--resume takes the settings of the run: leave --config away.")
        file = out / CONFIG_FILE
    told = read_settings(file) if file else {}
    if given.get("pretrained") and "weights" not in given:
        told.pop("weights", None)
    return TrainConfig(**{**told, **given})


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

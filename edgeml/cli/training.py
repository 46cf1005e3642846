"""`edgeml train` and `edgeml eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from edgeml.cli._shared import (
    Data,
    Device,
    Json,
    Model,
    RuntimeName,
    Seed,
    print_json,
    print_metrics,
    progress,
)
from edgeml.errors import InputError, needs


def train(
    data: Data,
    model: Annotated[str, typer.Option(help="`cnn`, our own, or any model of timm.")] = "cnn",
    model_args: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="For the model's constructor.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The run folder to write.")] = Path("run"),
    weights: Annotated[Path | None, typer.Option(help="Start from this .safetensors file.")] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained/--from-scratch", help="Fetch timm's weights, or not.")
    ] = False,
    epochs: Annotated[int, typer.Option(min=1)] = 12,
    size: Annotated[
        int | None, typer.Option(help="Input side, in pixels; default: the model's own.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1)] = 32,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate; default: by model.")] = None,
    augment: Annotated[Literal["none", "colour_safe"], typer.Option()] = "colour_safe",
    loss: Annotated[Literal["bce"], typer.Option()] = "bce",
    val: Annotated[float, typer.Option(min=0, max=0.9, help="Share for validation.")] = 0.15,
    test: Annotated[float, typer.Option(min=0, max=0.9, help="Share for the test.")] = 0.15,
    seed: Seed = 0,
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option(help="Replace a run that stands in --out.")] = False,
    json: Json = False,
) -> None:
    """Train a multi-label classifier."""
    from edgeml.data import SplitPlan, read_dataset

    with needs("torch", extra="train", to="train a model"):
        from edgeml.train.config import TrainConfig
        from edgeml.train.loop import train as run

    config = TrainConfig(
        model=model,
        model_args=_model_args(model_args or []),
        weights=weights,
        pretrained=pretrained,
        epochs=epochs,
        size=size,
        batch=batch,
        lr=lr,
        augment=augment,
        loss=loss,
        split=SplitPlan(val=val, test=test, seed=seed),
        seed=seed,
        device=device,
        overwrite=overwrite,
    )
    result = run(read_dataset(data), config, out, progress=progress())
    if json:
        print_json({"path": str(result.path), **result.metrics.to_dict()})
    else:
        print_metrics(result.metrics.to_dict())
        typer.echo(f"Next: edgeml export {out} --fmt onnx --check {data}")


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
) -> None:
    """Measure a model of any format on labelled images."""
    from edgeml.data import read_dataset
    from edgeml.evaluation import evaluate_model
    from edgeml.predictor import Predictor

    with Predictor(model, runtime=runtime, device=device) as predictor:
        result = evaluate_model(predictor, read_dataset(data), split, progress=progress())
    if json:
        print_json(result.to_dict())
    else:
        print_metrics(result.to_dict())


def _model_args(pairs: list[str]) -> dict[str, str | int | float | bool]:
    """Read `key=value` pairs; a value that looks like a number or true/false becomes one."""
    parsed: dict[str, str | int | float | bool] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.isidentifier():
            raise InputError(f"--model-args wants key=value, not {pair!r}.")
        parsed[key] = _value(text)
    return parsed


def _value(text: str) -> str | int | float | bool:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text

"""`edgeml export`, `edgeml compare` and `edgeml inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from edgeml.cli._shared import Delimiter, Json, Model, print_json, print_table, progress


def export(
    source: Annotated[Path, typer.Argument(help="A run folder of `edgeml train`, or an .onnx.")],
    fmt: Annotated[Literal["onnx", "openvino", "trt"], typer.Option(help="What to write.")],
    precision: Annotated[Literal["fp32", "fp16", "int8"], typer.Option()] = "fp32",
    target: Annotated[
        Literal["auto", "x86", "openvino"], typer.Option(help="What INT8 is laid out for.")
    ] = "auto",
    calib: Annotated[
        Path | None, typer.Option(help="Images for INT8; of a split, its train part is used.")
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(help="Images to compare with the source; of a split, its test part."),
    ] = None,
    max_drop: Annotated[
        float | None, typer.Option(min=0, metavar="PP", help="Points of mAP that may be lost.")
    ] = None,
    max_label_drop: Annotated[
        float | None, typer.Option(min=0, metavar="PP", help="Points of AP for any one label.")
    ] = None,
    input: Annotated[
        Literal["float32", "uint8"], typer.Option(help="uint8: raw frames, normalised inside.")
    ] = "float32",
    out: Annotated[Path | None, typer.Option(help="The file to write.")] = None,
    delimiter: Delimiter = "_",
    json: Json = False,
) -> None:
    """Write a model for a device, and prove on real images that it still means the same."""
    from edgeml.data import read_dataset
    from edgeml_export import export as run

    exported = run(
        source,
        fmt,
        precision=precision,
        target=target,
        calib=read_dataset(calib, delimiter=delimiter) if calib else None,
        check=read_dataset(check, delimiter=delimiter) if check else None,
        max_drop=max_drop,
        max_label_drop=max_label_drop,
        input=input,
        out=out,
        progress=progress(),
    )
    if json:
        print_json(exported.to_dict())
    else:
        typer.echo(exported.path)


def compare(
    reference: Model,
    candidate: Model,
    data: Annotated[Path, typer.Option(help="Labelled images that both shall see.")],
    delimiter: Delimiter = "_",
    json: Json = False,
) -> None:
    """Show how far two models disagree: in numbers, in labels, in metrics."""
    from edgeml.compare import compare as run
    from edgeml.data import read_dataset
    from edgeml.evaluation import choose_part
    from edgeml.predictor import Predictor

    show = progress()
    with Predictor(reference) as first, Predictor(candidate) as second:
        dataset = read_dataset(data, delimiter=delimiter)
        images = choose_part(dataset, first.spec, None, progress=show)
        fidelity = run(first, second, images, progress=show)
    if json:
        print_json(fidelity.to_dict())
        return
    rows = [
        (name, value, fidelity.exported.summary()[name])
        for name, value in fidelity.reference.summary().items()
    ]
    typer.echo(
        f"{fidelity.images} images  max abs {fidelity.max_abs:.2e}  "
        f"label flips {fidelity.label_flips_per_1000:.2f} per 1000"
    )
    print_table("Metrics", ("metric", str(reference), str(candidate)), rows)


def inspect(model: Model, json: Json = False) -> None:
    """Show what a model file says of itself."""
    from edgeml.inspection import describe

    description = describe(model)
    if json:
        print_json(description)
        return
    for group in description.pop("groups"):
        description[group["name"]] = f"{group['rule']} of {_shown(group['labels'])}"
    for key, value in description.items():
        typer.echo(f"{key:>12}  {_shown(value)}")


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={_shown(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_shown(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)

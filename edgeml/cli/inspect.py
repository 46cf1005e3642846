"""`edgeml inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from edgeml.cli._formats import image_size, torchvision_weights, triple
from edgeml.cli._shared import Json, Model, print_json
from edgeml.cli._tables import print_description
from edgeml.errors import InputError
from edgeml.image.filters import Interpolation
from edgeml.image.preprocess import Resize


def inspect(
    model: Model,
    labels: Annotated[Path | None, typer.Option(help="Names, one per line, or JSON.")] = None,
    size: Annotated[str | None, typer.Option(metavar="HxW", help="Size of the input.")] = None,
    resize: Annotated[Resize | None, typer.Option(help="How an image gets that size.")] = None,
    crop: Annotated[
        float | None, typer.Option(help="Share of each side that a crop keeps, such as 0.875.")
    ] = None,
    pad: Annotated[int | None, typer.Option(help="Grey level of a letterbox.")] = None,
    interpolation: Annotated[Interpolation | None, typer.Option(help="The filter.")] = None,
    antialias: Annotated[
        bool | None, typer.Option(help="Whether the filter widens when it shrinks.")
    ] = None,
    mean: Annotated[str | None, typer.Option(metavar="R,G,B", help="On a scale of 0 to 1.")] = None,
    std: Annotated[str | None, typer.Option(metavar="R,G,B", help="On a scale of 0 to 1.")] = None,
    channels: Annotated[
        Literal["rgb", "bgr"] | None, typer.Option(help="Order of the input, mean and std.")
    ] = None,
    layout: Annotated[Literal["nchw", "nhwc"] | None, typer.Option()] = None,
    activation: Annotated[
        Literal["softmax", "sigmoid", "none"] | None,
        typer.Option(help="What turns the output into probabilities."),
    ] = None,
    task: Annotated[
        Literal["multilabel", "multiclass"] | None,
        typer.Option(help="Any number of labels per image, or exactly one."),
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="For all labels.")] = None,
    output: Annotated[
        str | None, typer.Option(help="The output with scores, if there are several.")
    ] = None,
    torchvision: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Use the transforms of these torchvision weights."),
    ] = None,
    write_spec: Annotated[
        bool, typer.Option("--write-spec", help="Write the spec next to the model, as MODEL.json.")
    ] = False,
    inside: Annotated[
        bool, typer.Option("--inside", help="With --write-spec: in the model file instead.")
    ] = False,
    json: Json = False,
) -> None:
    """Show what a model means, and where each part of that comes from.

    The options supply what the file of another tool does not state.
    """
    from edgeml.predict.inspection import describe
    from edgeml.spec.foreign.merge import SpecOverrides
    from edgeml.spec.foreign.values import read_labels

    if inside and not write_spec:
        raise InputError("--inside needs --write-spec: it changes where the spec is written.")
    overrides = SpecOverrides(
        labels=read_labels(labels) if labels else None,
        size=image_size("--size", size),
        resize=resize,
        crop=crop,
        pad=pad,
        interpolation=interpolation,
        antialias=antialias,
        mean=triple("--mean", mean),
        std=triple("--std", std),
        channels=channels,
        layout=layout,
        activation=activation,
        task=task,
        threshold=threshold,
        output=output,
        like=torchvision_weights(torchvision) if torchvision else None,
    )
    description = describe(model, overrides, write=write_spec, inside=inside)
    if json:
        print_json(description)
    else:
        print_description(description)

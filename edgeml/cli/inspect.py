"""`edgeml inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from edgeml.cli._formats import image_size, torchvision_weights, triple
from edgeml.cli._shared import Json, Model, print_json
from edgeml.cli._tables import print_description
from edgeml.errors import InputError
from edgeml.image.modes import Interpolation, Resize

Labels = Annotated[Path | None, typer.Option(help="Names, one per line, or JSON, YAML, .csv.")]
Size = Annotated[str | None, typer.Option(metavar="HxW", help="Size of the input.")]
ResizeMode = Annotated[Resize | None, typer.Option(help="How an image gets that size.")]
Crop = Annotated[
    float | None, typer.Option(help="Share of each side that a crop keeps, such as 0.875.")
]
Pad = Annotated[int | None, typer.Option(help="Grey level of a letterbox.")]
Filter = Annotated[Interpolation | None, typer.Option(help="The filter.")]
Antialias = Annotated[bool | None, typer.Option(help="Whether the filter widens when it shrinks.")]
Triple = Annotated[str | None, typer.Option(metavar="R,G,B", help="On a scale of 0 to 1.")]
Channels = Annotated[
    Literal["rgb", "bgr"] | None, typer.Option(help="Order of the input, mean and std.")
]
Layout = Annotated[Literal["nchw", "nhwc"] | None, typer.Option()]
Activation = Annotated[
    Literal["softmax", "sigmoid", "none"] | None,
    typer.Option(help="What turns the output into probabilities."),
]
Task = Annotated[
    Literal["multilabel", "multiclass"] | None,
    typer.Option(help="Any number of labels per image, or exactly one."),
]
Threshold = Annotated[float | None, typer.Option(help="For all labels.")]
Output = Annotated[str | None, typer.Option(help="The output with scores, if there are several.")]
Weights = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="torchvision weights whose transforms to use."),
]
WriteSpec = Annotated[
    bool, typer.Option("--write-spec", help="Write the spec next to the model, as MODEL.json.")
]
Inside = Annotated[
    bool, typer.Option("--inside", help="With --write-spec: in the model file instead.")
]


def inspect(
    model: Model,
    labels: Labels = None,
    size: Size = None,
    resize: ResizeMode = None,
    crop: Crop = None,
    pad: Pad = None,
    interpolation: Filter = None,
    antialias: Antialias = None,
    mean: Triple = None,
    std: Triple = None,
    channels: Channels = None,
    layout: Layout = None,
    activation: Activation = None,
    task: Task = None,
    threshold: Threshold = None,
    output: Output = None,
    torchvision: Weights = None,
    write_spec: WriteSpec = False,
    inside: Inside = False,
    json: Json = False,
) -> None:
    """Show what a model means, and where each part of that comes from.

    The options supply what the file of another tool does not state.
    """
    from edgeml.predict.inspection import describe
    from edgeml.spec.foreign.label_names import read_labels
    from edgeml.spec.foreign.merge import SpecOverrides

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

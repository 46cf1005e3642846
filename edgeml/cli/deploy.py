"""`edgeml export`, `compare`, `verify` and `inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgeml.cli._shared import Delimiter, Html, Json, Model, print_json, print_table, progress
from edgeml.errors import InputError, needs
from edgeml.files import check_writable
from edgeml.image.filters import Interpolation
from edgeml.image.preprocess import Resize
from edgeml.measure.compare import FidelityError

if TYPE_CHECKING:
    from edgeml.measure.compare import Fidelity
    from edgeml.runtimes.tensorrt.build import Profile

MaxDrop = Annotated[
    float | None, typer.Option(min=0, metavar="PP", help="Points of mAP that may be lost.")
]
MaxLabelDrop = Annotated[
    float | None, typer.Option(min=0, metavar="PP", help="Points of AP for any one label.")
]


def export(
    source: Annotated[Path, typer.Argument(help="A run folder of `edgeml train`, or an .onnx.")],
    fmt: Annotated[
        Literal["onnx", "openvino", "trt", "trt-rtx", "triton", "ovms"],
        typer.Option(help="What to write; for triton and ovms, a model repository."),
    ],
    precision: Annotated[Literal["fp32", "fp16", "int8"], typer.Option()] = "fp32",
    target: Annotated[
        Literal["auto", "x86", "arm", "openvino", "tensorrt"],
        typer.Option(help="What INT8 is laid out for; auto is x86 for an .onnx."),
    ] = "auto",
    calib: Annotated[
        Path | None, typer.Option(help="Images for INT8; of a split, its train and val parts.")
    ] = None,
    calib_method: Annotated[
        Literal["auto", "minmax", "percentile", "entropy"],
        typer.Option(help="How INT8 ranges are taken; auto keeps what moves decisions least."),
    ] = "auto",
    check: Annotated[
        Path | None,
        typer.Option(help="Images to compare with the source; of a split, its test part."),
    ] = None,
    max_drop: MaxDrop = None,
    max_label_drop: MaxLabelDrop = None,
    search_minutes: Annotated[
        float, typer.Option(help="For finding layers to leave in float, if INT8 misses its budget.")
    ] = 10.0,
    allow_overlap: Annotated[
        bool, typer.Option("--allow-overlap", help="Let images judge that were also chosen by.")
    ] = False,
    input: Annotated[
        Literal["float32", "uint8"], typer.Option(help="uint8: raw frames, normalised inside.")
    ] = "float32",
    slim: Annotated[bool, typer.Option("--slim", help="Let onnxslim merge nodes.")] = False,
    retarget: Annotated[
        bool, typer.Option("--retarget", help="Rewrite an INT8 .onnx so that TensorRT takes it.")
    ] = False,
    batch: Annotated[
        str, typer.Option(metavar="MIN,OPT,MAX", help="Batches that an engine takes.")
    ] = "1,1,8",
    portable: Annotated[
        Literal["exact", "same-capability", "ampere+", "version"],
        typer.Option(help="Where else an engine of trt runs; version: executes code it carries."),
    ] = "exact",
    capability: Annotated[
        str | None,
        typer.Option(metavar="8.6,8.9", help="GPUs that trt-rtx compiles for; or current."),
    ] = None,
    workspace: Annotated[
        int | None, typer.Option(min=1, metavar="MIB", help="Device memory for building, at most.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The file or folder to write.")] = None,
    delimiter: Delimiter = "_",
    json: Json = False,
) -> None:
    """Write a model for a device, and prove on real images that it still means the same."""
    from edgeml.data import read_dataset
    from edgeml.runtimes.tensorrt.build import EngineOptions
    from edgeml_export import export as run

    engine = EngineOptions(
        profile=_profile(batch),
        workspace_mb=workspace,
        portable=portable,
        capability=_capability(capability),
    )
    try:
        exported = run(
            source,
            fmt,
            precision=precision,
            target=target,
            calib=read_dataset(calib, delimiter=delimiter) if calib else None,
            method=calib_method,
            check=read_dataset(check, delimiter=delimiter) if check else None,
            max_drop=max_drop,
            max_label_drop=max_label_drop,
            minutes=search_minutes,
            allow_overlap=allow_overlap,
            input=input,
            slim=slim,
            retarget=retarget,
            engine=engine,
            out=out,
            progress=progress(),
        )
    except FidelityError as err:
        if json:
            print_json(
                {
                    "path": None,
                    "format": fmt,
                    "precision": precision,
                    "sha256": None,
                    "checks": err.fidelity.to_dict(),
                    "report": err.report and str(err.report),
                }
            )
        elif err.report:
            typer.echo(f"Report: {err.report}", err=True)
        raise
    if json:
        print_json(exported.to_dict())
        return
    if exported.report:
        typer.echo(f"Report: {exported.report}", err=True)
    typer.echo(exported.path)


def _profile(text: str) -> Profile:
    """Read `--batch`: three numbers, or one for a batch that is always the same.

    Raises:
        InputError: It is neither.
    """
    from edgeml.runtimes.tensorrt.build import Profile

    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts) or len(parts) not in (1, 3):
        raise InputError(f"--batch is {text!r}; expected for example 1,1,8, or 4.")
    least, usual, greatest = (int(part) for part in (parts if len(parts) == 3 else 3 * parts))
    return Profile(least, usual, greatest)


def _capability(text: str | None) -> tuple[str, ...] | Literal["current"] | None:
    if text is None:
        return None
    return "current" if text == "current" else tuple(part.strip() for part in text.split(","))


def compare(
    reference: Model,
    candidate: Model,
    data: Annotated[Path, typer.Option(help="Labelled images that both shall see.")],
    html: Html = None,
    delimiter: Delimiter = "_",
    json: Json = False,
) -> None:
    """Show how far two models disagree: in their input, in numbers, in labels, in metrics.

    A model without a spec of its own, as other tools write them, is taken at the other's word.
    """
    from edgeml.data import read_dataset
    from edgeml.measure.compare import both_open, measure, run_both
    from edgeml.measure.evaluation import choose_part

    show = progress()
    _check_page(html)
    with both_open(reference, candidate, progress=show) as (first, second):
        dataset = read_dataset(data, delimiter=delimiter)
        images = choose_part(dataset, first.spec, None, progress=show)
        outputs = run_both(first, second, images, progress=show)
        fidelity = measure(outputs, first.spec, second.spec)
    if html:
        from edgeml.measure.contents import Comparison
        from edgeml.measure.page import export_report

        page = Comparison(
            title=f"{reference.name} and {candidate.name}",
            reference=reference.name,
            candidate=candidate.name,
            fidelity=fidelity,
            scores=outputs.scores(first.spec, second.spec),
            facts=_facts(reference=reference, candidate=candidate, data=data),
        )
        export_report(page, html)
    if json:
        print_json(fidelity.to_dict())
    else:
        _print_levels(fidelity, str(reference), str(candidate))


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
        typer.Option(help="What an INT8 .onnx must suit; else any target."),
    ] = None,
    max_drop: MaxDrop = None,
    max_label_drop: MaxLabelDrop = None,
    html: Html = None,
    delimiter: Delimiter = "_",
    json: Json = False,
) -> None:
    """Check that a model file is sound and, with a source and images, that it means the same."""
    from edgeml.data import read_dataset
    from edgeml_export.verify import verify as run

    if html and not against:
        raise InputError("--html shows a comparison: give --against SOURCE --data DATA too.")
    _check_page(html)
    found = run(
        model,
        against=against,
        data=read_dataset(data, delimiter=delimiter) if data else None,
        target=target,
        max_drop=max_drop,
        max_label_drop=max_label_drop,
        progress=progress(),
    )
    if html and against and found.fidelity and found.limits:
        from edgeml.measure.contents import Comparison
        from edgeml.measure.page import export_report

        page = Comparison(
            kind="check",
            title=model.name,
            reference=against.name,
            candidate=model.name,
            fidelity=found.fidelity,
            findings=found.findings,
            max_drop=found.limits.drop,
            max_label_drop=found.limits.label_drop,
            scores=found.scores,
            facts=_facts(source=against, model=model, data=data),
        )
        export_report(page, html)
    if json:
        print_json(found.to_dict())
    elif found.fidelity:
        _print_levels(found.fidelity, str(against), str(model))
    if not found.passed:
        typer.secho(f"edgeml: {found.sentence()}", fg="red", err=True)
        raise typer.Exit(1)
    if not json:
        typer.echo(found.sentence())


def _check_page(html: Path | None) -> None:
    """Refuse, before any work, a page that could not be written in the end."""
    if html is None:
        return
    with (
        needs("jinja2", extra="report", to="write an HTML report"),
        needs("matplotlib", extra="report", to="write an HTML report"),
    ):
        import edgeml.report  # noqa: F401
    check_writable(html)


def _facts(**paths: Path | None) -> dict[str, str]:
    """Name the files of a comparison and the versions it was made with."""
    from edgeml.benchmark.environment import capture_software
    from edgeml.files import sha256_of_file
    from edgeml.predict.inspection import model_files

    facts = {}
    for name, path in paths.items():
        if path is None:
            continue
        facts[name.title()] = str(path)
        if name != "data":
            facts[f"{name.title()}, SHA-256"] = sha256_of_file(model_files(path)[0])
    versions = capture_software()
    facts["Versions"] = ", ".join(f"{name} {v}" for name, v in versions.items() if v)
    return facts


def _print_levels(fidelity: Fidelity, reference: str, candidate: str) -> None:
    """Print the four levels, then the metrics side by side, then the labels that lost."""
    drop = fidelity.drops.mAP
    inputs = f"{fidelity.inputs_equal} of {fidelity.images} inputs are equal"
    if fidelity.inputs_equal < fidelity.images:
        inputs += f", the others off by up to {fidelity.inputs_max_abs:.2g}"
    quantiles = "  ".join(f"{name} {value:.2e}" for name, value in fidelity.quantiles.items())
    flipping = sorted(fidelity.flips.items(), key=lambda pair: -pair[1])[:5]
    named = ", ".join(f"{name} {count}" for name, count in flipping if count)
    typer.echo(f"preprocessing  {inputs}")
    typer.echo(
        f"tensor         max abs {fidelity.max_abs:.2e}  mean {fidelity.mean_abs:.2e}  {quantiles}"
    )
    typer.echo(
        f"decision       label flips {fidelity.label_flips_per_1000:.2f} per 1000"
        + (f": {named}" if named else "")
    )
    typer.echo(
        f"metric         mAP lost {drop.points:.2f} points, "
        f"95 % interval {drop.low:.2f} to {drop.high:.2f}, on {fidelity.images} images"
    )
    rows = [
        (name, value, fidelity.exported.summary()[name])
        for name, value in fidelity.reference.summary().items()
    ]
    print_table("Metrics", ("metric", reference, candidate), rows)
    lost = {name: one for name, one in fidelity.drops.labels.items() if one.low > 0}
    if lost:
        print_table(
            "Labels that surely lost AP",
            ("label", "positives", "points lost", "at least", "at most"),
            [
                (name, fidelity.reference.labels[name].positives, one.points, one.low, one.high)
                for name, one in sorted(lost.items(), key=lambda pair: -pair[1].points)
            ],
        )


def inspect(
    model: Model,
    labels: Annotated[Path | None, typer.Option(help="Names, one a line, or JSON.")] = None,
    size: Annotated[str | None, typer.Option(metavar="HxW", help="Of the input.")] = None,
    resize: Annotated[Resize | None, typer.Option(help="How a picture gets that size.")] = None,
    crop: Annotated[
        float | None, typer.Option(help="The share of the sides that a cut keeps, as 0.875.")
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
        typer.Option(help="What makes probabilities of the output."),
    ] = None,
    task: Annotated[
        Literal["multilabel", "multiclass"] | None,
        typer.Option(help="Each label for itself, or one of all."),
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="For all labels.")] = None,
    output: Annotated[str | None, typer.Option(help="The one with scores, of several.")] = None,
    torchvision: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="As ResNet50_Weights.IMAGENET1K_V2 has it."),
    ] = None,
    write_spec: Annotated[
        bool, typer.Option("--write-spec", help="Keep all of it beside the model, as MODEL.json.")
    ] = False,
    inside: Annotated[
        bool, typer.Option("--inside", help="With --write-spec: in the model file instead.")
    ] = False,
    json: Json = False,
) -> None:
    """Show what a model means, and where each part of that comes from.

    The options say what a model of another tool does not.
    """
    from edgeml.predict.inspection import describe
    from edgeml.spec.foreign.merge import Said
    from edgeml.spec.foreign.values import read_labels

    if inside and not write_spec:
        raise InputError("--inside says where --write-spec writes: give both.")
    said = Said(
        labels=read_labels(labels) if labels else None,
        size=_size(size),
        resize=resize,
        crop=crop,
        pad=pad,
        interpolation=interpolation,
        antialias=antialias,
        mean=_three("--mean", mean),
        std=_three("--std", std),
        channels=channels,
        layout=layout,
        activation=activation,
        task=task,
        threshold=threshold,
        output=output,
        like=_weights(torchvision) if torchvision else None,
    )
    description = describe(model, said, write=write_spec, inside=inside)
    if json:
        print_json(description)
    else:
        _print_description(description)


def _print_description(description: dict[str, Any]) -> None:
    """Print one fact a line: its name, where it comes from, its value."""
    sources, frame = description.pop("sources"), description.pop("preprocess")
    for group in description.pop("groups"):
        description[group["name"]] = f"{group['rule']} of {_shown(group['labels'])}"
        sources[group["name"]] = sources["groups"]
    if len(set(description["thresholds"])) == 1:
        description["thresholds"] = f"{description['thresholds'][0]:.4g} for all"
    facts = {**description, **frame}
    width = max(len(sources.get(key, "")) for key in facts)
    for key, value in facts.items():
        typer.echo(f"{key:>13}  {sources.get(key, ''):{width}}  {_shown(value)}")


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.strip().isdecimal() for side in sides):
        raise InputError(f"--size is {text!r}; expected height x width, such as 224x224.")
    return int(sides[0]), int(sides[-1])


def _three(flag: str, text: str | None) -> tuple[float, float, float] | None:
    if text is None:
        return None
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError as err:
        raise InputError(f"{flag} is {text!r}; expected such as 0.485,0.456,0.406.") from err
    return red, green, blue


def _weights(name: str) -> object:
    """Find a member of torchvision's enums of weights; nothing is downloaded."""
    with needs("torchvision", extra="train", to="read torchvision's transforms"):
        from torchvision.models import get_weight
    try:
        return get_weight(name)
    except (ValueError, AttributeError, KeyError) as err:
        raise InputError(
            f"torchvision has no {name!r}; expected such as ResNet50_Weights.IMAGENET1K_V2."
        ) from err


_MOST_NAMES = 30


def _shown(value: object) -> str:
    if value is None or value in ({}, [], ()):
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{key}={_shown(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        if len(value) > _MOST_NAMES:
            return f"{_shown(value[:5])} ... {len(value)} in all"
        return ", ".join(_shown(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)

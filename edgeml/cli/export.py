"""`edgeml export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from edgeml.cli._formats import batch_profile, gpu_capability
from edgeml.cli._shared import Delimiter, Json, MaxDrop, MaxLabelDrop, print_json, progress


def export(
    source: Annotated[Path, typer.Argument(help="A run folder of `edgeml train`, or an .onnx.")],
    fmt: Annotated[
        Literal["onnx", "openvino", "trt", "trt-rtx", "triton", "ovms"],
        typer.Option(help="What to write; for triton and ovms, a model repository."),
    ],
    precision: Annotated[Literal["fp32", "fp16", "int8"], typer.Option()] = "fp32",
    target: Annotated[
        Literal["auto", "x86", "arm", "openvino", "tensorrt"],
        typer.Option(help="Where INT8 will run; auto is x86 for an .onnx."),
    ] = "auto",
    calib: Annotated[
        Path | None, typer.Option(help="Images for INT8; of a split, its train and val parts.")
    ] = None,
    calib_method: Annotated[
        Literal["auto", "minmax", "percentile", "entropy"],
        typer.Option(help="How to choose INT8 ranges; auto uses what changes decisions least."),
    ] = "auto",
    check: Annotated[
        Path | None,
        typer.Option(help="Images to compare with the source; of a split, its test part."),
    ] = None,
    max_drop: MaxDrop = None,
    max_label_drop: MaxLabelDrop = None,
    search_minutes: Annotated[
        float, typer.Option(help="Time to search layers to keep in float if INT8 loses too much.")
    ] = 10.0,
    allow_overlap: Annotated[
        bool, typer.Option("--allow-overlap", help="Check on images that were also used to choose.")
    ] = False,
    input: Annotated[
        Literal["float32", "uint8"], typer.Option(help="uint8: raw frames, normalised inside.")
    ] = "float32",
    slim: Annotated[bool, typer.Option("--slim", help="Let onnxslim merge nodes.")] = False,
    retarget: Annotated[
        bool, typer.Option("--retarget", help="Rewrite an INT8 .onnx so that TensorRT accepts it.")
    ] = False,
    batch: Annotated[
        str, typer.Option(metavar="MIN,OPT,MAX", help="Batch sizes that an engine accepts.")
    ] = "1,1,8",
    portable: Annotated[
        Literal["exact", "same-capability", "ampere+", "version"],
        typer.Option(help="Where else an engine of trt runs; version: executes code it contains."),
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
    """Write a model for a device, and check on real images that it makes the same decisions."""
    from edgeml.data import read_dataset
    from edgeml.measure.compare import FidelityError
    from edgeml.runtimes.tensorrt.engine_options import EngineOptions
    from edgeml_export import export as run

    engine = EngineOptions(
        profile=batch_profile(batch),
        workspace_mb=workspace,
        portable=portable,
        capability=gpu_capability(capability),
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

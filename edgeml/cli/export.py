"""`edgeml export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edgeml.cli._formats import batch_profile, gpu_capability
from edgeml.cli._shared import Json, MaxDrop, MaxLabelDrop, Read, print_json, progress, reads_data

if TYPE_CHECKING:
    from edgeml.measure.compare import FidelityError
    from edgeml_export import Exported

Source = Annotated[Path, typer.Argument(help="A run folder of `edgeml train`, or an .onnx.")]
Format = Annotated[
    Literal["onnx", "openvino", "trt", "trt-rtx", "triton", "ovms"],
    typer.Option(help="What to write; for triton and ovms, a model repository."),
]
Precision = Annotated[Literal["fp32", "fp16", "int8"], typer.Option()]
Target = Annotated[
    Literal["auto", "x86", "arm", "openvino", "tensorrt"],
    typer.Option(help="Where INT8 will run; auto is x86 for an .onnx."),
]
Calibration = Annotated[
    Path | None, typer.Option(help="Images for INT8; of a split, its train and val parts.")
]
Method = Annotated[
    Literal["auto", "minmax", "percentile", "entropy"],
    typer.Option(help="How to choose INT8 ranges; auto uses what changes decisions least."),
]
Check = Annotated[
    Path | None, typer.Option(help="Images to compare with the source; of a split, its test part.")
]
Minutes = Annotated[
    float, typer.Option(help="Time to search layers to keep in float if INT8 loses too much.")
]
Overlap = Annotated[
    bool, typer.Option("--allow-overlap", help="Check on images that were also used to choose.")
]
Input = Annotated[
    Literal["float32", "uint8"], typer.Option(help="uint8: raw frames, normalised inside.")
]
Slim = Annotated[bool, typer.Option("--slim", help="Let onnxslim merge nodes.")]
Retarget = Annotated[
    bool, typer.Option("--retarget", help="Rewrite an INT8 .onnx so that TensorRT accepts it.")
]
Batch = Annotated[
    str, typer.Option(metavar="MIN,OPT,MAX", help="Batch sizes that an engine accepts.")
]
Portable = Annotated[
    Literal["exact", "same-capability", "ampere+", "version"],
    typer.Option(help="Where else an engine of trt runs; version: executes code it contains."),
]
Capability = Annotated[
    str | None, typer.Option(metavar="8.6,8.9", help="GPUs that trt-rtx compiles for; or current.")
]
Workspace = Annotated[
    int | None, typer.Option(min=1, metavar="MIB", help="Device memory for building, at most.")
]
Out = Annotated[Path | None, typer.Option(help="The file or folder to write.")]


@reads_data
def export(
    source: Source,
    fmt: Format,
    precision: Precision = "fp32",
    target: Target = "auto",
    calib: Calibration = None,
    calib_method: Method = "auto",
    check: Check = None,
    max_drop: MaxDrop = None,
    max_label_drop: MaxLabelDrop = None,
    search_minutes: Minutes = 10.0,
    allow_overlap: Overlap = False,
    input: Input = "float32",
    slim: Slim = False,
    retarget: Retarget = False,
    batch: Batch = "1,1,8",
    portable: Portable = "exact",
    capability: Capability = None,
    workspace: Workspace = None,
    out: Out = None,
    json: Json = False,
    *,
    read: Read,
) -> None:
    """Write a model for a device, and check on real images that it makes the same decisions."""
    from edgeml.measure.compare import FidelityError
    from edgeml.runtimes.tensorrt.engine_options import EngineOptions
    from edgeml_export import ExportRequest, run_export

    request = ExportRequest(
        source=source,
        fmt=fmt,
        precision=precision,
        target=target,
        calib=read(calib) if calib else None,
        method=calib_method,
        check=read(check) if check else None,
        max_drop=max_drop,
        max_label_drop=max_label_drop,
        minutes=search_minutes,
        allow_overlap=allow_overlap,
        input=input,
        slim=slim,
        retarget=retarget,
        engine=EngineOptions(
            profile=batch_profile(batch),
            workspace_mb=workspace,
            portable=portable,
            capability=gpu_capability(capability),
        ),
        out=out,
    )
    try:
        exported = run_export(request, progress=progress())
    except FidelityError as err:
        _print_failure(err, fmt, precision, json=json)
        raise
    _print_result(exported, json=json)


def _print_result(exported: Exported, *, json: bool) -> None:
    if json:
        print_json(exported.to_dict())
        return
    if exported.report:
        typer.echo(f"Report: {exported.report}", err=True)
    typer.echo(exported.path)


def _print_failure(err: FidelityError, fmt: str, precision: str, *, json: bool) -> None:
    report = err.report and str(err.report)
    if json:
        print_json(
            {
                "path": None,
                "format": fmt,
                "precision": precision,
                "sha256": None,
                "checks": err.fidelity.to_dict(),
                "report": report,
            }
        )
    elif report:
        typer.echo(f"Report: {report}", err=True)

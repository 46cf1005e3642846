"""The steps that write an export: FP32 ONNX first, from it the requested types and format."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from edgeml.errors import ExportError, needs
from edgeml.runtimes.onnx_file import read_onnx, spec_of_onnx, write_onnx
from edgeml.runtimes.protocol import FP16_ON_X86
from edgeml.runtimes.tensorrt.build import check_legal
from edgeml.runtimes.tensorrt.legality import refused_by_tensorrt
from edgeml_export.engine_step import EngineReport, build_engine
from edgeml_export.int8.legality import violations
from edgeml_export.int8.ranges import Ranges
from edgeml_export.int8.retarget import retargeted_from_onnx
from edgeml_export.int8.search import Choice
from edgeml_export.job import Job
from edgeml_export.request import SUFFIXES

# Number of images that FP16 is tried on: a layer that overflows does so on most images.
_OVERFLOW_IMAGES = 64


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """The measured ranges, and what was chosen with them."""

    ranges: Ranges
    choice: Choice


@dataclass(frozen=True, kw_only=True)
class Written:
    """The result, still in the temporary folder.

    Attributes:
        path: The .onnx, .xml or .engine.
        onnx: The ONNX with the requested types that `path` was made from.
        engine: The engine that was built; None for other formats.
    """

    path: Path
    onnx: Path
    engine: EngineReport | None = None


def write_fp32(job: Job) -> Path:
    """Write the source as FP32 ONNX.

    Raises:
        ModelLoadError: The source cannot be read.
        ExportError: PyTorch cannot export it.
        MissingDependencyError: A library is not installed.
    """
    source, target = job.request.source, job.folder / "fp32.onnx"
    if source.suffix == ".onnx":
        # With the spec of the Predictor, which may come from a file next to the .onnx.
        write_onnx(read_onnx(source), target, job.reference.spec)
        return target
    with (
        needs("torch", extra="export", to="export a checkpoint"),
        needs("timm", extra="export", to="export a checkpoint"),
        needs("onnx", extra="export", to="export a checkpoint"),
        needs("onnxruntime", extra="export", to="check an exported model"),
    ):
        from edgeml_export.to_onnx import onnx_from_checkpoint
    return onnx_from_checkpoint(source, target, input=job.request.input, slim=job.request.slim)


def rewrite_source(job: Job) -> Path:
    """Copy an .onnx that has the requested types already; with `retarget`, rewrite its Q/DQ nodes.

    Raises:
        ExportError: TensorRT would misread the file.
    """
    source, target = job.request.source, job.folder / "again.onnx"
    spec = replace(job.reference.spec, precision=job.request.precision)
    if not job.request.retarget:
        network = read_onnx(source)
        check_legal(source.name, refused_by_tensorrt(network))
        write_onnx(network, target, spec)
        return target
    changes = retargeted_from_onnx(source, target, spec)
    job.progress.note(
        f"Rewritten for TensorRT: {changes}."
        if changes
        else f"{source.name} suits TensorRT already: nothing was rewritten."
    )
    return target


def write_typed(job: Job, network: Path, quantization: Quantization | None) -> Path:
    """Write FP32 ONNX with the requested types, still as ONNX.

    Args:
        job: The export.
        network: FP32 ONNX.
        quantization: For INT8; None for other precisions.

    Raises:
        ExportError: The INT8 network does not suit its target.
    """
    typed = network if quantization is None else _write_int8(job, network, quantization)
    return _write_fp16(job, typed, fp32=network) if job.request.is_fp16 else typed


def _write_int8(job: Job, network: Path, quantization: Quantization) -> Path:
    with needs("onnx", extra="export", to="write INT8 models"):
        from edgeml_export.int8.to_int8 import int8_from_onnx
    layout = job.request.layout
    path = int8_from_onnx(
        network,
        job.folder / "int8.onnx",
        quantization.ranges,
        layout=layout,
        method=quantization.choice.method,
        keep=quantization.choice.keep,
    )
    if faults := violations(read_onnx(path), layout):
        reasons = " ".join(map(str, faults[:3]))
        raise ExportError(f"The INT8 network does not suit {layout}: {reasons}")
    return path


def _write_fp16(job: Job, network: Path, *, fp32: Path) -> Path:
    """Write FP16, except for layers that overflow on the fitting images."""
    with needs("onnxruntime", extra="export", to="write FP16 models"):
        from edgeml_export.to_fp16 import fp16_from_onnx, overflows
    keep: set[str] = set()
    if job.roles.fitting is not None:
        spec = spec_of_onnx(read_onnx(fp32), fp32)
        frames = map(job.reference.read, job.roles.fitting.paths[:_OVERFLOW_IMAGES])
        keep = set(overflows(network, (spec.network_input([frame]) for frame in frames)))
    if keep:
        job.progress.note(f"{', '.join(sorted(keep))} overflow FP16, and stay FP32.")
    if job.request.precision == "fp16" and not job.request.library:
        job.progress.note(FP16_ON_X86)
    return fp16_from_onnx(network, job.folder / "fp16.onnx", keep=keep)


def write_format(job: Job, network: Path) -> Written:
    """Write the requested format from ONNX of the requested types.

    Raises:
        ExportError: OpenVINO or TensorRT cannot convert it.
        MissingDependencyError: A library is not installed.
    """
    request = job.request
    target = job.folder / f"model{SUFFIXES[request.file]}"
    if request.library:
        # The engine's passport names its source: a descriptive name instead of `fp16.onnx`.
        source = job.folder / "typed" / f"{request.path.stem}.onnx"
        source.parent.mkdir()
        shutil.copyfile(network, source)
        return Written(path=target, onnx=source, engine=build_engine(job, source, target))
    if request.file == "openvino":
        with needs("openvino", extra="export", to="write OpenVINO models"):
            from edgeml_export.to_openvino import openvino_from_onnx
        openvino_from_onnx(network, target, fp16=request.precision == "fp16")
    else:
        shutil.copyfile(network, target)
    return Written(path=target, onnx=network)

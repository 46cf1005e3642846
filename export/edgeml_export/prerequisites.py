"""What must be true before an export starts, so that it does not fail after minutes of work."""

from __future__ import annotations

import os
from pathlib import Path

from edgeml.errors import CalibrationError, MissingDependencyError, ModelLoadError
from edgeml.files import check_writable
from edgeml.report.check import check_report_libraries
from edgeml.runtimes.onnx_file import read_onnx
from edgeml.runtimes.onnx_graph import QUANTIZERS
from edgeml.runtimes.tensorrt import bindings, cuda
from edgeml.runtimes.tensorrt.engine_options import EngineOptions, capabilities
from edgeml.runtimes.tensorrt.passport import Library
from edgeml.spec.model_spec import ModelSpec, Precision
from edgeml_export.int8.ranges import read_ranges
from edgeml_export.request import SUFFIXES, ExportRequest, RequestError
from edgeml_export.serving import check_free

_BUILD_ON_DEVICE_HINT = (
    "--fmt onnx --target tensorrt writes the file, to be built on the device by edgeml or trtexec."
)


def precision_of_source(request: ExportRequest) -> Precision | None:
    """Return the precision of an .onnx that is built or rewritten without being converted.

    The graph decides, not the spec: files that other tools quantised do not state it. None for a
    source that is still to be converted: a checkpoint, or FP32.

    Raises:
        ModelLoadError: The source is not ONNX.
    """
    source = request.source
    unconverted = request.library or request.retarget
    if source.suffix != ".onnx" or not source.is_file() or not unconverted:
        return None
    from onnx import TensorProto

    graph = read_onnx(source).graph
    if any(node.op_type in QUANTIZERS for node in graph.node):
        return "int8"
    is_fp16 = any(tensor.data_type == TensorProto.FLOAT16 for tensor in graph.initializer)
    return "fp16" if is_fp16 else None


def check_prerequisites(request: ExportRequest, source_precision: Precision | None) -> None:
    """Check options, libraries, images and the output path, before the source is opened.

    Raises:
        InputError: An option does not apply, or the result cannot be written to its path.
        MissingDependencyError: A library is not installed.
        ModelLoadError: TensorRT needs a GPU to build on, and there is none.
        CalibrationError: INT8 has no images and no stored ranges, or the ranges are damaged.
    """
    _check_engine_options(request.library, request.engine, request.fmt)
    if request.library:
        _check_builder(request.library)
    if request.precision == "int8" and request.calib is None and source_precision != "int8":
        _check_stored_ranges(request.ranges_path)
    check_report_libraries("export")
    if request.source.exists():
        check_output(request)


def _check_engine_options(library: Library | None, options: EngineOptions, fmt: str) -> None:
    if library:
        capabilities(library, options.portable, options.capability)
        if options.capability == "current":
            cuda.this_gpu()
    elif options != EngineOptions():
        raise RequestError(
            f"{fmt} is not an engine: --batch, --portable, --capability and --workspace are for "
            "--fmt trt and trt-rtx.",
            "engine",
        )


def _check_builder(library: Library) -> None:
    try:
        bindings.load(library, to="build TensorRT engines")
        if library == "tensorrt":
            cuda.this_gpu()
    except MissingDependencyError as err:
        raise MissingDependencyError(
            f"{err}. Without it, {_BUILD_ON_DEVICE_HINT}", name=err.name
        ) from err
    except ModelLoadError as err:
        raise ModelLoadError(f"{err} Without a GPU, {_BUILD_ON_DEVICE_HINT}") from err


def _check_stored_ranges(path: Path) -> None:
    if not path.is_file():
        raise CalibrationError(
            "INT8 needs images to measure the ranges of activations on: give --calib DATA. The "
            "training data will do: only their train part is used."
        )
    read_ranges(path)


def check_output(request: ExportRequest) -> None:
    """Check that the result can be written to its path.

    Raises:
        RequestError: The suffix belongs to another format, or a folder is at the path.
        InputError: Something else is in a server's folder, or the path is not writable.
    """
    path, suffix = request.path, SUFFIXES.get(request.fmt)
    if suffix and path.suffix != suffix:
        raise RequestError(
            f"{path.name!r} is no name for {request.fmt}: it must end in {suffix}.", "suffix"
        )
    if suffix and path.is_dir():
        raise RequestError(f"{str(path)!r} is a folder: choose another name with --out.", "folder")
    if not suffix:
        check_free(path)
    check_writable(path, folder=not suffix)


def check_source(
    request: ExportRequest, spec: ModelSpec, source_precision: Precision | None
) -> None:
    """Check that the requested step is possible from this source, which has this spec.

    Raises:
        RequestError: It is not; names a step that is.
    """
    source, name = request.source, repr(request.source.name)
    if source.is_dir() or source.suffix == ".safetensors":
        return
    if source.suffix != ".onnx":
        raise RequestError(f"{name} cannot be exported: give the run folder or an .onnx.", "source")
    if source_precision is not None:
        if request.precision != source_precision:
            raise RequestError(
                f"{name} is {source_precision} already: give --precision {source_precision}, or "
                "start from the FP32 model.",
                "precision",
            )
    elif request.retarget:
        raise RequestError(f"{name} has no Q/DQ nodes to rewrite: omit --retarget.", "retarget")
    elif spec.precision != "fp32":
        raise RequestError(
            f"{name} is {spec.precision} already: start from the FP32 model.", "precision"
        )
    if request.fmt == "onnx" and request.precision == "fp32":
        raise RequestError(f"{name} is FP32 ONNX already.", "same")
    if os.path.realpath(request.path) == os.path.realpath(source):
        raise RequestError(f"{name} would be replaced: choose another name with --out.", "replaced")
    if request.input == "uint8" and spec.input != "uint8":
        raise RequestError(
            "The input of an .onnx stays as it is: give the run folder for uint8.", "input"
        )
    if request.slim:
        raise RequestError("--slim applies to checkpoints: give the run folder.", "slim")

"""What an export is asked for, and whether that can end well."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from edgeml.data import Dataset
from edgeml.errors import (
    CalibrationError,
    InputError,
    MissingDependencyError,
    ModelLoadError,
)
from edgeml.files import check_writable
from edgeml.report.check import check_report_libraries
from edgeml.runtimes.onnx_file import read_onnx
from edgeml.runtimes.onnx_graph import QUANTIZERS
from edgeml.runtimes.tensorrt import bindings, cuda
from edgeml.runtimes.tensorrt.passport import Library
from edgeml.spec.model_spec import ModelSpec, Precision
from edgeml_export.int8.histogram import METHODS, Method
from edgeml_export.int8.ranges import read_ranges
from edgeml_export.int8.targets import RECIPES, TARGETS, Target
from edgeml_export.result import SUFFIXES, Format, Input
from edgeml_export.serving import check_free

_ELSEWHERE = (
    "--fmt onnx --target tensorrt writes the file, to be built on the device by edgeml or trtexec."
)


@dataclass(frozen=True)
class Plan:
    """What is to be written.

    Raises:
        InputError: One of them is unknown, or they do not go together.
    """

    fmt: Format
    precision: Precision
    target: Target | Literal["auto"]
    method: Method | Literal["auto"]
    input: Input
    slim: bool
    minutes: float
    retarget: bool = False

    def __post_init__(self) -> None:
        for name, value, known in (
            ("format", self.fmt, get_args(Format)),
            ("precision", self.precision, get_args(Precision)),
            ("target", self.target, ("auto", *TARGETS)),
            ("method", self.method, ("auto", *METHODS)),
            ("input", self.input, get_args(Input)),
        ):
            if value not in known:
                raise InputError(f"There is no {name} {value!r}; known are {', '.join(known)}.")
        if self.file == "openvino" and self.target not in ("auto", "openvino"):
            raise InputError(f"The format {self.fmt} has its own INT8 layout: leave --target away.")
        if self.library and self.target not in ("auto", "tensorrt"):
            raise InputError("An engine has TensorRT's INT8 layout: leave --target away.")
        if self.retarget and (self.precision != "int8" or self.layout != "tensorrt"):
            raise InputError(
                "--retarget rewrites INT8 files for TensorRT: give --precision int8, and --fmt "
                "trt, trt-rtx, or onnx with --target tensorrt."
            )
        if not self.minutes > 0:
            raise InputError(f"The search cannot take {self.minutes:g} minutes: give more than 0.")

    @property
    def file(self) -> Format:
        """The format of the file itself, which a server's folder holds."""
        servers: dict[Format, Format] = {"triton": "onnx", "ovms": "openvino"}
        return servers.get(self.fmt, self.fmt)

    @property
    def library(self) -> Library | None:
        """What builds the engine, if one is built."""
        libraries: dict[Format, Library] = {"trt": "tensorrt", "trt-rtx": "tensorrt_rtx"}
        return libraries.get(self.fmt)

    @property
    def layout(self) -> Target:
        """How Q/DQ nodes are placed."""
        if self.target != "auto":
            return self.target
        if self.library:
            return "tensorrt"
        return "openvino" if self.file == "openvino" else "x86"

    @property
    def half(self) -> bool:
        """Whether an .onnx holds FP16, also one that an engine is built of."""
        return self.file != "openvino" and (
            self.precision == "fp16" or (self.precision == "int8" and RECIPES[self.layout].fp16)
        )


def made_before(source: Path, plan: Plan) -> Precision | None:
    """Say what the types of an .onnx are already, where that can be built or rewritten as it is.

    The graph is asked, not the spec: files that other tools quantised say nothing of it.

    Returns:
        None for what is still to be converted: a checkpoint, or FP32.

    Raises:
        ModelLoadError: The source is not ONNX.
    """
    if source.suffix != ".onnx" or not source.is_file() or not (plan.library or plan.retarget):
        return None
    from onnx import TensorProto

    graph = read_onnx(source).graph
    if any(node.op_type in QUANTIZERS for node in graph.node):
        return "int8"
    half = any(tensor.data_type == TensorProto.FLOAT16 for tensor in graph.initializer)
    return "fp16" if half else None


def check_needs(plan: Plan, calib: Dataset | None, kept: Path, made: Precision | None) -> None:
    """Refuse, before any work, what cannot end well.

    Args:
        plan: What is to be written.
        calib: Images for INT8.
        kept: Where ranges are kept.
        made: What the source is already, by `made_before`.

    Raises:
        MissingDependencyError: A library is absent.
        ModelLoadError: TensorRT is to build, and there is no GPU.
        CalibrationError: INT8 has neither images nor ranges that were `kept`, or these are damaged.
    """
    if plan.library:
        _check_builder(plan.library)
    if plan.precision == "int8" and calib is None and made != "int8":
        if not kept.is_file():
            raise CalibrationError(
                "INT8 needs images to measure the ranges of activations on: give --calib DATA; "
                "the data trained with do, of which the train part is used."
            )
        read_ranges(kept)
    check_report_libraries("export")


def _check_builder(library: Library) -> None:
    try:
        bindings.load(library, to="build TensorRT engines")
        if library == "tensorrt":
            cuda.this_gpu()
    except MissingDependencyError as err:
        raise MissingDependencyError(f"{err}. Without it, {_ELSEWHERE}", name=err.name) from err
    except ModelLoadError as err:
        raise ModelLoadError(f"{err} Without a GPU, {_ELSEWHERE}") from err


def check_place(path: Path, plan: Plan) -> None:
    """Refuse, before the source is opened, a place where the result cannot stand.

    Raises:
        InputError: The name is another format's, something else is there, or it cannot be written.
    """
    suffix = SUFFIXES.get(plan.fmt)
    if suffix and path.suffix != suffix:
        raise InputError(f"{path.name!r} is no name for {plan.fmt}: it must end in {suffix}.")
    if suffix and path.is_dir():
        raise InputError(f"{str(path)!r} is a folder: choose another name with --out.")
    if not suffix:
        check_free(path)
    check_writable(path)


def check_source(
    source: Path, spec: ModelSpec, plan: Plan, path: Path, made: Precision | None
) -> None:
    """Refuse a step that has no meaning from this source; the arguments are as above.

    Raises:
        InputError: Says which step would have one.
    """
    if source.is_dir() or source.suffix == ".safetensors":
        return
    if source.suffix != ".onnx":
        raise InputError(f"Nothing leads on from {source.name!r}: give the run folder or an .onnx.")
    if made is not None:
        _check_made(source, plan, made)
    elif plan.retarget:
        raise InputError(f"{source.name!r} has no Q/DQ nodes to rewrite: leave --retarget away.")
    elif spec.precision != "fp32":
        raise InputError(f"{source.name!r} is {spec.precision} already: start from the FP32 model.")
    if plan.fmt == "onnx" and plan.precision == "fp32":
        raise InputError(f"{source.name!r} is FP32 ONNX already.")
    if path.resolve() == source.resolve():
        raise InputError(f"{source.name!r} would be replaced: choose another name with --out.")
    if plan.input == "uint8" and spec.input != "uint8":
        raise InputError("The input of an .onnx stays as it is: give the run folder for uint8.")
    if plan.slim:
        raise InputError("--slim works on what comes from a checkpoint: give the run folder.")


def _check_made(source: Path, plan: Plan, made: Precision) -> None:
    """Refuse to make something else of a file than what it is."""
    if plan.precision != made:
        raise InputError(
            f"{source.name!r} is {made} already: give --precision {made}, or start from the FP32 "
            "model."
        )

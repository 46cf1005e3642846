"""What an export is asked for, and whether that can end well."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from edgeml.data import Dataset
from edgeml.errors import CalibrationError, ExportError, InputError, needs
from edgeml.files import check_writable
from edgeml.spec import ModelSpec, Precision
from edgeml_export.artifact import SUFFIXES, Format, Input
from edgeml_export.ranges import METHODS, Method, read_ranges
from edgeml_export.serving import check_free
from edgeml_export.targets import RECIPES, TARGETS, Target


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
        if not self.minutes > 0:
            raise InputError(f"The search cannot take {self.minutes:g} minutes: give more than 0.")

    @property
    def file(self) -> Format:
        """The format of the file itself, which a server's folder holds."""
        servers: dict[Format, Format] = {"triton": "onnx", "ovms": "openvino"}
        return servers.get(self.fmt, self.fmt)

    @property
    def layout(self) -> Target:
        """How Q/DQ nodes are placed."""
        if self.target != "auto":
            return self.target
        return "openvino" if self.file == "openvino" else "x86"

    @property
    def half(self) -> bool:
        """Whether an .onnx holds FP16."""
        on_onnx = self.file == "onnx"
        return on_onnx and (
            self.precision == "fp16" or (self.precision == "int8" and RECIPES[self.layout].half)
        )


def check_needs(plan: Plan, calib: Dataset | None, kept: Path) -> None:
    """Refuse, before any work, what cannot end well.

    Raises:
        MissingDependencyError: A library is absent.
        CalibrationError: INT8 has neither images nor ranges that were `kept`, or these are damaged.
        ExportError: There is no such step yet.
    """
    if plan.fmt == "trt":
        with needs("tensorrt", extra="trt", to="build TensorRT engines"):
            import tensorrt  # noqa: F401
        raise ExportError(
            "This edgeml does not build engines yet: export --fmt onnx --precision fp16, then "
            "run trtexec --onnx=model.fp16.onnx --saveEngine=model.engine"
        )
    if plan.precision == "int8" and calib is None:
        if not kept.is_file():
            raise CalibrationError(
                "INT8 needs images to measure the ranges of activations on: give --calib DATA; "
                "the data trained with do, of which the train part is used."
            )
        read_ranges(kept)
    with (
        needs("jinja2", extra="export", to="write the report of an export"),
        needs("matplotlib", extra="export", to="write the report of an export"),
    ):
        import edgeml.report  # noqa: F401


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


def check_source(source: Path, spec: ModelSpec, plan: Plan, path: Path) -> None:
    """Refuse a step that has no meaning from this source.

    Raises:
        InputError: Says which step would have one.
    """
    if source.is_dir() or source.suffix == ".safetensors":
        return
    if source.suffix != ".onnx":
        raise InputError(f"Nothing leads on from {source.name!r}: give the run folder or an .onnx.")
    if spec.precision != "fp32":
        raise InputError(f"{source.name!r} is {spec.precision} already: start from the FP32 model.")
    if plan.fmt == "onnx" and plan.precision == "fp32":
        raise InputError(f"{source.name!r} is FP32 ONNX already.")
    if path.resolve() == source.resolve():
        raise InputError(f"{source.name!r} would be replaced: choose another name with --out.")
    if plan.input == "uint8" and spec.input != "uint8":
        raise InputError("The input of an .onnx stays as it is: give the run folder for uint8.")
    if plan.slim:
        raise InputError("--slim works on what comes from a checkpoint: give the run folder.")

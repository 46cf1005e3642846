"""What an export should write, from which source, and with which images."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from edgeml.data import Dataset
from edgeml.errors import InputError
from edgeml.runtimes.tensorrt.engine_options import EngineOptions
from edgeml.runtimes.tensorrt.passport import Library
from edgeml.spec.model_spec import Precision
from edgeml_export.int8.histogram import METHODS, Method
from edgeml_export.int8.targets import RECIPES, TARGETS, Target
from edgeml_export.limits import Limits, limits_for

Input = Literal["float32", "uint8"]
Format = Literal["onnx", "openvino", "trt", "trt-rtx", "triton", "ovms"]
SUFFIXES: dict[Format, str] = {
    "onnx": ".onnx",
    "openvino": ".xml",
    "trt": ".engine",
    "trt-rtx": ".engine",
}
"""Suffixes of files; `triton` and `ovms` are folders with any name."""
RequestReason = Literal[
    "unknown",  # a value that is not one of the choices
    "target",  # the format has an INT8 layout of its own
    "retarget",  # needs an INT8 layout for TensorRT, or Q/DQ nodes
    "minutes",  # not above 0
    "engine",  # options of an engine for another format
    "suffix",  # the name belongs to another format
    "folder",  # a folder has the name of the file
    "source",  # cannot be exported at all
    "precision",  # the source has another precision already
    "same",  # the source is what is requested
    "replaced",  # the result has the path of the source
    "input",  # the input type of an .onnx cannot be changed
    "slim",  # only checkpoints are slimmed
    "budget",  # there are no images to check it on
]
"""Why a request is refused, for programs: these words stay."""


class RequestError(InputError):
    """An export is not possible as requested.

    Attributes:
        reason: Why, in one word that a program can rely on.
    """

    def __init__(self, message: str, reason: RequestReason = "unknown") -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What to write, how, and which images calibrate and check it.

    Attributes:
        source: A run folder of `edgeml train`, its .safetensors, or an FP32 .onnx. An engine can
            also be built from an .onnx that is already FP16 or INT8.
        fmt: `onnx`, `openvino`, a TensorRT engine (`trt`), a TensorRT-RTX engine (`trt-rtx`), or
            a model repository for the servers `triton` (with an .onnx) and `ovms` (with an .xml).
        precision: `fp32`, `fp16` or `int8`.
        calib: Images to measure INT8 ranges on; None uses the ranges that an earlier export
            stored next to its result, in `model.ranges.json`.
        check: Images to compare source and result on; None skips the comparison.
        max_drop: Points of mAP that may be lost, instead of the limit of the precision.
        max_label_drop: Points of AP that any single label may lose.
        target: The device that an INT8 .onnx is laid out for; `auto` is `x86`.
        method: How INT8 ranges are chosen; `auto` tries all methods, or uses `minmax` if there
            are no images to try them on.
        input: `uint8` moves the normalisation into the network, which then takes raw frames.
        slim: Let onnxslim merge nodes.
        minutes: Time limit of the search for layers that stay in floating point.
        allow_overlap: Allow images to have more than one role; the spec records it.
        retarget: Rewrite the Q/DQ nodes of an INT8 source so that TensorRT accepts them.
        engine: How an engine is built.
        out: The file to write; None writes next to the source, for example `model.int8.onnx`.

    Raises:
        RequestError: A value is unknown, or two values contradict each other.
        InputError: Points of a limit are NaN or below 0.
    """

    source: Path
    fmt: Format
    precision: Precision = "fp32"
    calib: Dataset | None = None
    check: Dataset | None = None
    max_drop: float | None = None
    max_label_drop: float | None = None
    target: Target | Literal["auto"] = "auto"
    method: Method | Literal["auto"] = "auto"
    input: Input = "float32"
    slim: bool = False
    minutes: float = 10.0
    allow_overlap: bool = False
    retarget: bool = False
    engine: EngineOptions = field(default_factory=EngineOptions)
    out: Path | None = None

    def __post_init__(self) -> None:
        for name, value, known in (
            ("format", self.fmt, get_args(Format)),
            ("precision", self.precision, get_args(Precision)),
            ("target", self.target, ("auto", *TARGETS)),
            ("method", self.method, ("auto", *METHODS)),
            ("input", self.input, get_args(Input)),
        ):
            if value not in known:
                raise RequestError(f"Unknown {name} {value!r}; expected one of {', '.join(known)}.")
        if self.file == "openvino" and self.target not in ("auto", "openvino"):
            raise RequestError(
                f"The format {self.fmt} has its own INT8 layout: omit --target.", "target"
            )
        if self.library and self.target not in ("auto", "tensorrt"):
            raise RequestError("An engine has TensorRT's INT8 layout: omit --target.", "target")
        if self.retarget and (self.precision != "int8" or self.layout != "tensorrt"):
            raise RequestError(
                "--retarget rewrites INT8 files for TensorRT: give --precision int8, and --fmt "
                "trt, trt-rtx, or onnx with --target tensorrt.",
                "retarget",
            )
        if not self.minutes > 0:
            raise RequestError(
                f"The search time is {self.minutes:g} minutes; it must be above 0.", "minutes"
            )
        _ = self.limits  # refuses negative points

    @property
    def limits(self) -> Limits:
        """How much the result may differ from its source."""
        return limits_for(
            self.precision, max_drop=self.max_drop, max_label_drop=self.max_label_drop
        )

    @property
    def has_budget(self) -> bool:
        """Whether the user set a limit."""
        return (self.max_drop, self.max_label_drop) != (None, None)

    @property
    def path(self) -> Path:
        """The file or folder to write."""
        return self.out or default_path(self.source, self.fmt, self.precision)

    @property
    def report_path(self) -> Path:
        """The report of the export, next to the result."""
        return self.path.with_name(f"{self.path.name}.report.html")

    @property
    def ranges_path(self) -> Path:
        """The file that stores INT8 ranges next to the result: one per source and input type."""
        stem = "model" if self.source.is_dir() else self.source.stem
        infix = ".uint8" if self.input == "uint8" else ""
        return self.path.with_name(f"{stem}{infix}.ranges.json")

    @property
    def file(self) -> Format:
        """The format of the model file itself, which a server's folder contains."""
        servers: dict[Format, Format] = {"triton": "onnx", "ovms": "openvino"}
        return servers.get(self.fmt, self.fmt)

    @property
    def library(self) -> Library | None:
        """The library that builds the engine; None if no engine is built."""
        libraries: dict[Format, Library] = {"trt": "tensorrt", "trt-rtx": "tensorrt_rtx"}
        return libraries.get(self.fmt)

    @property
    def layout(self) -> Target:
        """The device that Q/DQ nodes are placed for."""
        if self.target != "auto":
            return self.target
        if self.library:
            return "tensorrt"
        return "openvino" if self.file == "openvino" else "x86"

    @property
    def is_fp16(self) -> bool:
        """Whether the .onnx contains FP16, also an .onnx that an engine is built from."""
        return self.file != "openvino" and (
            self.precision == "fp16" or (self.precision == "int8" and RECIPES[self.layout].fp16)
        )


def default_path(source: Path, fmt: Format, precision: Precision) -> Path:
    """Return the path of the result: `model.int8.onnx` in a run folder, `a.int8.onnx` for `a.onnx`.

    The precision is not repeated: `a.int8.onnx` becomes `a.int8.engine`.
    """
    stem = source / "model" if source.is_dir() else source.with_suffix("")
    infix = "" if precision == "fp32" or stem.suffix == f".{precision}" else f".{precision}"
    if fmt == "trt-rtx":
        infix += ".rtx"
    return stem.with_name(stem.name + infix + SUFFIXES.get(fmt, f".{fmt}"))

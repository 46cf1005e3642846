"""What an export was: the file, and what was found about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgeml.measure.compare import Fidelity
from edgeml.runtimes.onnx_file import read_onnx, write_onnx
from edgeml.runtimes.tensorrt.passport import read_passport, write_passport
from edgeml.spec.model_spec import ModelSpec, Precision
from edgeml.spec.storage import write_spec_into_xml

if TYPE_CHECKING:
    from edgeml.benchmark.speedup import Speedup
    from edgeml.measure.contents import Recovery
    from edgeml_export.engine_step import EngineReport
    from edgeml_export.int8.search import Choice


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A model that was written.

    Attributes:
        path: The file. An .xml has its weights beside it, as .bin; an .engine its passport. For a
            server, the folder.
        format: What it is.
        precision: What its weights are.
        sha256: Of the model's file.
        checks: How it compares with its source, None if no check was asked for.
        recovery: What moving the thresholds recovers; None where they were not moved.
        choice: How INT8 was chosen; None for other precisions.
        speed: How fast INT8 is here beside FP32; None where that was not measured.
        engine: Of what an engine is made, and for which GPUs; None for other formats.
        report: The page that shows all of this.
    """

    path: Path
    format: Format
    precision: Precision
    sha256: str
    checks: Fidelity | None
    recovery: Recovery | None = None
    choice: Choice | None = None
    speed: Speedup | None = None
    engine: EngineReport | None = None
    report: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give what `edgeml export --json` prints."""
        return {
            "path": str(self.path),
            "format": self.format,
            "precision": self.precision,
            "sha256": self.sha256,
            "checks": self.checks and self.checks.to_dict(),
            "thresholds": self.recovery and _told(self.recovery),
            "int8": self.choice and self.choice.to_dict(),
            "speed": self.speed and self.speed.to_dict(),
            "engine": self.engine and self.engine.to_dict(),
            "report": self.report and str(self.report),
        }


def _told(recovery: Recovery) -> dict[str, Any]:
    """Give the metrics before quantisation, with the source's thresholds, and with moved ones."""
    return {
        "images": recovery.images,
        "reference": recovery.before.to_dict()["metrics"],
        "unfitted": recovery.unfitted.to_dict()["metrics"],
        "fitted": recovery.fitted.to_dict()["metrics"],
    }


Input = Literal["float32", "uint8"]


Format = Literal["onnx", "openvino", "trt", "trt-rtx", "triton", "ovms"]


SUFFIXES: dict[Format, str] = {
    "onnx": ".onnx",
    "openvino": ".xml",
    "trt": ".engine",
    "trt-rtx": ".engine",
}
"""Of files; what a server takes is a folder of any name."""


def default_path(source: Path, fmt: Format, precision: Precision) -> Path:
    """Name the result: in a run folder `model.int8.onnx`, of `a.onnx` it is `a.int8.onnx`.

    INT8 that is rewritten, or built, is not named twice: `a.int8.engine` of `a.int8.onnx`.
    """
    stem = source / "model" if source.is_dir() else source.with_suffix("")
    infix = "" if precision == "fp32" or stem.suffix == f".{precision}" else f".{precision}"
    if fmt == "trt-rtx":
        infix += ".rtx"
    return stem.with_name(stem.name + infix + SUFFIXES.get(fmt, f".{fmt}"))


def ranges_path(source: Path, out: Path, input: Input) -> Path:
    """Name the file that keeps INT8 ranges: one a source and input, beside what is made of it."""
    stem = "model" if source.is_dir() else source.stem
    return out.with_name(f"{stem}{'.uint8' if input == 'uint8' else ''}.ranges.json")


def rewrite_spec(path: Path, spec: ModelSpec) -> None:
    """Replace the spec of a written .onnx, .xml or .engine and leave its network alone.

    Raises:
        ModelLoadError: The file cannot be read.
        InputError: It cannot be written.
    """
    if path.suffix == ".onnx":
        write_onnx(read_onnx(path), path, spec)
        return
    if path.suffix == ".engine":
        write_passport(replace(read_passport(path), spec=spec), path)
        return
    write_spec_into_xml(path, spec)

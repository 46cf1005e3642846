"""The result of an export."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeml.benchmark.speedup import Speedup
from edgeml.measure.compare import Fidelity
from edgeml.measure.contents import Recovery
from edgeml.runtimes.onnx_file import read_onnx, write_onnx
from edgeml.runtimes.tensorrt.passport import read_passport, write_passport
from edgeml.spec.model_spec import ModelSpec, Precision
from edgeml.spec.storage import write_spec_into_xml
from edgeml_export.engine_step import EngineReport
from edgeml_export.int8.search import Choice
from edgeml_export.request import Format


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A model that was written.

    Attributes:
        path: The file. An .xml has its weights next to it, as .bin; an .engine its passport. For
            a server, the folder.
        format: The format.
        precision: The precision of its weights.
        sha256: The digest of the model file.
        checks: The comparison with its source; None if there were no images.
        recovery: What moving the thresholds recovers; None where they were not moved.
        choice: How INT8 ranges and layers were chosen; None for other precisions.
        speed: The speed of INT8 against FP32 on this machine; None where it was not measured.
        engine: The engine that was built; None for other formats.
        report: The page that shows the comparison.
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
        """Return what `edgeml export --json` prints."""
        return {
            "path": str(self.path),
            "format": self.format,
            "precision": self.precision,
            "sha256": self.sha256,
            "checks": self.checks and self.checks.to_dict(),
            "thresholds": self.recovery and _as_json(self.recovery),
            "int8": self.choice and self.choice.to_dict(),
            "speed": self.speed and self.speed.to_dict(),
            "engine": self.engine and self.engine.to_dict(),
            "report": self.report and str(self.report),
        }


def _as_json(recovery: Recovery) -> dict[str, Any]:
    return {
        "images": recovery.images,
        "reference": recovery.before.to_dict()["metrics"],
        "unfitted": recovery.unfitted.to_dict()["metrics"],
        "fitted": recovery.fitted.to_dict()["metrics"],
    }


def rewrite_spec(path: Path, spec: ModelSpec) -> None:
    """Replace the spec of a written .onnx, .xml or .engine, and leave its network as it is.

    Raises:
        ModelLoadError: The file cannot be read.
        InputError: It cannot be written.
        SpecError: An .xml has no spec to replace.
    """
    if path.suffix == ".onnx":
        write_onnx(read_onnx(path), path, spec)
        return
    if path.suffix == ".engine":
        write_passport(replace(read_passport(path), spec=spec), path)
        return
    write_spec_into_xml(path, spec)

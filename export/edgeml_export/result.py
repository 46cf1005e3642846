"""What an export was: the file, and what was found about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeml.measure.compare import Fidelity
from edgeml.spec.model_spec import Precision
from edgeml_export.artifact import Format

if TYPE_CHECKING:
    from edgeml.bench.sidebyside import Speedup
    from edgeml.report.contents import Recovery
    from edgeml_export.engine_step import EngineReport
    from edgeml_export.search import Choice


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

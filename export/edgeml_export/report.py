"""The pages that compare a model with its source: of an export, and of `edgeml verify`."""

from __future__ import annotations

import time
from pathlib import Path

from edgeml.benchmark.environment import capture_software
from edgeml.benchmark.speedup import Speedup
from edgeml.measure.compare_files import comparison_facts
from edgeml_export.check import Checked
from edgeml_export.int8.search import Choice
from edgeml_export.verify import Verification
from edgeml_export.write import EngineReport, Job

_CHECKED_BY = {
    "engine": "the engine, on this machine's GPU",
    "onnx": "its ONNX, rounded to FP16 as a GPU would: no GPU that runs the engine is here",
}


def write_report(
    job: Job,
    checked: Checked,
    *,
    choice: Choice | None = None,
    engine: EngineReport | None = None,
    speed: Speedup | None = None,
) -> Path | None:
    """Write the page that shows the comparison, whether it passed or not; return its path.

    Without a comparison, return None, and remove the page of an earlier export, because it shows
    a file that was replaced.

    Raises:
        InputError: The page cannot be written.
    """
    from edgeml.measure.page import Comparison, export_report

    request, path = job.request, job.request.report_path
    if checked.fidelity is None:
        path.unlink(missing_ok=True)
        return None
    compared_engine = engine is not None and engine.checked_by == "engine"
    name = request.path.name
    export_report(
        Comparison(
            kind="export",
            title=name,
            reference=request.source.name,
            candidate=f"The ONNX of {name}" if request.library and not compared_engine else name,
            fidelity=checked.fidelity,
            findings=[finding.message for finding in checked.findings],
            max_drop=request.limits.drop,
            max_label_drop=request.limits.label_drop,
            scores=checked.scores,
            recovery=checked.recovery,
            methods=dict(choice.divergences.items()) if choice else {},
            method=choice.method if choice else "",
            mixed=choice.mixed if choice else None,
            speed=speed,
            calibration=job.roles.calibration,
            overlap=job.roles.overlap,
            notes=job.progress.notes,
            facts=_facts(job, checked, engine),
        ),
        path,
    )
    return path


def _facts(job: Job, checked: Checked, engine: EngineReport | None) -> dict[str, str]:
    request = job.request
    layout = f", laid out for {request.layout}" if request.precision == "int8" else ""
    versions = capture_software().items()
    return {
        "Source": str(request.source),
        "Format": f"{request.fmt}, {request.precision}{layout}",
        "Exporter": checked.spec.provenance.exporter or "none: the source is ONNX",
        **({"Checked": _CHECKED_BY[engine.checked_by]} if engine else {}),
        "Seconds": f"{time.monotonic() - job.started:.0f}",
        "Versions": ", ".join(f"{name} {version}" for name, version in versions if version),
    }


def verify_page(result: Verification, source: Path, data: Path, html: Path) -> None:
    """Write the comparison of a model with its source; nothing if they were not compared."""
    if not result.fidelity or not result.limits:
        return
    from edgeml.measure.page import Comparison, export_report

    page = Comparison(
        kind="check",
        title=result.path.name,
        reference=source.name,
        candidate=result.path.name,
        fidelity=result.fidelity,
        findings=[finding.message for finding in result.findings],
        max_drop=result.limits.drop,
        max_label_drop=result.limits.label_drop,
        scores=result.scores,
        facts=comparison_facts(source=source, model=result.path, data=data),
    )
    export_report(page, html)

"""The report of `edgeml verify`."""

from __future__ import annotations

from pathlib import Path

from edgeml.measure.compare_files import comparison_facts
from edgeml.measure.contents import Comparison
from edgeml.measure.page import export_report
from edgeml_export.verify import Verification


def verify_page(result: Verification, source: Path, data: Path, html: Path) -> None:
    """Write the comparison of a model with its source; nothing if they were not compared."""
    if not result.fidelity or not result.limits:
        return
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

"""What is found while an export goes on, and the report that shows it, whatever the end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgeml.benchmark.speedup import Speedup
from edgeml.measure.compare import Fidelity, FidelityError
from edgeml.progress import Advance, Progress
from edgeml.spec.labels import Scores
from edgeml_export.engine_step import EngineReport
from edgeml_export.int8.search import Choice
from edgeml_export.limits import Limits
from edgeml_export.plan import Plan
from edgeml_export.roles import Roles

if TYPE_CHECKING:
    from edgeml.measure.contents import Recovery


class Heard(Progress):
    """Passes all on, and remembers the notes."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.notes: list[str] = []

    @contextmanager
    def task(self, name: str, total: int, unit: str = "img") -> Iterator[Advance]:
        """Open a step, where it is shown."""
        with self._progress.task(name, total, unit) as advance:
            yield advance

    def note(self, text: str) -> None:
        """Remember a note, and pass it on."""
        self.notes.append(text)
        self._progress.note(text)


@dataclass(kw_only=True)
class Page:
    """The report of one export, as far as it is known.

    Attributes:
        source: What was exported.
        path: What was to be written.
        plan: How.
        roles: The images.
        limits: What may differ.
        progress: Whose notes are shown.
        fidelity: On the reporting images; of a budget that was missed, on the fitting images.
        findings: Why it was refused.
        scores: (N, labels) probabilities of both.
        recovery: What moving the thresholds recovers.
        choice: How INT8 was chosen.
        speed: INT8 beside FP32.
        engine: The engine that was built.
        facts: What stands at the foot.
        written: The page, once it is.
    """

    source: Path
    path: Path
    plan: Plan
    roles: Roles
    limits: Limits
    progress: Heard
    fidelity: Fidelity | None = None
    findings: Sequence[str] = ()
    scores: tuple[Scores, Scores] | None = None
    recovery: Recovery | None = None
    choice: Choice | None = None
    speed: Speedup | None = None
    engine: EngineReport | None = None
    facts: dict[str, str] = field(default_factory=dict)
    written: Path | None = None

    @property
    def out(self) -> Path:
        """Where the page is written: beside the result."""
        return self.path.with_name(f"{self.path.name}.report.html")

    @property
    def compared(self) -> str:
        """What stood beside the source: of an engine that no GPU here runs, its ONNX."""
        by_engine = self.engine is not None and self.engine.checked_by == "engine"
        name = self.path.name
        return f"The ONNX of {name}" if self.plan.library and not by_engine else name


@contextmanager
def reported(page: Page) -> Iterator[None]:
    """Write the page at the end of the block, or when a check in it says no.

    Raises:
        FidelityError: The block's own; it tells where the page is.
    """
    started = time.monotonic()
    try:
        yield
    except FidelityError as err:
        page.fidelity = err.fidelity
        page.findings = page.findings or (str(err),)
        _write(page, time.monotonic() - started)
        err.report = page.written
        raise
    if page.fidelity is None:
        page.out.unlink(missing_ok=True)  # an earlier one speaks of a file that was replaced
    else:
        _write(page, time.monotonic() - started)


def _write(page: Page, seconds: float) -> None:
    from edgeml.benchmark.environment import capture_software
    from edgeml.measure.contents import Comparison
    from edgeml.measure.page import export_report

    assert page.fidelity is not None
    plan, choice = page.plan, page.choice
    layout = f", laid out for {plan.layout}" if plan.precision == "int8" else ""
    export_report(
        Comparison(
            kind="export",
            title=page.path.name,
            reference=page.source.name,
            candidate=page.compared,
            fidelity=page.fidelity,
            findings=page.findings,
            max_drop=page.limits.drop,
            max_label_drop=page.limits.label_drop,
            scores=page.scores,
            recovery=page.recovery,
            methods=choice.divergences if choice else {},
            method=choice.method if choice else "",
            mixed=choice.mixed if choice else None,
            speed=page.speed,
            calibration=page.roles.calibration,
            overlap=page.roles.overlap,
            notes=page.progress.notes,
            facts={
                "Source": str(page.source),
                "Format": f"{plan.fmt}, {plan.precision}{layout}",
                **page.facts,
                "Seconds": f"{seconds:.0f}",
                "Versions": ", ".join(f"{name} {v}" for name, v in capture_software().items() if v),
            },
        ),
        page.out,
    )
    page.written = page.out

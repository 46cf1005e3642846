"""What all steps of one export share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgeml.predict.predictor import Predictor
from edgeml.progress import Advance, Progress
from edgeml.spec.model_spec import Precision
from edgeml_export.request import ExportRequest
from edgeml_export.roles import Roles


class RecordingProgress(Progress):
    """Forwards everything, and records the notes for the report."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.notes: list[str] = []

    @contextmanager
    def task(self, name: str, total: int, unit: str = "img") -> Iterator[Advance]:
        """Forward a task."""
        with self._progress.task(name, total, unit) as advance:
            yield advance

    def note(self, text: str) -> None:
        """Record a note, and forward it."""
        self.notes.append(text)
        self._progress.note(text)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One export in progress.

    Attributes:
        request: What to write.
        source_precision: The precision of a source that is not converted, only built or rewritten.
        reference: The source, opened.
        roles: Which images calibrate, fit and check.
        folder: A temporary folder.
        progress: Where the work is shown; its notes go into the report.
        started: `time.monotonic()` at the start, in seconds.
    """

    request: ExportRequest
    source_precision: Precision | None
    reference: Predictor
    roles: Roles
    folder: Path
    progress: RecordingProgress
    started: float

"""Check before the work that a report can be written after it."""

from __future__ import annotations

from pathlib import Path

from edgeml.errors import needs
from edgeml.files import check_writable


def check_report(path: Path | None) -> None:
    """Check that `path` can be written, and the libraries for it; None needs neither.

    Raises:
        MissingDependencyError: A library is not installed.
        InputError: `path` cannot be written.
    """
    if path is not None:
        check_report_libraries("report")
        check_writable(path)


def check_report_libraries(extra: str) -> None:
    """Check that the libraries for reports are installed; `extra` is the one to name if not.

    Raises:
        MissingDependencyError: A library is not installed.
    """
    with (
        needs("jinja2", extra=extra, to="write an HTML report"),
        needs("matplotlib", extra=extra, to="write an HTML report"),
    ):
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401

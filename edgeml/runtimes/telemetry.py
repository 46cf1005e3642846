"""OpenVINO reports to its maker that it was imported. Here it does not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_REPORTER = "openvino_telemetry"


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Let what is imported in this block find no `openvino_telemetry`.

    Importing `openvino` otherwise writes an identifier into the home folder and starts a child
    process that sends an event over the network. It reads no environment variable that forbids
    it, and falls back to a stub of its own if the reporter cannot be imported.
    """
    found = sys.modules.get(_REPORTER)
    sys.modules[_REPORTER] = None  # type: ignore[assignment]  # the import system's own "absent"
    try:
        yield
    finally:
        if found is None:
            del sys.modules[_REPORTER]
        else:
            sys.modules[_REPORTER] = found

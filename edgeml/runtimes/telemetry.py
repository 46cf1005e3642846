"""Keep ONNX Runtime and OpenVINO from reporting their use to their makers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_REPORTER = "openvino_telemetry"


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Import `onnxruntime` or `openvino` inside this block, and in no other way.

    ONNX Runtime reads an environment variable when it is loaded. OpenVINO reads none: importing it
    writes an identifier into the home folder and starts a child process that sends an event over
    the network, unless its reporter cannot be imported; then it falls back to a stub.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    reporter = sys.modules.get(_REPORTER)
    sys.modules[_REPORTER] = None  # type: ignore[assignment]  # the import system's own "absent"
    try:
        yield
    finally:
        if reporter is None:
            del sys.modules[_REPORTER]
        else:
            sys.modules[_REPORTER] = reporter

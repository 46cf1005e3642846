"""Worker processes that fail, for `test_process.py`: `spawn` must be able to import them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any


def crash(connection: Any, session: object, log: Path) -> None:
    """Print to stderr as a native library does, then end."""
    connection.recv()
    log.write_text("first\nlast words\n")
    os._exit(3)


def hang(connection: Any, session: object, log: Path) -> None:
    time.sleep(60)


class Answers:
    """A session without a model."""

    model = Path("model.onnx")

    def load(self) -> str:
        print("noise")
        os.write(1, b"noise\n")
        return "fine"

    def warm_up(self) -> None:
        raise KeyError("size")

    def block(self) -> None:
        from edgeml.errors import MissingDependencyError

        raise MissingDependencyError("pip install edgeml[onnx]", name="onnxruntime")

    def finish(self) -> None:
        os.write(2, b"last words of a library\n")
        os.abort()

"""The other side of `edgeml.benchmark.worker`: start it, ask it, understand how it died."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from edgeml import errors
from edgeml.errors import EdgemlError, InferenceError

Message = dict[str, Any]

# As -m would, but with the parent's own search path: -m puts the working directory first, where a
# file of the user's named like a module of the standard library would be loaded in its place.
_COMMAND = (
    sys.executable,
    "-c",
    "import sys; sys.path[:] = sys.argv[1:]; from edgeml.benchmark.worker import main; main()",
)


class Worker:
    """A process for one model. A context manager: at its end the process has ended."""

    def __init__(self, model: Path, *, command: Sequence[str] | None = None) -> None:
        """Start it.

        Args:
            model: What it is for; named in errors.
            command: Instead of Python with `edgeml.benchmark.worker`.
        """
        self._model = model
        # A file and not a pipe: nobody reads it while the worker works, and a full pipe blocks.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._process = subprocess.Popen(
            command or [*_COMMAND, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            encoding="utf-8",
            errors="replace",
        )

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def ask(self, message: Message) -> Message:
        """Send a command and wait for the answer.

        Raises:
            EdgemlError: The worker's own, as if it had been raised here.
            InferenceError: The worker died, or failed in a way that nobody foresaw.
        """
        assert self._process.stdin
        assert self._process.stdout
        try:
            print(json.dumps(message), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except OSError:  # a pipe without a reader
            line = ""
        if not line:
            raise InferenceError(self._obituary())
        try:
            answer: Message = json.loads(line)
        except ValueError as err:
            raise InferenceError(
                f"The process that measured {str(self._model)!r} gave no valid answer: {line!r}."
            ) from err
        if "error" in answer:
            raise self._error(**answer["error"])
        return answer

    def _error(self, kind: str | None, message: str) -> EdgemlError:
        """Build the error that the worker met."""
        known = getattr(errors, kind, None) if kind else None
        if isinstance(known, type) and issubclass(known, EdgemlError):
            return known(message)
        return InferenceError(f"Measuring {str(self._model)!r} failed unexpectedly: {message}")

    def _obituary(self) -> str:
        """Say in one line how the worker ended."""
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return f"The process that measured {str(self._model)!r} lives, but answers no more."
        how = f"ended with status {code}"
        if code < 0:
            how = f"was ended by {signal.Signals(-code).name}"
        self._errors.seek(0)
        last = self._errors.read().decode(errors="replace").strip().rpartition("\n")[2]
        return (
            f"The process that measured {str(self._model)!r} {how}"
            f"{f': {last}' if last else ''}. If it ran out of memory, measure fewer models at once."
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Nothing that a worker holds needs an orderly end, and Ctrl-C must not wait for a model.
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with suppress(OSError):  # what was still to be written to the dead is of no use
                if stream:
                    stream.close()

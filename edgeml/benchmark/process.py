"""The process of a model as the benchmark sees it: start it, request steps, explain its end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import cast

from edgeml.benchmark.plan import BenchPlan
from edgeml.benchmark.stages import WarmUp
from edgeml.benchmark.worker import Block, LoadedModel, Session, serve
from edgeml.errors import InferenceError


class Worker:
    """A fresh process for one model. A context manager: at its end the process has ended.

    Its methods are those of `Session`, which runs there. They raise the worker's own EdgemlError,
    or an InferenceError if the worker died.
    """

    def __init__(self, model: Path, images: Sequence[Path], plan: BenchPlan, *, log: Path) -> None:
        """Start the process; `log` receives what it prints."""
        context = multiprocessing.get_context("spawn")
        self._model, self._log = model, log
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=serve, args=(theirs, Session(model, images, plan), log), daemon=True
        )
        with _starting():
            self._process.start()
        theirs.close()  # the process now holds the only other end, so its death ends `recv`

    @property
    def pid(self) -> int:
        return cast("int", self._process.pid)

    def load(self) -> LoadedModel:
        return cast("LoadedModel", self._request("load"))

    def warm_up(self) -> WarmUp:
        return cast("WarmUp", self._request("warm_up"))

    def block(self) -> Block:
        return cast("Block", self._request("block"))

    def finish(self) -> float | None:
        return cast("float | None", self._request("finish"))

    def _request(self, name: str) -> object:
        try:
            self._connection.send(name)
            answer: object = self._connection.recv()
        except (EOFError, OSError):
            raise InferenceError(self._exit_reason()) from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _exit_reason(self) -> str:
        """Return one line on how the worker ended."""
        self._process.join(timeout=5)
        code = self._process.exitcode
        if code is None:
            return f"The process that measured {str(self._model)!r} runs, but does not answer."
        end = f"ended with status {code}"
        if code < 0:
            end = f"was ended by {signal.Signals(-code).name}"
        output = self._log.read_bytes().decode(errors="replace") if self._log.exists() else ""
        if output.strip():
            end += f": {output.strip().splitlines()[-1]}"
        return (
            f"The process that measured {str(self._model)!r} {end}. "
            "If it ran out of memory, measure fewer models at once."
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        # A worker holds nothing that needs an orderly end, and Ctrl-C must not wait for a model.
        self._process.kill()
        self._process.join()
        self._connection.close()


@contextmanager
def _starting() -> Iterator[None]:
    """Start a process that runs only our code, and never receives Ctrl-C.

    `spawn` imports `__main__` in the new process: that would add to its memory and load time, and
    a script without `if __name__ == "__main__"` would start its benchmark again. It also searches
    the working directory first, where a file such as `pickle.py` would replace Python's own.
    """
    main, safe_path = sys.modules["__main__"], os.environ.get("PYTHONSAFEPATH")
    sys.modules["__main__"] = ModuleType("__main__")
    os.environ["PYTHONSAFEPATH"] = "1"  # Python 3.11 or newer
    has_masks = hasattr(signal, "pthread_sigmask")
    if has_masks:  # the new process inherits the mask, so Ctrl-C cannot interrupt its imports
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if has_masks:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if safe_path is None:
            del os.environ["PYTHONSAFEPATH"]
        sys.modules["__main__"] = main

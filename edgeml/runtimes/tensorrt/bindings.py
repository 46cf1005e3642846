"""TensorRT's Python module, whichever of the two it is, and the one logger that it gets.

TensorRT keeps the first logger that it is given and ignores all others, so there is one for the
life of the process. It reports failures by returning None or False and by logging; `listening`
collects what was logged meanwhile.
"""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from types import ModuleType
from typing import Any, NamedTuple

from edgeml.errors import MissingDependencyError, ModelLoadError
from edgeml.runtimes.tensorrt.passport import NAMES, Library

_log = logging.getLogger(__name__)

# The front-end packages re-export the bindings; of TensorRT-RTX often only the latter is there.
_MODULES: dict[Library, tuple[str, ...]] = {
    "tensorrt": ("tensorrt",),
    "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
_INSTALL: dict[Library, str] = {
    "tensorrt": "pip install 'edgeml[trt]'",
    "tensorrt_rtx": "pip install 'edgeml[trt-rtx]'",
}


class Message(NamedTuple):
    """One line of TensorRT's log.

    Attributes:
        severity: `INTERNAL_ERROR`, `ERROR`, `WARNING`, `INFO` or `VERBOSE`.
        text: As TensorRT words it.
    """

    severity: str
    text: str


class Heard(list[Message]):
    """What was logged, in order."""

    @property
    def errors(self) -> list[str]:
        """The texts of errors."""
        return [text for severity, text in self if severity in ("INTERNAL_ERROR", "ERROR")]

    @property
    def warnings(self) -> list[str]:
        """The texts of warnings."""
        return [text for severity, text in self if severity == "WARNING"]


class _Listener(NamedTuple):
    heard: Heard
    thread: int
    verbose: bool


_lock = threading.Lock()
_loggers: dict[ModuleType, Any] = {}
_listeners: list[_Listener] = []


def load(library: Library, *, to: str = "run TensorRT engines") -> ModuleType:
    """Import TensorRT or TensorRT-RTX. Nothing else does.

    Some versions end the process when an object is made of them where no GPU is: ask
    `_cuda.device_count` before that. Importing is safe.

    Args:
        library: Which.
        to: What for, in the words of an error.

    Raises:
        MissingDependencyError: It is not installed.
        ModelLoadError: It is, but cannot be loaded.
    """
    for name in _MODULES[library]:
        try:
            return importlib.import_module(name)
        except (ImportError, OSError) as err:
            if isinstance(err, ModuleNotFoundError) and err.name in _MODULES[library]:
                continue
            why = " ".join(str(err).split())
            raise ModelLoadError(
                f"{NAMES[library]} is installed but cannot be loaded: {why}. "
                "`edgeml doctor` says more."
            ) from err
    raise MissingDependencyError(
        f"To {to}, edgeml needs {NAMES[library]}: {_INSTALL[library]}", name=_MODULES[library][0]
    )


def built_for_cuda(library: Library) -> str | None:
    """Give the major version of CUDA that the library was built for; None if pip does not tell.

    On a Jetson it comes with JetPack, not with pip.
    """
    for major in ("12", "13", "14"):
        for kind in ("bindings", "libs"):
            try:
                metadata.version(f"{library}_cu{major}_{kind}")
            except metadata.PackageNotFoundError:
                continue
            return major
    return None


def logger(trt: ModuleType) -> Any:
    """Give the one logger, an `ILogger`, that every object of `trt` is made with."""
    with _lock:
        if trt not in _loggers:
            _loggers[trt] = _make_logger(trt)
        return _loggers[trt]


@contextmanager
def listening(trt: ModuleType, *, verbose: bool = False) -> Iterator[Heard]:
    """Collect what TensorRT logs in this block.

    What another thread's block caused goes to that one; what TensorRT's own threads log, which
    belong to no block, goes to all.

    Args:
        trt: The module.
        verbose: Keep INFO and VERBOSE too: megabytes, when an engine is built.
    """
    logger(trt)
    listener = _Listener(Heard(), threading.get_ident(), verbose)
    with _lock:
        _listeners.append(listener)
    try:
        yield listener.heard
    finally:
        with _lock:
            _listeners[:] = [other for other in _listeners if other is not listener]


def _make_logger(trt: Any) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            # Not super(): pybind11 demands that its own initialiser is called by name.
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            _hear(str(severity.name), str(msg))

    return Logger()


def _hear(severity: str, text: str) -> None:
    """Hand a message on. Called from C++, possibly on its threads: it must never raise."""
    quiet = severity in ("INFO", "VERBOSE")
    with _lock:
        here = threading.get_ident()
        own = [listener for listener in _listeners if listener.thread == here]
        for listener in own or _listeners:
            if listener.verbose or not quiet:
                listener.heard.append(Message(severity, text))
        unheard = not _listeners
    if severity in ("INTERNAL_ERROR", "ERROR") and unheard:
        _log.warning("TensorRT: %s", text)
    elif not quiet:
        _log.debug("TensorRT: %s", text)

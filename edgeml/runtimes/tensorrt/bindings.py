"""The Python module of TensorRT or TensorRT-RTX, and its logger.

TensorRT keeps the first logger that it gets and ignores all others, so a process has only one.
It reports failures by returning None or False and by logging; `captured_log` collects the log.
"""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from types import ModuleType
from typing import Any, NamedTuple

from edgeml.errors import MissingDependencyError, ModelLoadError
from edgeml.runtimes.protocol import one_line
from edgeml.runtimes.tensorrt.passport import NAMES, Library, Tensor

_log = logging.getLogger(__name__)

# The front-end packages re-export the bindings; TensorRT-RTX often comes with bindings only.
_MODULES: dict[Library, tuple[str, ...]] = {
    "tensorrt": ("tensorrt",),
    "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
_INSTALL: dict[Library, str] = {
    "tensorrt": "pip install 'edgeml[trt]'",
    "tensorrt_rtx": "pip install 'edgeml[trt-rtx]'",
}

_NUMPY_NAMES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}


class Message(NamedTuple):
    """A line of TensorRT's log; severities are INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE."""

    severity: str
    text: str


class LogLines(list[Message]):
    """What TensorRT logged, in order."""

    @property
    def errors(self) -> list[str]:
        """The texts of errors."""
        return [text for severity, text in self if severity in ("INTERNAL_ERROR", "ERROR")]

    @property
    def warnings(self) -> list[str]:
        """The texts of warnings."""
        return [text for severity, text in self if severity == "WARNING"]

    def reason(self) -> str:
        """Return the errors, or else the warnings, as one line."""
        return " ".join("; ".join(self.errors or self.warnings).split()) or "it gives no reason"


class _Capture(NamedTuple):
    lines: LogLines
    thread: int
    verbose: bool


_lock = threading.Lock()
_loggers: dict[ModuleType, Any] = {}
_captures: list[_Capture] = []


def load(library: Library, *, to: str = "run TensorRT engines") -> ModuleType:
    """Import TensorRT or TensorRT-RTX; nothing else imports them.

    Importing is safe. Without a GPU, some versions end the process when one of their objects is
    created: call `cuda.device_count` before that. `to` is the purpose, for the error message.

    Raises:
        MissingDependencyError: It is not installed.
        ModelLoadError: It is installed but cannot be loaded.
    """
    for name in _MODULES[library]:
        try:
            return importlib.import_module(name)
        except (ImportError, OSError) as err:
            if isinstance(err, ModuleNotFoundError) and err.name in _MODULES[library]:
                continue
            raise ModelLoadError(
                f"{NAMES[library]} is installed but cannot be loaded: {one_line(err)}. "
                "Run `edgeml doctor`."
            ) from err
    raise MissingDependencyError(
        f"To {to}, edgeml needs {NAMES[library]}: {_INSTALL[library]}", name=_MODULES[library][0]
    )


def built_for_cuda(library: Library) -> str | None:
    """Return the major version of CUDA that the library was built for; None if pip has no record.

    On a Jetson it comes with JetPack, not with pip.
    """
    for major in ("12", "13", "14"):
        for kind in ("bindings", "libs"):
            with suppress(metadata.PackageNotFoundError):
                metadata.version(f"{library}_cu{major}_{kind}")
                return major
    return None


def tensor_of(name: str, dtype: Any, shape: Iterable[int]) -> Tensor:
    """Describe a tensor: its type as numpy names it, None for a size that each run chooses."""
    kind = str(dtype.name)
    sides = tuple(None if side < 0 else int(side) for side in shape)
    return Tensor(name=name, dtype=_NUMPY_NAMES.get(kind, kind.lower()), shape=sides)


def logger(trt: ModuleType) -> Any:
    """Return the one logger, an `ILogger`, for all objects of `trt`."""
    with _lock:
        if trt not in _loggers:
            _loggers[trt] = _new_logger(trt)
        return _loggers[trt]


@contextmanager
def captured_log(trt: ModuleType, *, verbose: bool = False) -> Iterator[LogLines]:
    """Collect what TensorRT logs in this block.

    Lines from a thread with its own block go to that block; lines from TensorRT's threads, which
    belong to no block, go to all. INFO and VERBOSE are megabytes when an engine is built.
    """
    logger(trt)
    capture = _Capture(LogLines(), threading.get_ident(), verbose)
    with _lock:
        _captures.append(capture)
    try:
        yield capture.lines
    finally:
        with _lock:
            _captures[:] = [other for other in _captures if other is not capture]


def _new_logger(trt: Any) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # pybind11 requires it by name

        def log(self, severity: Any, msg: str) -> None:
            _record(str(severity.name), str(msg))

    return Logger()


def _record(severity: str, text: str) -> None:
    """Pass a message on. Called from C++, possibly on its threads: it must never raise."""
    quiet = severity in ("INFO", "VERBOSE")
    with _lock:
        thread = threading.get_ident()
        own = [capture for capture in _captures if capture.thread == thread]
        for capture in own or _captures:
            if capture.verbose or not quiet:
                capture.lines.append(Message(severity, text))
        captured = bool(_captures)
    if severity in ("INTERNAL_ERROR", "ERROR") and not captured:
        _log.warning("TensorRT: %s", text)
    elif not quiet:
        _log.debug("TensorRT: %s", text)

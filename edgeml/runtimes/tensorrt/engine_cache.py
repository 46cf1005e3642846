"""A cache of engines, each built when its .onnx file is first used on a machine.

This is the portable way to ship TensorRT: the .onnx runs on all machines, each with its own engine.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from edgeml.errors import EngineMismatchError, InputError
from edgeml.files import locked, user_cache
from edgeml.progress import Progress, TerminalProgress
from edgeml.runtimes.external_weights import sha256_of_onnx
from edgeml.runtimes.tensorrt import bindings, cuda
from edgeml.runtimes.tensorrt.passport import (
    NAMES,
    Library,
    passport_path,
    read_passport,
    supersedes,
)

if TYPE_CHECKING:
    from edgeml.runtimes.tensorrt.passport import Gpu
    from edgeml.runtimes.tensorrt.runtime import TensorRtRuntime
    from edgeml.spec.model_spec import ModelSpec

logger = logging.getLogger(__name__)

_RECIPE = 2
"""To be increased when edgeml builds a different engine from the same file."""

_BATCHES = (1, 1, 8)
"""Smallest, usual, largest. Fastest for one image at a time, as from a camera."""


def open_onnx(
    path: Path,
    spec: ModelSpec,
    *,
    library: Library,
    device: str = "auto",
    progress: Progress | None = None,
) -> TensorRtRuntime:
    """Open the engine of an .onnx file; build it if this machine has none that fits.

    The cache is EDGEML_CACHE/engines, or this system's folder for caches; `edgeml doctor` prints
    where it is and how large. If it cannot be written to, the engine is built for this process.

    Args:
        path: An .onnx, quantised for TensorRT if it is INT8.
        spec: What it means, for the passport of an engine that is built.
        library: The one that builds and runs it.
        device: As `TensorRtRuntime` takes it.
        progress: Receives the steps of a build; None prints them on stderr, as it may take minutes.

    Raises:
        InputError: There is no such device.
        ModelLoadError: There is no GPU, or TensorRT refuses what it built.
        ExportError: TensorRT cannot build it.
        MissingDependencyError: TensorRT, cuda-bindings or onnx is not installed.
    """
    from edgeml.runtimes.tensorrt.build import engine_from_onnx
    from edgeml.runtimes.tensorrt.engine_options import EngineOptions, Profile
    from edgeml.runtimes.tensorrt.runtime import TensorRtRuntime, gpu_index

    trt = bindings.load(library)
    index = gpu_index(device)
    gpu = cuda.this_gpu(index)
    name = f"{path.stem}-{_key(path, library, trt.__version__, gpu)}.engine"
    with _kept(name) as engine:
        if engine.exists():
            try:
                return TensorRtRuntime(engine, library=library, device=device)
            except EngineMismatchError as err:
                logger.warning("The engine in the cache is built again: %s", err)
        capability: Literal["current"] | None = "current" if library == "tensorrt_rtx" else None
        gpu_digest = hashlib.sha256(gpu.name.encode()).hexdigest()
        progress = progress or TerminalProgress()
        progress.note(f"Building {path.name} for {gpu.name} with {NAMES[library]}, once: {engine}")
        engine_from_onnx(
            path,
            engine,
            EngineOptions(profile=Profile(*_BATCHES), capability=capability),
            library=library,
            timing_cache=engine.parent / f"{library}-{gpu_digest[:8]}.timing",
            device=index,
            spec=spec,
            progress=progress,
        )
        _remove_superseded(engine)
        return TensorRtRuntime(engine, library=library, device=device)


@contextmanager
def _kept(name: str) -> Iterator[Path]:
    """Yield where an engine is or will be: in the cache, locked, or else in a temporary folder."""
    with ExitStack() as stack:
        engine = None
        try:
            engine = user_cache("engines", extra="trt") / name
            stack.enter_context(locked(engine.with_suffix(".lock")))
        except InputError as err:
            if engine is None or not os.path.exists(engine):
                logger.warning("The engine is not kept for the next run: %s", err)
                engine = Path(stack.enter_context(TemporaryDirectory(prefix="edgeml-")), name)
        yield engine


def _remove_superseded(engine: Path) -> None:
    """Remove engines that older versions built from the same file.

    Engines of newer versions stay: two versions in turn would otherwise build at each use.
    """
    new = read_passport(engine)
    for other in engine.parent.glob("*.engine"):
        with suppress(EngineMismatchError, OSError):
            if supersedes(new, read_passport(other)):
                other.unlink()
                passport_path(other).unlink()
                logger.info("Removed %s, which %s replaces.", other.name, engine.name)


def _key(path: Path, library: Library, version: str, gpu: Gpu) -> str:
    """Return a digest of everything that an engine depends on."""
    parts = {
        "recipe": _RECIPE,
        "onnx": sha256_of_onnx(path),
        "library": library,
        "version": version,
        "gpu": [gpu.name, gpu.compute_capability, gpu.driver],
        "batches": _BATCHES,
    }
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

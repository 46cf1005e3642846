"""Engines of .onnx files, built at their first use on a machine and kept.

The portable way to ship TensorRT: the .onnx goes everywhere, each machine builds its own engine.
"""

from __future__ import annotations

import hashlib
import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edgeml.errors import EngineMismatchError
from edgeml.files import locked, sha256_of_file, user_cache
from edgeml.progress import Progress, TerminalProgress
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

_RECIPE = 1
"""Raised when edgeml builds other engines of the same file than before."""

_BATCHES = (1, 1, 8)
"""Least, usual, greatest. Fastest for one image at a time, which is what a camera gives."""


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
    where it is and how large.

    Args:
        path: An .onnx, quantised for TensorRT if it is INT8.
        spec: What it means, for the passport of an engine that is built.
        library: The one that builds and runs it.
        device: As `TensorRtRuntime` takes it.
        progress: Where a build shows itself; None: on stderr, since it may take minutes.

    Raises:
        InputError: There is no such device, or the cache is no folder that can be written to.
        ModelLoadError: There is no GPU, or TensorRT refuses what it built.
        ExportError: TensorRT cannot build it.
        MissingDependencyError: TensorRT, cuda-bindings or onnx is not installed.
    """
    from edgeml.runtimes.tensorrt.runtime import TensorRtRuntime, gpu_index

    trt = bindings.load(library)
    index = gpu_index(device)
    gpu = cuda.this_gpu(index)
    folder = user_cache("engines", extra="trt")
    engine = folder / f"{path.stem}-{_key(path, library, trt.__version__, gpu)}.engine"
    with locked(engine.with_suffix(".lock")):
        if engine.exists():
            try:
                return TensorRtRuntime(engine, library=library, device=device)
            except EngineMismatchError as err:
                logger.warning("The engine in the cache is built again: %s", err)
        progress = progress or TerminalProgress()
        progress.note(f"Building {path.name} for {gpu.name} with {NAMES[library]}, once: {engine}")
        _build(path, engine, spec, library, gpu, index, progress)
        _remove_superseded(engine)
        return TensorRtRuntime(engine, library=library, device=device)


def _remove_superseded(engine: Path) -> None:
    """Remove what older versions built of the same file, which this machine will not run again.

    Those of newer ones stay: two versions that are used in turn would build at each use.
    """
    new = read_passport(engine)
    for other in engine.parent.glob("*.engine"):
        with suppress(EngineMismatchError, OSError):
            if supersedes(new, read_passport(other)):
                other.unlink()
                passport_path(other).unlink()
                logger.info("Removed %s, which %s replaces.", other.name, engine.name)


def _build(
    path: Path,
    engine: Path,
    spec: ModelSpec,
    library: Library,
    gpu: Gpu,
    index: int,
    progress: Progress,
) -> None:
    from edgeml.runtimes.tensorrt.build import Profile, engine_from_onnx

    timings = f"{library}-{hashlib.sha256(gpu.name.encode()).hexdigest()[:8]}.timing"
    engine_from_onnx(
        path,
        engine,
        library=library,
        profile=Profile(*_BATCHES),
        timing_cache=engine.with_name(timings),
        capability="current" if library == "tensorrt_rtx" else None,
        device=index,
        spec=spec,
        progress=progress,
    )


def _key(path: Path, library: Library, version: str, gpu: Gpu) -> str:
    """Digest all that an engine depends on; another value is another engine."""
    parts = {
        "recipe": _RECIPE,
        "onnx": sha256_of_file(path),
        "library": library,
        "version": version,
        "gpu": [gpu.name, gpu.compute_capability, gpu.driver],
        "batches": _BATCHES,
    }
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

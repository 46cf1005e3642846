"""Steps of gpu_check.py: engines of TensorRT and TensorRT-RTX."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from benchmarks import gpu_common as common
from benchmarks.gpu_common import Notes

Library = Literal["tensorrt", "tensorrt_rtx"]


def build(library: Library) -> Callable[[Notes, Path], None]:
    """Give the step that builds an engine of each file."""

    def step(notes: Notes, work: Path) -> None:
        if library == "tensorrt":
            common.require_gpu()
        from edgeml.runtimes.tensorrt.build import engine_from_onnx

        for net, precision, path in common.made_files(work):
            name, engine = f"{net}_{precision}", _engine(path, library)
            begin = time.monotonic()
            built = engine_from_onnx(path, engine, library=library)
            notes.figure(
                name,
                {
                    "seconds": round(time.monotonic() - begin, 2),
                    "bytes": engine.stat().st_size,
                    "version": built.passport.version,
                    "capability": list(built.passport.compute_capability),
                    "types": dict(built.passport.layers),
                    "warnings": list(built.warnings)[:5],
                },
            )
            if precision == "int8" and built.passport.layers:
                notes.must(f"{net}: INT8 computes in INT8", "int8" in built.passport.layers)

    return step


def build_for_this_gpu(notes: Notes, work: Path) -> None:
    """Build for the GPU that is here, which TensorRT-RTX may not list; tell what comes of it.

    In a step of its own: what it does with such a GPU is not known, and it may end the process.
    """
    common.require_gpu()
    from edgeml.errors import ExportError
    from edgeml.runtimes.tensorrt.build import engine_from_onnx
    from edgeml.runtimes.tensorrt.engine_options import EngineOptions

    refused = None
    for net, precision, path in common.made_files(work):
        engine = _for_this_gpu(_engine(path, "tensorrt_rtx"))
        try:
            built = engine_from_onnx(
                path, engine, EngineOptions(capability="current"), library="tensorrt_rtx"
            )
            built_for: str | list[str] = list(built.passport.compute_capability)
        except ExportError as err:
            built_for = refused = common.line(err)
        notes.figure(f"{net}_{precision}", built_for)
    if refused:
        raise common.SkippedError(refused)


def run_engines(library: Library) -> Callable[[Notes, Path], None]:
    """Give the step that runs the engines: numbers, batches, threads, latency, memory, refusals."""

    def step(notes: Notes, work: Path) -> None:
        common.require_gpu()
        import numpy as np

        from edgeml.errors import EngineMismatchError, ModelLoadError
        from edgeml.predict.predictor import Predictor
        from edgeml.runtimes import open_runtime

        engines = [
            (net, precision, path, engine)
            for net, precision, path in common.made_files(work)
            for engine in (_engine(path, library), _for_this_gpu(_engine(path, library)))
            if engine.exists()
        ]
        if not engines:
            raise common.SkippedError("no engine was built")
        free, ran = None, None
        for net, precision, path, engine in engines:
            name = f"{net}_{precision}" + "_for_this_gpu" * ("this_gpu" in engine.name)
            try:
                runtime = open_runtime(engine)
            except (EngineMismatchError, ModelLoadError) as err:
                notes.figure(f"{name}_refused", common.line(err))
                continue
            notes.figure(f"{name}_runtime", [runtime.name, runtime.metadata.get("precision")])
            with Predictor(path) as here:
                batch = common.pictures(here, work)
                common.agree(notes, name, precision, here, runtime, batch)
                common.in_threads(notes, name, runtime, batch)
                common.time_batches(notes, name, runtime, batch)
            for count in common.BATCHES:
                part = runtime.run(batch[:count])
                together = runtime.run(batch)[:count]
                close = np.allclose(
                    part, together, atol=common.TOLERANCE[precision] * np.abs(together).max()
                )
                notes.must(f"{name}: a batch of {count} says what {len(batch)} say", close)
            runtime.close()
            if ran is None:
                ran, free = (engine, batch), common.free_memory()
        if ran is None or free is None:
            raise common.SkippedError("every engine was refused on this GPU, see the figures")
        _reopened(notes, *ran, free=free)
        _refused(notes, ran[0], work)

    return step


def trt_cache(notes: Notes, work: Path) -> None:
    """An .onnx with runtime="tensorrt": built at the first use, found again at the second."""
    common.require_gpu()
    from edgeml.predict.predictor import Predictor

    for net, precision, path in common.made_files(work):
        name, seconds, kept = f"{net}_{precision}", [], []
        for _ in range(2):
            begin = time.monotonic()
            with Predictor(path, runtime="tensorrt") as predictor:
                predictor.runtime.run(common.pictures(predictor, work)[:1])
            seconds.append(round(time.monotonic() - begin, 2))
            engines = (work / "cache").rglob("*.engine")
            kept.append({str(engine): engine.stat().st_mtime_ns for engine in engines})
        notes.figure(f"{name}_first_and_second_s", seconds)
        notes.must(f"{name}: the first use keeps an engine", bool(kept[0]))
        notes.must(f"{name}: the second use builds nothing", kept[0] == kept[1])


def _reopened(notes: Notes, engine: Path, batch: Any, *, free: int) -> None:
    from edgeml.runtimes import open_runtime

    for _ in range(20):
        runtime = open_runtime(engine)
        runtime.run(batch[:1])
        runtime.close()
    left = common.free_memory()
    notes.figure("memory_lost_mib", (free - left) / 2**20)
    notes.must("opening and closing 20 times costs no memory", free - left < 64 * 2**20)


def _refused(notes: Notes, engine: Path, work: Path) -> None:
    """Flip one byte of an engine: it must be refused before TensorRT sees it."""
    from edgeml.errors import EngineMismatchError
    from edgeml.runtimes import open_runtime

    changed = work / "changed.engine"
    plan = bytearray(engine.read_bytes())
    plan[len(plan) // 2] ^= 1
    changed.write_bytes(plan)
    shutil.copy(f"{engine}.json", f"{changed}.json")
    try:
        open_runtime(changed).close()
        notes.must("a changed engine is refused", False)
    except EngineMismatchError as err:
        notes.figure("changed_engine", common.line(err))
        notes.must("a changed engine is refused", True)


def _engine(onnx: Path, library: Library) -> Path:
    return onnx.with_name(f"{onnx.stem}.{library}.engine")


def _for_this_gpu(engine: Path) -> Path:
    return engine.with_name(f"{engine.stem}.this_gpu.engine")

"""The steps of gpu_check.py. Each notes figures and what must hold; what it lacks, it says.

Nothing is imported at the top but the standard library, so that a machine without numpy or
pydantic still says what it is.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

PACKAGES = (
    "cuda-bindings", "cuda-toolkit", "numpy", "nvidia-cublas", "nvidia-cuda-runtime", "onnx",
    "nvidia-cudnn-cu13", "onnxruntime", "onnxruntime-ep-nv-tensorrt-rtx-cu13", "onnxruntime-gpu",
    "onnxscript", "opencv-python", "opencv-python-headless", "platformdirs", "pydantic",
    "safetensors", "tensorrt", "tensorrt_cu12", "tensorrt_cu13", "tensorrt_rtx_cu13_bindings",
    "tensorrt_rtx_cu13_libs", "timm", "torch", "torchvision", "triton", "typer",
)  # fmt: skip

DEVICE = "cuda"

IMAGES, SIZE, EPOCHS = 1500, 96, 12
"""What the small network is trained on: drawn pictures, of which so many give the figures."""

COMMON, COMMON_SIZE = "resnet18", 224

PICTURES = 60

CALLS = 60
"""Of each of 8 threads."""

BATCHES = (1, 3, 8)

FILES = {
    (net, precision): f"{net}.{precision}.onnx"
    for net in ("cnn", "resnet18")
    for precision in ("fp32", "fp16", "int8")
}
"""What the step `models` leaves: a small network that has learnt, and a common one that has not."""

TOLERANCE = {"fp32": 1e-3, "fp16": 3e-2, "int8": 0.3}
"""The largest difference of logits, as a share of the largest, to the same file on the CPU."""

FLIPS = {"fp32": 0.0, "fp16": 10.0, "int8": 40.0}
"""The most decisions in a thousand that may differ from the same file on the CPU."""

Library = Literal["tensorrt", "tensorrt_rtx"]


class SkippedError(Exception):
    """The step lacks something; its message says what."""


class Notes:
    """What a step finds out, on disk as soon as it is known: its process may crash."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._told: dict[str, Any] = {"status": None, "reason": None, "checks": {}, "figures": {}}

    def figure(self, name: str, value: Any) -> None:
        """Note what was measured; JSON has no number for NaN."""
        odd = isinstance(value, float) and not math.isfinite(value)
        self._told["figures"][name] = str(value) if odd else value
        self._save()

    def must(self, what: str, holds: bool) -> None:
        """Note what has to hold, and whether it does."""
        self._told["checks"][what] = bool(holds)
        self._save()

    def end(self, status: str, reason: str | None = None) -> None:
        """Note how it ended; a step that ends without is one that crashed."""
        self._told |= {"status": status, "reason": reason}
        self._save()

    def _save(self) -> None:
        beside = self._path.with_suffix(".partial")
        beside.write_text(json.dumps(self._told, default=str), encoding="utf-8")
        os.replace(beside, self._path)


def run(step: str, work: Path) -> None:
    """Run a step, and note how it ended."""
    notes = Notes(work / f"{step}.notes.json")
    os.environ["EDGEML_CACHE"] = str(work / "cache")
    try:
        _FUNCTIONS[step](notes, work)
    except SkippedError as err:
        notes.end("skipped", str(err))
    except ModuleNotFoundError as err:
        if (err.name or "").startswith(("edgeml", "benchmarks")):
            raise
        notes.end("skipped", f"{err.name} is not installed")
    except ImportError as err:  # edgeml's own word for what is not installed, or a broken install
        notes.end("skipped" if _is_missing(err) else "failed", _line(err))
    except Exception as err:
        notes.end("failed", f"{type(err).__name__}: {_line(err)}")
        raise
    else:
        notes.end("passed")


def machine(notes: Notes, work: Path) -> None:
    """Say what is here: before all else, since it needs least."""
    notes.figure("python", platform.python_version())
    notes.figure("platform", platform.platform())
    notes.figure("packages", {name: version for name in PACKAGES if (version := _version(name))})
    if shutil.which("nvidia-smi"):
        fields = "name,driver_version,memory.total,clocks.max.sm,power.limit,pstate"
        asked = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False)
        notes.figure("nvidia_smi", done.stdout.strip().splitlines())
    from edgeml.doctor_gpu import ask_driver, examine

    driver = ask_driver()
    notes.figure("driver", {"kernel": driver.kernel, "cuda": driver.cuda, "error": driver.error})
    notes.figure("gpus", [asdict(gpu) for gpu in driver.gpus])
    notes.figure("doctor", [finding.to_dict() for finding in examine(driver)])


def cuda(notes: Notes, work: Path) -> None:
    """Memory, pinned buffers, streams, graphs and errors, on CUDA itself."""
    require_gpu()
    import numpy as np

    from edgeml.errors import InferenceError
    from edgeml.runtimes import _cuda

    notes.figure("gpu", asdict(_cuda.this_gpu()))
    shape = (1 << 24,)  # 64 MiB of float32
    with (
        _cuda.stream() as stream,
        _cuda.pinned_array(shape, "float32") as sent,
        _cuda.pinned_array(shape, "float32") as back,
        _cuda.device_memory(sent.nbytes) as address,
    ):

        def there_and_back() -> None:
            stream.to_device(address, sent)
            stream.to_host(back, address)

        sent[:] = np.random.default_rng(0).random(shape, np.float32)
        there_and_back()
        stream.wait()
        notes.must("64 MiB come back from the GPU as they were", np.array_equal(sent, back))
        with _cuda.captured(stream, there_and_back) as graph:
            sent[:] = np.random.default_rng(1).random(shape, np.float32)
            back[:] = 0
            stream.launch(graph)
            stream.wait()
            notes.must("a replayed graph copies what is there by then", np.array_equal(sent, back))

        def copied() -> None:
            there_and_back()
            stream.wait()

        notes.figure("copy_64mib_both_ways_ms", _latency(copied))
    free = _free_memory()
    for _ in range(200):
        with (
            _cuda.stream(),
            _cuda.pinned_array((1 << 18,), "float32"),
            _cuda.device_memory(1 << 24),
        ):
            pass
    notes.must("200 allocations leave the memory as it was", _free_memory() >= free)
    try:
        with _cuda.device_memory(1 << 50):
            notes.must("a pebibyte cannot be had", False)
    except InferenceError as err:
        notes.figure("out_of_memory", str(err))
        notes.must("running out of memory is an error that says so", "Memory" in str(err))
    with _cuda.device_memory(1 << 20):
        notes.must("the GPU can be used after that", True)


def torch_(notes: Notes, work: Path) -> None:
    """PyTorch alone, for figures to compare with: a ResNet-18 of random weights."""
    require_gpu()
    import timm
    import torch

    _no_tf32()
    torch.manual_seed(0)
    module = timm.create_model(COMMON, num_classes=17).eval()
    batch = torch.randn(8, 3, COMMON_SIZE, COMMON_SIZE)
    with torch.inference_mode():
        expected = module(batch)
        module = module.to(DEVICE)
        off = float((module(batch.to(DEVICE)).cpu() - expected).abs().max() / expected.abs().max())
        notes.figure("fp32_difference", off)
        notes.must("FP32 on the GPU is FP32 on the CPU", off <= TOLERANCE["fp32"])
        for kind in (torch.float32, torch.float16, torch.bfloat16):
            net = module.to(kind, memory_format=torch.channels_last)
            for count in (1, 32):
                given = torch.randn(count, *batch.shape[1:], device=DEVICE, dtype=kind)
                name = f"{str(kind).removeprefix('torch.')}_batch{count}_ms"
                notes.figure(name, _latency(partial(_synchronous, net, given)))


def train(notes: Notes, work: Path) -> None:
    """Train the small network in bfloat16 on drawn apparel, and run it on both devices."""
    require_gpu()
    import numpy as np

    from edgeml.data import read_dataset
    from edgeml.predictor import Predictor
    from edgeml.train.config import TrainConfig
    from edgeml.train.loop import train as train_model

    data = read_dataset(_drawn(work))
    config = TrainConfig(
        model="cnn", epochs=EPOCHS, size=SIZE, batch=64, device=DEVICE, amp="bf16", seed=0
    )
    begin = time.monotonic()
    result = train_model(data, config, work / "run", overwrite=True)
    notes.figure("seconds", round(time.monotonic() - begin, 1))
    notes.figure("epochs", [asdict(epoch) for epoch in result.history])
    test = result.metrics.to_dict()["metrics"]
    notes.figure("metrics", test)
    notes.must("it learns: mAP on the test side above 0.5", test["mAP"] > 0.5)
    _no_tf32()
    with Predictor(work / "run") as here, Predictor(work / "run", device=DEVICE) as there:
        batch = _batch(here, work)
        expected, got = here.runtime.run(batch), there.runtime.run(batch)
        notes.figure("flips_per_1000", _flips(here, expected, got))
        off = float(np.abs(got - expected).max() / np.abs(expected).max())
        notes.figure("difference", off)
        notes.must("it computes the same on both devices", off <= TOLERANCE["fp32"])


def models(notes: Notes, work: Path) -> None:
    """Write both networks in three precisions, laid out for TensorRT; no GPU is needed."""
    import numpy as np
    import timm
    import torch

    from edgeml import ModelSpec, Preprocess
    from edgeml.data import read_dataset
    from edgeml.spec import ModelSpec as Spec
    from edgeml_export.calibration import choose_calibration
    from edgeml_export.to_fp16 import fp16_from_onnx
    from edgeml_export.to_int8 import int8_from_onnx, measure_ranges
    from edgeml_export.to_onnx import onnx_from_checkpoint, onnx_from_module

    data = read_dataset(_drawn(work))
    torch.manual_seed(0)
    spec: Spec = ModelSpec(
        labels=data.labels,
        thresholds=(0.5,) * len(data.labels),
        preprocess=Preprocess(size=(COMMON_SIZE, COMMON_SIZE)),
    )
    module = timm.create_model(COMMON, num_classes=len(data.labels)).eval()
    onnx_from_module(module, spec, work / FILES["resnet18", "fp32"])
    if (work / "run" / "model.safetensors").exists():
        onnx_from_checkpoint(work / "run", work / FILES["cnn", "fp32"])
    calibration = choose_calibration(data, data.labels, limit=64)
    for net in ("cnn", "resnet18"):
        source = work / FILES[net, "fp32"]
        if not source.exists():
            continue
        fp16_from_onnx(source, work / FILES[net, "fp16"])
        ranges = measure_ranges(source, calibration)
        int8_from_onnx(source, work / FILES[net, "int8"], ranges, layout="tensorrt")
    made = {f"{net} {kind}": (work / file).exists() for (net, kind), file in FILES.items()}
    notes.figure("files", made)
    notes.must("a ResNet-18 is there in three precisions", sum(made.values()) >= 3)
    notes.figure("numpy", np.__version__)


def ort_cuda(notes: Notes, work: Path) -> None:
    """ONNX Runtime's CUDA provider beside its CPU provider: numbers, threads, graphs, latency."""
    require_gpu()
    from edgeml.predictor import Predictor
    from edgeml.runtimes.ort import OrtRuntime

    _require_cuda_provider()
    for net, precision, path in _made(work):
        name = f"{net}_{precision}"
        with Predictor(path) as here, Predictor(path, device=DEVICE) as there:
            notes.figure(
                f"{name}_runtime", [there.runtime.name, there.runtime.metadata["precision"]]
            )
            batch = _batch(here, work)
            # What it makes of INT8 is not known: to be told, whatever it is.
            _agree(
                notes, name, precision, here, there.runtime, batch, told_only=precision == "int8"
            )
            _in_threads(notes, name, there.runtime, batch)
            _time(notes, name, there.runtime, batch)
        if precision == "fp32":
            fast = OrtRuntime(path, device=DEVICE, precision="fast")
            _time(notes, f"{net}_{fast.metadata['precision']}_fast", fast, batch)


def ort_graphs(notes: Notes, work: Path) -> None:
    """The same with graphs that are recorded once for each shape, through buffers on the GPU."""
    require_gpu()
    from edgeml.predictor import Predictor
    from edgeml.runtimes.ort import OrtRuntime

    _require_cuda_provider()
    for net, precision, path in _made(work):
        if precision == "int8":
            continue
        name = f"{net}_{precision}"
        replayed = OrtRuntime(path, device=DEVICE, graphs=True)
        with Predictor(path) as here:
            batch = _batch(here, work)
            for _ in range(3):  # runs plainly, records, replays
                _agree(notes, name, precision, here, replayed, batch)
            _in_threads(notes, name, replayed, batch)
            _time(notes, name, replayed, batch)
        replayed.close()


def ort_plugins(notes: Notes, work: Path) -> None:
    """Providers that installed packages bring, each by its name."""
    require_gpu()
    import onnxruntime as ort

    from edgeml.errors import EdgemlError
    from edgeml.predictor import Predictor
    from edgeml.runtimes.ort_providers import _plugins

    packages = {name: module.get_ep_name() for name, module in _plugins()}
    notes.figure("packages", packages)
    notes.figure("devices", sorted({d.ep_name for d in getattr(ort, "get_ep_devices", list)()}))
    if not packages:
        raise SkippedError("no package onnxruntime-ep-* is installed")
    for package, provider in packages.items():
        for net, precision, path in _made(work):
            name = f"{provider}_{net}_{precision}"
            try:
                with Predictor(path) as here, Predictor(path, device=provider) as there:
                    batch = _batch(here, work)
                    _agree(notes, name, precision, here, there.runtime, batch)
                    _time(notes, name, there.runtime, batch)
            except EdgemlError as err:
                notes.figure(f"{name}_refused", f"{package}: {_line(err)}")


def build(library: Library) -> Callable[[Notes, Path], None]:
    """Give the step that builds an engine of each file."""

    def step(notes: Notes, work: Path) -> None:
        if library == "tensorrt":
            require_gpu()
        from edgeml.errors import ExportError

        try:
            from edgeml_export.to_engine import engine_from_onnx
        except ModuleNotFoundError as err:
            raise SkippedError("this edgeml has no builder of engines") from err
        for net, precision, path in _made(work):
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
            if library == "tensorrt_rtx" and _has_gpu():
                # A GPU that NVIDIA does not list may be refused: to be told, whatever comes of it.
                try:
                    engine_from_onnx(
                        path, _for_this_gpu(engine), library=library, capability="current"
                    )
                    notes.figure(f"{name}_for_this_gpu", "built")
                except ExportError as err:
                    notes.figure(f"{name}_for_this_gpu", _line(err))

    return step


def run_engines(library: Library) -> Callable[[Notes, Path], None]:
    """Give the step that runs the engines: numbers, batches, threads, latency, memory, refusals."""

    def step(notes: Notes, work: Path) -> None:
        require_gpu()
        import numpy as np

        from edgeml.errors import EngineMismatchError, ModelLoadError
        from edgeml.predictor import Predictor
        from edgeml.runtimes import open_runtime

        engines = [
            (net, precision, path, engine)
            for net, precision, path in _made(work)
            for engine in (_engine(path, library), _for_this_gpu(_engine(path, library)))
            if engine.exists()
        ]
        if not engines:
            raise SkippedError("no engine was built")
        free, ran = None, None
        for net, precision, path, engine in engines:
            name = f"{net}_{precision}" + "_for_this_gpu" * ("this_gpu" in engine.name)
            try:
                runtime = open_runtime(engine)
            except (EngineMismatchError, ModelLoadError) as err:
                notes.figure(f"{name}_refused", _line(err))
                continue
            notes.figure(f"{name}_runtime", [runtime.name, runtime.metadata.get("precision")])
            with Predictor(path) as here:
                batch = _batch(here, work)
                _agree(notes, name, precision, here, runtime, batch)
                _in_threads(notes, name, runtime, batch)
                _time(notes, name, runtime, batch)
            for count in BATCHES:
                part = runtime.run(batch[:count])
                whole = runtime.run(batch)[:count]
                close = np.allclose(part, whole, atol=TOLERANCE[precision] * np.abs(whole).max())
                notes.must(f"{name}: a batch of {count} says what {len(batch)} say", close)
            runtime.close()
            if ran is None:
                ran, free = (engine, batch), _free_memory()
        if ran is None or free is None:
            raise SkippedError("every engine was refused on this GPU, see the figures")
        _reopened(notes, *ran, free=free)
        _refused(notes, ran[0], work)

    return step


def trt_cache(notes: Notes, work: Path) -> None:
    """An .onnx with runtime="tensorrt": built at the first use, found again at the second."""
    require_gpu()
    from edgeml.predictor import Predictor

    for net, precision, path in _made(work):
        name, seconds, kept = f"{net}_{precision}", [], []
        for _ in range(2):
            begin = time.monotonic()
            with Predictor(path, runtime="tensorrt") as predictor:
                predictor.runtime.run(_batch(predictor, work)[:1])
            seconds.append(round(time.monotonic() - begin, 2))
            engines = (work / "cache").rglob("*.engine")
            kept.append({str(engine): engine.stat().st_mtime_ns for engine in engines})
        notes.figure(f"{name}_first_and_second_s", seconds)
        notes.must(f"{name}: the first use keeps an engine", bool(kept[0]))
        notes.must(f"{name}: the second use builds nothing", kept[0] == kept[1])


def require_gpu() -> None:
    """Skip a step where the driver shows no GPU.

    Raises:
        SkippedError: Says what the doctor says of the driver.
    """
    from edgeml.doctor_gpu import ask_driver, examine

    driver = ask_driver()
    if not driver.gpus:
        found = next(f for f in examine(driver) if f.name == "cuda driver")
        raise SkippedError(f"no NVIDIA GPU can be used: {found.detail}")


def _require_cuda_provider() -> None:
    from edgeml.errors import InputError
    from edgeml.runtimes.ort_providers import provider_for

    try:
        provider_for(DEVICE)
    except InputError as err:
        raise SkippedError(_line(err)) from err


def _agree(
    notes: Notes,
    name: str,
    precision: str,
    reference: Any,
    runtime: Any,
    batch: Any,
    *,
    told_only: bool = False,
) -> None:
    """Compare with the same file on the CPU: logits, and decisions where a network has learnt."""
    import numpy as np

    expected, got = reference.runtime.run(batch), runtime.run(batch)
    off = float(np.abs(got - expected).max() / np.abs(expected).max())
    flips = _flips(reference, expected, got)
    notes.figure(f"{name}_difference", off)
    notes.figure(f"{name}_flips_per_1000", flips)
    if told_only:
        return
    notes.must(f"{name}: logits within {TOLERANCE[precision]:g}", off <= TOLERANCE[precision])
    if name.startswith("cnn"):
        most = FLIPS[precision]
        notes.must(f"{name}: at most {most:g} of 1000 decisions differ", flips <= most)


def _in_threads(notes: Notes, name: str, runtime: Any, batch: Any) -> None:
    """Let 8 threads call 60 times each; compare with what one alone was told."""
    import numpy as np

    singles = [batch[row : row + 1] for row in range(len(batch))]
    alone = [runtime.run(single) for single in singles]
    bound = 1e-3 * float(np.abs(np.concatenate(alone)).max())

    def wrong(thread: int) -> int:
        rows = [(thread * 7 + call) % len(singles) for call in range(CALLS)]
        return sum(float(np.abs(runtime.run(singles[r]) - alone[r]).max()) > bound for r in rows)

    with ThreadPoolExecutor(8) as pool:
        count = sum(pool.map(wrong, range(8)))
    notes.must(f"{name}: 8 threads, {CALLS} calls each, none wrong", count == 0)


def _time(notes: Notes, name: str, runtime: Any, batch: Any) -> None:
    for count in (1, 8):
        given = batch[:count]
        notes.figure(f"{name}_batch{count}_ms", _latency(partial(runtime.run, given)))


def _reopened(notes: Notes, engine: Path, batch: Any, *, free: int) -> None:
    from edgeml.runtimes import open_runtime

    for _ in range(20):
        runtime = open_runtime(engine)
        runtime.run(batch[:1])
        runtime.close()
    left = _free_memory()
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
        notes.figure("changed_engine", _line(err))
        notes.must("a changed engine is refused", True)


def _made(work: Path) -> list[tuple[str, str, Path]]:
    """List the files that the step `models` left.

    Raises:
        SkippedError: None.
    """
    there = [(net, kind, work / name) for (net, kind), name in FILES.items()]
    there = [one for one in there if one[2].exists()]
    if not there:
        raise SkippedError("the step 'models' left no file")
    return there


def _engine(onnx: Path, library: Library) -> Path:
    return onnx.with_name(f"{onnx.stem}.{library}.engine")


def _for_this_gpu(engine: Path) -> Path:
    return engine.with_name(f"{engine.stem}.this_gpu.engine")


def _has_gpu() -> bool:
    from edgeml.runtimes import _cuda

    return _cuda.device_count() > 0


def _drawn(work: Path) -> Path:
    from edgeml.data import synthesize

    folder = work / "apparel"
    if not folder.exists():
        synthesize(folder, images=IMAGES, size=128, seed=7)
    return folder


def _batch(predictor: Any, work: Path) -> Any:
    """Prepare pictures as the model takes them: (60, 3, H, W)."""
    paths = sorted(_drawn(work).glob("*/*"))
    step = max(len(paths) // PICTURES, 1)
    return predictor.prepare([predictor.read(path) for path in paths[::step][:PICTURES]])


def _flips(predictor: Any, expected: Any, got: Any) -> float:
    from edgeml.metrics import decide

    before, after = (
        decide(predictor.probabilities(logits), predictor.spec) for logits in (expected, got)
    )
    return 1000 * float((before != after).mean())


def _latency(call: Callable[[], object], *, seconds: float = 1.0) -> dict[str, float]:
    """Time calls one by one, after a tenth of a second that does not count: milliseconds."""
    samples: list[float] = []
    begin = time.perf_counter()
    while len(samples) < 10 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        call()
        samples.append(1e3 * (time.perf_counter() - start))
    counted = samples[max(len(samples) // 10, 3) :]
    quantiles = statistics.quantiles(counted, n=20, method="inclusive")
    return {"calls": len(counted), "p50": round(quantiles[9], 4), "p95": round(quantiles[18], 4)}


def _synchronous(module: Any, given: Any) -> None:
    import torch

    module(given)
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def _no_tf32() -> None:
    with suppress(ImportError):
        import torch

        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False


def _free_memory() -> int:
    """Ask CUDA how many bytes of the GPU are free."""
    from edgeml.runtimes import _cuda

    cudart = _cuda.bindings()
    free, _ = _cuda.checked(cudart, cudart.cudaMemGetInfo())
    return int(free)


def _version(name: str) -> str | None:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return None


def _is_missing(err: ImportError) -> bool:
    return type(err).__name__ == "MissingDependencyError"


def _line(err: BaseException) -> str:
    return " ".join(str(err).split())


_FUNCTIONS: dict[str, Callable[[Notes, Path], None]] = {
    "machine": machine,
    "cuda": cuda,
    "torch": torch_,
    "train": train,
    "models": models,
    "ort-cuda": ort_cuda,
    "ort-graphs": ort_graphs,
    "ort-plugins": ort_plugins,
    "trt-rtx-build": build("tensorrt_rtx"),
    "trt-rtx-run": run_engines("tensorrt_rtx"),
    "trt-build": build("tensorrt"),
    "trt-run": run_engines("tensorrt"),
    "trt-cache": trt_cache,
}

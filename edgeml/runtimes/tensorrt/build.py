"""Build a TensorRT engine from ONNX, with TensorRT 10.3 to 11.x or TensorRT-RTX.

Networks are strongly typed: the engine computes in the types of the ONNX. So one way serves all
versions, without precision flags and calibrators, which TensorRT 11 has removed. TensorRT-RTX
builds without a GPU; TensorRT builds on the GPU that the engine is for.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeml.errors import ExportError, InputError, MissingDependencyError
from edgeml.files import staged
from edgeml.progress import SILENT, Advance, Progress
from edgeml.runtimes.external_weights import sha256_of_onnx
from edgeml.runtimes.model_files import staged_model
from edgeml.runtimes.onnx_batch import limit_batch
from edgeml.runtimes.onnx_classifier import as_classifier
from edgeml.runtimes.onnx_file import read_onnx, spec_of_onnx
from edgeml.runtimes.tensorrt import bindings, cuda
from edgeml.runtimes.tensorrt.build_steps import monitor_of
from edgeml.runtimes.tensorrt.engine_layers import (
    Layer,
    layers_of_inspector,
    layers_of_log,
    types_of,
)
from edgeml.runtimes.tensorrt.engine_options import EngineOptions, Profile, capabilities
from edgeml.runtimes.tensorrt.legality import Violation, refused_by_tensorrt
from edgeml.runtimes.tensorrt.passport import (
    NAMES,
    Library,
    Passport,
    Portable,
    write_passport,
)
from edgeml.spec.model_spec import ModelSpec

if TYPE_CHECKING:
    from edgeml.runtimes.tensorrt.bindings import LogLines
    from edgeml.runtimes.tensorrt.passport import Gpu

_log = logging.getLogger(__name__)

_HARDWARE: dict[Portable, str] = {
    "exact": "NONE",
    "same-capability": "SAME_COMPUTE_CAPABILITY",
    "ampere+": "AMPERE_PLUS",
    "version": "NONE",
}

DEFAULT_OPTIONS = EngineOptions()

# A machine without a driver adds this to reports of other errors.
_NO_DRIVER = re.compile(r"catchCudaError|ScopedCudaStream|cudaError 35")

# Some kernels multiply FP16 scales in FP32, with one such line for each layer.
_EXPECTED = re.compile(r"Converting conv (activation|weight) scales to fp32")


@dataclass(frozen=True, kw_only=True)
class Built:
    """An engine that was built.

    Attributes:
        passport: Written next to it.
        layers: Its layers; empty if TensorRT does not list them.
        warnings: TensorRT's warnings.
    """

    passport: Passport
    layers: tuple[Layer, ...]
    warnings: tuple[str, ...]


def engine_from_onnx(
    source: Path,
    target: Path,
    options: EngineOptions = DEFAULT_OPTIONS,
    *,
    library: Library = "tensorrt",
    timing_cache: Path | None = None,
    device: int = 0,
    spec: ModelSpec | None = None,
    progress: Progress = SILENT,
) -> Built:
    """Build an engine and write it with its passport: both or none.

    Ctrl-C ends the build at its next step and leaves no file.

    Args:
        source: An .onnx: FP32, FP16, or INT8 as Q/DQ nodes in TensorRT's layout.
        target: The .engine, a plan that `trtexec` reads too.
        options: How to build it.
        library: Which of the two libraries builds.
        timing_cache: A file for TensorRT's measurements, which makes the next build on this GPU
            quick; one from another GPU or version is not used. TensorRT-RTX measures nothing.
        device: The number of the GPU to build on, counted from 0.
        spec: Instead of the one inside the source.
        progress: Receives the steps of the build.

    Raises:
        MissingDependencyError: The library, cuda-bindings or onnx is not installed.
        ModelLoadError: The source is not ONNX, or TensorRT finds no GPU.
        SpecError: It has no spec inside, or one that does not fit.
        InputError: An option that the library does not support, or a target that cannot be written.
        ExportError: TensorRT would misread the file, cannot read it, or cannot build it.
    """
    trt = bindings.load(library, to="build TensorRT engines")
    model = read_onnx(source)
    spec = spec or spec_of_onnx(model, source)
    model = as_classifier(model, spec)
    with suppress(MissingDependencyError):
        limit_batch(model)
    check_legal(source.name, refused_by_tensorrt(model))
    needs_gpu = library == "tensorrt" or options.capability == "current"
    gpu = cuda.this_gpu(device) if needs_gpu else None  # before a TensorRT object exists
    job = _Job(
        trt=trt,
        library=library,
        source=source,
        network=model.SerializeToString(),
        options=options,
        timings=timing_cache if library == "tensorrt" else None,
        capability=capabilities(library, options.portable, options.capability),
        spec=spec,
        gpu=gpu,
        device=device,
        cancelled=threading.Event(),
    )
    plan, built = _build_in_thread(job, progress)
    with staged_model(target) as temporary:
        temporary.write_bytes(plan)
        write_passport(built.passport, temporary)
    return built


def check_legal(name: str, refused: Sequence[Violation]) -> None:
    """Refuse a file that TensorRT would misread or crash on.

    Raises:
        ExportError: Names the nodes, and what to do.
    """
    if not refused:
        return
    more = f" And {len(refused) - 3} more." if len(refused) > 3 else ""
    reasons = " ".join(map(str, refused[:3]))
    raise ExportError(
        f"{name} is not for TensorRT: {reasons}{more} Export its source with "
        "--fmt onnx --target tensorrt, or let --retarget rewrite Q/DQ nodes."
    )


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What to build, and with what."""

    trt: Any
    library: Library
    source: Path
    network: bytes
    options: EngineOptions
    timings: Path | None
    capability: tuple[str, ...]
    spec: ModelSpec
    gpu: Gpu | None
    device: int
    cancelled: threading.Event

    @property
    def name(self) -> str:
        return NAMES[self.library]


def _build_in_thread(job: _Job, progress: Progress) -> tuple[bytes, Built]:
    """Build in another thread, so that this one can react to Ctrl-C."""
    with (
        progress.task(f"Build with {NAMES[job.library]}", total=100, unit="%") as advance,
        ThreadPoolExecutor(1, thread_name_prefix="edgeml-build") as pool,
    ):
        building = pool.submit(_build, job, advance)
        try:
            return building.result()
        except BaseException:
            job.cancelled.set()
            raise


def _build(job: _Job, advance: Advance) -> tuple[bytes, Built]:
    """Parse, configure and build, all in one thread, because log lines are sorted by thread."""
    trt = job.trt
    # The builder stays with the GPU that its thread uses when it is created.
    on = nullcontext() if job.gpu is None else cuda.use(job.device)
    with on, bindings.captured_log(trt, verbose=job.library == "tensorrt_rtx") as log:
        builder = trt.Builder(bindings.logger(trt))
        # TensorRT 11 has no other networks, and ignores the flag; its value differs by version.
        typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = builder.create_network(typed)
        _parse(job, network)
        config = builder.create_builder_config()
        profile = _configure(job, builder, network, config)
        # The config holds the monitor without keeping it alive.
        config.progress_monitor = monitor = monitor_of(trt, job.cancelled, advance)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise _failure(job, log)
        advance(100 - monitor.shown)
        if job.timings is not None:
            _write_timings(config, job.timings)
        serialized = bytes(plan)
        warnings = dict.fromkeys(one for one in log.warnings if not _EXPECTED.search(one))
        layers = _layers(job, serialized, log)
        passport = _passport(job, network, profile, serialized, layers)
        return serialized, Built(passport=passport, layers=layers, warnings=tuple(warnings))


def _parse(job: _Job, network: Any) -> None:
    """Read the ONNX into the network.

    Raises:
        ExportError: TensorRT cannot read it; names the node and the reason.
    """
    parser = job.trt.OnnxParser(network, bindings.logger(job.trt))
    if parser.parse(job.network):
        if network.num_inputs and network.num_outputs:
            return
        raise ExportError(f"{job.name} finds no network in {job.source.name!r}.")
    errors = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        where = f"{error.node_name()} ({error.node_operator()}): " if error.node_name() else ""
        errors.append(f"{where}{_cleaned(error.desc())}")
    raise ExportError(
        f"{job.name} {job.trt.__version__} cannot read {job.source.name!r}: "
        f"{'; '.join(errors) or 'it gives no reason'}."
    )


def _configure(job: _Job, builder: Any, network: Any, config: Any) -> Profile:
    """Set the limits and the machines of the engine; return its profile.

    Raises:
        InputError: This version does not support an option.
        ExportError: TensorRT refuses the profile.
    """
    trt = job.trt
    # TF32, which is on by default, rounds FP32 products to 10 bits: FP32 engines would differ from
    # the file.
    config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    options = job.options
    if options.workspace_mb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    if job.timings is not None:
        _read_timings(config, job.timings)
    if job.library == "tensorrt_rtx":
        config.num_compute_capabilities = len(job.capability)
        for index, one in enumerate(job.capability):
            name = "CURRENT" if one == "current" else f"SM{one.replace('.', '')}"
            config.set_compute_capability(getattr(trt.ComputeCapability, name), index)
    elif options.portable != "exact":
        level = getattr(trt.HardwareCompatibilityLevel, _HARDWARE[options.portable], None)
        if level is None:
            raise InputError(
                f"TensorRT {trt.__version__} builds no {options.portable!r} engines; 10.16 does."
            )
        config.hardware_compatibility_level = level
        if options.portable == "version":
            config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    return _set_profile(job, builder, network, config)


def _set_profile(job: _Job, builder: Any, network: Any, config: Any) -> Profile:
    images = network.get_input(0)
    batch, *rest = tuple(images.shape)
    if batch > 0:
        return Profile(batch, batch, batch)
    sizes = job.options.profile
    profile = builder.create_optimization_profile()
    smallest, usual, largest = ((count, *rest) for count in (sizes.min, sizes.opt, sizes.max))
    profile.set_shape(images.name, smallest, usual, largest)
    if config.add_optimization_profile(profile) < 0:
        raise ExportError(f"{job.name} refuses batches of {sizes.min} to {sizes.max} images.")
    return sizes


def _read_timings(config: Any, path: Path) -> None:
    """Use the measurements of an earlier build, if there are any for this GPU."""
    timings = b""
    with suppress(OSError):  # there is no file yet, or it is not readable
        timings = path.read_bytes()
    cache = config.create_timing_cache(timings)
    if cache is None or not config.set_timing_cache(cache, False):  # damaged, or another GPU's
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _write_timings(config: Any, path: Path) -> None:
    """Write the measurements for the next build; this one does not need the file."""
    try:
        with staged(path) as temporary:
            temporary.write_bytes(bytes(config.get_timing_cache().serialize()))
    except (InputError, OSError) as err:
        _log.warning("TensorRT's measurements cannot be written to %s: %s", path, err)


def _failure(job: _Job, log: LogLines) -> ExportError:
    if job.cancelled.is_set():
        return ExportError(f"The build of {job.source.name!r} was cancelled.")
    errors = "; ".join(dict.fromkeys(filter(None, map(_cleaned, log.errors))))
    limited = job.options.workspace_mb and "workspace" in errors
    hint = " Increase --workspace." if limited else ""
    return ExportError(
        f"{job.name} {job.trt.__version__} cannot build {job.source.name!r}: "
        f"{errors or 'it gives no reason'}.{hint}"
    )


def _cleaned(message: str) -> str:
    """Remove lines about the missing driver, and positions in C++ files."""
    lines = [line for line in message.splitlines() if not _NO_DRIVER.search(line)]
    text = re.sub(r"\s*In \w+ at /_src/\S+", "", " ".join(lines or message.splitlines()))
    return re.sub(r"^Assertion failed: \S+: ", "", text).strip().rstrip(".")


def _layers(job: _Job, plan: bytes, log: LogLines) -> tuple[Layer, ...]:
    """List the engine's layers: an inspector needs a GPU, TensorRT-RTX's log does not."""
    if job.library == "tensorrt_rtx":
        return layers_of_log(text for _, text in log)
    runtime = job.trt.Runtime(bindings.logger(job.trt))
    if job.options.portable == "version":  # built here a moment ago, so it is trusted
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        return ()
    inspector = engine.create_engine_inspector()
    return layers_of_inspector(
        inspector.get_engine_information(job.trt.LayerInformationFormat.JSON)
    )


def _passport(
    job: _Job, network: Any, profile: Profile, plan: bytes, layers: tuple[Layer, ...]
) -> Passport:
    gpu, compiled = job.gpu, job.library == "tensorrt_rtx"
    here = (gpu.compute_capability,) if gpu else ()
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    outputs = [network.get_output(i) for i in range(network.num_outputs)]
    return Passport(
        library=job.library,
        version=str(job.trt.__version__),
        cuda=bindings.built_for_cuda(job.library),
        driver=gpu.driver if gpu else None,
        gpu=gpu.name if gpu else None,
        compute_capability=job.capability if compiled and job.capability != ("current",) else here,
        portable="same-capability" if compiled else job.options.portable,
        profile=(profile.min, profile.opt, profile.max),
        inputs=tuple(bindings.tensor_of(one.name, one.dtype, one.shape) for one in inputs),
        outputs=tuple(bindings.tensor_of(one.name, one.dtype, one.shape) for one in outputs),
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        plan_bytes=len(plan),
        onnx_sha256=sha256_of_onnx(job.source),
        precision=job.spec.precision,
        layers=types_of(layers),
        spec=job.spec,
    )

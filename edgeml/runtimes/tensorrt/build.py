"""ONNX to a TensorRT engine, by TensorRT 10.3 to 11.x or TensorRT-RTX; the one place that builds.

The types that the engine computes in are those of the ONNX: networks are strongly typed. So there
is no flag for a precision and no calibrator, which TensorRT 11 has no more, and one way for all.
TensorRT-RTX builds without a GPU; TensorRT builds on the GPU that the engine is for.
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
from typing import TYPE_CHECKING, Any, Literal

from edgeml.errors import (
    EdgemlError,
    ExportError,
    InferenceError,
    InputError,
    MissingDependencyError,
    ModelLoadError,
)
from edgeml.files import sha256_of_file, staged
from edgeml.progress import SILENT, Advance, Progress
from edgeml.runtimes.onnx_file import read_onnx, spec_of_onnx, staged_model
from edgeml.runtimes.tensorrt import bindings, cuda
from edgeml.runtimes.tensorrt.build_steps import monitor_of
from edgeml.runtimes.tensorrt.engine_layers import (
    Layer,
    layers_of_inspector,
    layers_of_log,
    types_of,
)
from edgeml.runtimes.tensorrt.legality import Violation, refused_by_tensorrt
from edgeml.runtimes.tensorrt.passport import (
    NAMES,
    Library,
    Passport,
    Portable,
    Tensor,
    check,
    write_passport,
)
from edgeml.spec.model_spec import ModelSpec

if TYPE_CHECKING:
    from edgeml.runtimes.tensorrt.bindings import Heard
    from edgeml.runtimes.tensorrt.passport import Gpu

_log = logging.getLogger(__name__)

PORTABLE_CAPABILITIES = ("8.0", "8.6", "8.9", "12.0")
"""What TensorRT-RTX compiles for if not told: Ampere, Ada and Blackwell. NVIDIA advises to build
for Turing (7.5) alone, since a common engine is slower (CPU-Only AOT and TensorRT-RTX Engines)."""

_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
"""All that TensorRT-RTX 1.7.1 has a name for, in its enum ComputeCapability: none for Hopper (9.0).
A GPU without one is for `current`, which TensorRT-RTX itself takes or refuses."""

_HARDWARE: dict[Portable, str] = {
    "exact": "NONE",
    "same-capability": "SAME_COMPUTE_CAPABILITY",
    "ampere+": "AMPERE_PLUS",
    "version": "NONE",
}

_IN_NUMPY = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "BOOL": "bool"}

# Every machine without a driver says so somewhere in a report that is about something else.
_NO_DRIVER = re.compile(r"catchCudaError|ScopedCudaStream|cudaError 35")

# That FP16 scales are multiplied in FP32 by some kernels, said once for each layer.
_EXPECTED = re.compile(r"Converting conv (activation|weight) scales to fp32")


@dataclass(frozen=True)
class Profile:
    """The batches that an engine takes, and the one that it is fastest with.

    Raises:
        InputError: They are not in order.
    """

    min: int = 1
    opt: int = 1
    max: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.opt <= self.max:
            raise InputError(
                f"The batches {self.min}, {self.opt}, {self.max} are not in order: "
                "expected 1 <= least <= usual <= greatest."
            )


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How an engine is built; see `engine_from_onnx`."""

    profile: Profile = Profile()
    workspace_mb: int | None = None
    portable: Portable = "exact"
    capability: tuple[str, ...] | Literal["current"] | None = None


@dataclass(frozen=True, kw_only=True)
class Built:
    """An engine that was built.

    Attributes:
        passport: What was written beside it.
        layers: Its layers; none where TensorRT does not tell.
        warnings: What TensorRT warned of.
    """

    passport: Passport
    layers: tuple[Layer, ...]
    warnings: tuple[str, ...]


def engine_from_onnx(
    source: Path,
    target: Path,
    *,
    library: Library = "tensorrt",
    profile: Profile = Profile(),
    workspace_mb: int | None = None,
    timing_cache: Path | None = None,
    portable: Portable = "exact",
    capability: Sequence[str] | Literal["current"] | None = None,
    device: int = 0,
    spec: ModelSpec | None = None,
    progress: Progress = SILENT,
) -> Built:
    """Build an engine, and write its passport beside it: both or none.

    Ctrl-C ends the build at its next step, and leaves nothing.

    Args:
        source: An .onnx: FP32, FP16, or INT8 as Q/DQ nodes in TensorRT's layout.
        target: The .engine, a plan that `trtexec` reads too.
        library: Which of the two builds.
        profile: Batches; a file whose batch is fixed has that one.
        workspace_mb: The most device memory that a layer may use besides its tensors, in MiB;
            None leaves it all.
        timing_cache: A file for what TensorRT measures, which makes the next build on this GPU
            quick; what another GPU or version measured is put aside. TensorRT-RTX measures nothing.
        portable: On which other machines a TensorRT engine runs; see `Passport`;
            the wider, the slower. `version` puts NVIDIA's runtime into the engine, as code that
            whoever loads it executes: for files that are trusted as programs are.
        capability: The GPUs that TensorRT-RTX compiles for, as `8.6`; `current`: the one here.
        device: Which of several GPUs is built on, counted from 0.
        spec: Instead of the one inside the source.
        progress: Where the work shows itself.

    Raises:
        MissingDependencyError: The library, cuda-bindings or onnx is not installed.
        ModelLoadError: The source is not ONNX, or TensorRT finds no GPU.
        SpecError: It has no spec inside.
        InputError: An argument that the library does not know, or a place that cannot be written.
        ExportError: TensorRT would misread the file, cannot read it, or cannot build it.
    """
    if workspace_mb is not None and workspace_mb < 1:
        raise InputError(f"A workspace of {workspace_mb} MiB is none; give 1 or more.")
    trt = bindings.load(library, to="build TensorRT engines")
    model = read_onnx(source)
    spec = spec or spec_of_onnx(model, source)
    check_legal(source.name, refused_by_tensorrt(model))
    gpu = _gpu(library, capability, device)
    job = _Job(
        trt=trt,
        library=library,
        source=source,
        profile=profile,
        workspace_mb=workspace_mb,
        timings=timing_cache if library == "tensorrt" else None,
        portable=portable,
        capability=capabilities(library, portable, capability),
        device=device if gpu else None,
        cancelled=threading.Event(),
    )
    # Built in a thread of its own, so that this one is free to hear Ctrl-C.
    with (
        progress.task(f"Build with {NAMES[library]}", total=100, unit="%") as advance,
        ThreadPoolExecutor(1, thread_name_prefix="edgeml-build") as pool,
    ):
        building = pool.submit(_build, job, advance)
        try:
            made = building.result()
        except BaseException:
            job.cancelled.set()
            raise
    passport = _passport(job, made, spec, gpu)
    with staged_model(target) as temporary:
        temporary.write_bytes(made.plan)
        write_passport(passport, temporary)
    return Built(passport=passport, layers=made.layers, warnings=made.warnings)


def why_not_here(passport: Passport) -> str | None:
    """Say why an engine cannot be run by edgeml on this machine; None if it can."""
    if passport.portable == "version":
        return "it is version-compatible: it runs code of its own, which is not edgeml's to trust"
    try:
        gpu = cuda.this_gpu()
        version = str(bindings.load(passport.library).__version__)
        check(passport, library=passport.library, version=version, gpu=gpu)
    except (MissingDependencyError, ModelLoadError, InferenceError) as err:
        return str(err)
    return None


def check_legal(name: str, refused: Sequence[Violation]) -> None:
    """Refuse a file that TensorRT would misread or crash on, by what `legality` found.

    Raises:
        ExportError: Names the nodes, and the way out.
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
    """What is to be built, and by what."""

    trt: Any
    library: Library
    source: Path
    profile: Profile
    workspace_mb: int | None
    timings: Path | None
    portable: Portable
    capability: tuple[str, ...]
    device: int | None
    cancelled: threading.Event

    @property
    def name(self) -> str:
        return NAMES[self.library]


@dataclass(frozen=True, kw_only=True)
class _Made:
    """What came of it."""

    plan: bytes
    profile: Profile
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    layers: tuple[Layer, ...]
    warnings: tuple[str, ...]


def _gpu(library: Library, capability: object, device: int) -> Gpu | None:
    """Describe the GPU that is built on, before a TensorRT object is made; None if none is needed.

    Raises:
        ModelLoadError: One is needed, and there is none.
    """
    if library == "tensorrt_rtx" and capability != "current":
        return None
    return cuda.this_gpu(device)


def capabilities(
    library: Library,
    portable: Portable,
    capability: Sequence[str] | Literal["current"] | None,
) -> tuple[str, ...]:
    """Say which GPUs TensorRT-RTX is to compile for; nothing for TensorRT.

    Raises:
        InputError: There is no such choice.
    """
    if library == "tensorrt":
        if capability is not None:
            raise InputError(
                "TensorRT builds for the GPU that it runs on: a compute capability can be chosen "
                "for TensorRT-RTX only (--fmt trt-rtx)."
            )
        return ()
    if portable != "exact":
        raise InputError(
            "An engine of TensorRT-RTX runs on all GPUs that it was compiled for: "
            f"choose these by their capability, and not {portable!r}."
        )
    if capability == "current":
        return ("current",)
    asked = PORTABLE_CAPABILITIES if capability is None else tuple(capability)
    for one in asked:
        if one not in _CAPABILITIES:
            raise InputError(
                f"TensorRT-RTX compiles for no compute capability {one!r} by name; known are "
                f"{', '.join(_CAPABILITIES)}, and, where the GPU is, current."
            )
    if not asked:
        raise InputError("At least one compute capability must be named.")
    return asked


def _build(job: _Job, advance: Advance) -> _Made:
    """Parse, configure, build; all in one thread, which TensorRT's messages are told apart by."""
    trt = job.trt
    # By this thread, and before the builder is made, which stays with its GPU.
    on = nullcontext() if job.device is None else cuda.use(job.device)
    with on, bindings.listening(trt, verbose=job.library == "tensorrt_rtx") as heard:
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
            raise _failure(job, heard)
        advance(100 - monitor.shown)
        if job.timings is not None:
            _keep_timings(config, job.timings)
        serialized = bytes(plan)
        warnings = dict.fromkeys(one for one in heard.warnings if not _EXPECTED.search(one))
        return _Made(
            plan=serialized,
            profile=profile,
            inputs=tuple(_tensor(network.get_input(i)) for i in range(network.num_inputs)),
            outputs=tuple(_tensor(network.get_output(i)) for i in range(network.num_outputs)),
            layers=_layers(job, serialized, heard),
            warnings=tuple(warnings),
        )


def _parse(job: _Job, network: Any) -> None:
    """Read the ONNX into the network.

    Raises:
        ExportError: TensorRT cannot; names the node and its reason.
    """
    parser = job.trt.OnnxParser(network, bindings.logger(job.trt))
    # From the file, not from bytes: weights that lie beside it are found so.
    if parser.parse_from_file(str(job.source)):
        if network.num_inputs and network.num_outputs:
            return
        raise ExportError(f"{job.name} finds no network in {job.source.name!r}.")
    told = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        where = f"{error.node_name()} ({error.node_operator()}): " if error.node_name() else ""
        told.append(f"{where}{_cleaned(error.desc())}")
    raise ExportError(
        f"{job.name} {job.trt.__version__} cannot read {job.source.name!r}: "
        f"{'; '.join(told) or 'it does not say why'}."
    )


def _configure(job: _Job, builder: Any, network: Any, config: Any) -> Profile:
    """Set what is built, within which limits, for which machines; give the profile that holds.

    Raises:
        InputError: This version does not know what is asked.
        ExportError: TensorRT refuses the profile.
    """
    trt = job.trt
    # On by default, TF32 rounds FP32 products to 10 bits: then FP32 engines differ from the file.
    config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if job.workspace_mb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, job.workspace_mb << 20)
    if job.timings is not None:
        kept = b""
        with suppress(OSError):  # there is none yet, or it may not be read
            kept = job.timings.read_bytes()
        cache = config.create_timing_cache(kept)
        if cache is None or not config.set_timing_cache(cache, False):  # damaged, or another GPU's
            config.set_timing_cache(config.create_timing_cache(b""), False)
    if job.library == "tensorrt_rtx":
        config.num_compute_capabilities = len(job.capability)
        for index, one in enumerate(job.capability):
            name = "CURRENT" if one == "current" else f"SM{one.replace('.', '')}"
            config.set_compute_capability(getattr(trt.ComputeCapability, name), index)
    elif job.portable != "exact":
        level = getattr(trt.HardwareCompatibilityLevel, _HARDWARE[job.portable], None)
        if level is None:
            raise InputError(
                f"TensorRT {trt.__version__} builds no {job.portable!r} engines; 10.16 does."
            )
        config.hardware_compatibility_level = level
        if job.portable == "version":
            config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    return _set_profile(job, builder, network, config)


def _set_profile(job: _Job, builder: Any, network: Any, config: Any) -> Profile:
    given = network.get_input(0)
    batch, *rest = tuple(given.shape)
    if batch > 0:
        return Profile(batch, batch, batch)
    asked = job.profile
    profile = builder.create_optimization_profile()
    least, usual, greatest = ((count, *rest) for count in (asked.min, asked.opt, asked.max))
    profile.set_shape(given.name, least, usual, greatest)
    if config.add_optimization_profile(profile) < 0:
        raise ExportError(f"{job.name} refuses batches of {asked.min} to {asked.max} images.")
    return asked


def _keep_timings(config: Any, path: Path) -> None:
    """Keep what was measured, for the next build; this one is good without."""
    try:
        with staged(path) as temporary:
            temporary.write_bytes(bytes(config.get_timing_cache().serialize()))
    except (InputError, OSError) as err:
        _log.warning("What TensorRT measured is not kept in %s: %s", path, err)


def _failure(job: _Job, heard: Heard) -> EdgemlError:
    if job.cancelled.is_set():
        return ExportError(f"The build of {job.source.name!r} was cancelled.")
    told = "; ".join(dict.fromkeys(filter(None, map(_cleaned, heard.errors))))
    hint = " Give it more with --workspace." if job.workspace_mb and "workspace" in told else ""
    return ExportError(
        f"{job.name} {job.trt.__version__} cannot build {job.source.name!r}: "
        f"{told or 'it does not say why'}.{hint}"
    )


def _cleaned(said: str) -> str:
    """Take out of a message what only says that this machine has no driver, and places in C++."""
    lines = [line for line in said.splitlines() if not _NO_DRIVER.search(line)]
    text = re.sub(r"\s*In \w+ at /_src/\S+", "", " ".join(lines or said.splitlines()))
    return re.sub(r"^Assertion failed: \S+: ", "", text).strip().rstrip(".")


def _layers(job: _Job, plan: bytes, heard: Heard) -> tuple[Layer, ...]:
    """List the engine's layers: an inspector needs a GPU, the log of TensorRT-RTX does not."""
    if job.library == "tensorrt_rtx":
        return layers_of_log(text for _, text in heard)
    runtime = job.trt.Runtime(bindings.logger(job.trt))
    # What was built a moment ago, here, needs no passport.
    if job.portable == "version":
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        return ()
    inspector = engine.create_engine_inspector()
    return layers_of_inspector(
        inspector.get_engine_information(job.trt.LayerInformationFormat.JSON)
    )


def _tensor(tensor: Any) -> Tensor:
    name = str(tensor.dtype.name)
    shape = tuple(None if one < 0 else int(one) for one in tuple(tensor.shape))
    return Tensor(name=tensor.name, dtype=_IN_NUMPY.get(name, name.lower()), shape=shape)


def _passport(job: _Job, made: _Made, spec: ModelSpec, gpu: Gpu | None) -> Passport:
    compiled = job.library == "tensorrt_rtx"
    here = (gpu.compute_capability,) if gpu else ()
    capability = job.capability if compiled and job.capability != ("current",) else here
    return Passport(
        library=job.library,
        version=str(job.trt.__version__),
        cuda=bindings.built_for_cuda(job.library),
        driver=gpu.driver if gpu else None,
        gpu=gpu.name if gpu else None,
        compute_capability=capability,
        portable="same-capability" if compiled else job.portable,
        profile=(made.profile.min, made.profile.opt, made.profile.max),
        inputs=made.inputs,
        outputs=made.outputs,
        plan_sha256=hashlib.sha256(made.plan).hexdigest(),
        plan_bytes=len(made.plan),
        onnx_sha256=sha256_of_file(job.source),
        precision=spec.precision,
        layers=types_of(made.layers),
        spec=spec,
    )

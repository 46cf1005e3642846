"""An export in progress, and its steps that write: FP32 ONNX first, then the types and format."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from edgeml.errors import ExportError, InputError, needs
from edgeml.files import user_cache
from edgeml.predict.predictor import Predictor
from edgeml.progress import Advance, Progress
from edgeml.runtimes.onnx_batch import limit_batch
from edgeml.runtimes.onnx_classifier import as_classifier
from edgeml.runtimes.onnx_file import read_onnx, spec_of_onnx, write_onnx
from edgeml.runtimes.protocol import FP16_ON_X86
from edgeml.runtimes.tensorrt.build import Built, check_legal, engine_from_onnx
from edgeml.runtimes.tensorrt.engine_layers import products_of
from edgeml.runtimes.tensorrt.legality import refused_by_tensorrt
from edgeml.runtimes.tensorrt.passport import NAMES, read_passport, write_passport
from edgeml.runtimes.tensorrt.runtime import incompatibility
from edgeml.spec.model_spec import ModelSpec, Precision
from edgeml.spec.storage import write_spec_into_xml
from edgeml_export.int8.legality import violations
from edgeml_export.int8.ranges import Ranges
from edgeml_export.int8.retarget import retargeted_from_onnx
from edgeml_export.int8.search import Choice
from edgeml_export.request import SUFFIXES, ExportRequest
from edgeml_export.roles import Roles

# Number of images that FP16 is tried on: a layer that overflows does so on most images.
_OVERFLOW_IMAGES = 64


class RecordingProgress(Progress):
    """Forwards everything, and records the notes for the report."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.notes: list[str] = []

    @contextmanager
    def task(self, name: str, total: int, unit: str = "img") -> Iterator[Advance]:
        """Forward a task."""
        with self._progress.task(name, total, unit) as advance:
            yield advance

    def note(self, text: str) -> None:
        """Record a note, and forward it."""
        self.notes.append(text)
        self._progress.note(text)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One export in progress.

    Attributes:
        source_precision: The precision of a source that is not converted, only built or rewritten.
        reference: The source, opened.
        roles: Which images calibrate, fit and check.
        folder: A temporary folder.
        progress: Where the work is shown; its notes go into the report.
        started: `time.monotonic()` at the start, in seconds.
    """

    request: ExportRequest
    source_precision: Precision | None
    reference: Predictor
    roles: Roles
    folder: Path
    progress: RecordingProgress
    started: float

    def file(self, step: str, suffix: str) -> Path:
        """Return the path of what a step writes; its name is the source's, for error messages."""
        folder = self.folder / step
        folder.mkdir(exist_ok=True)
        return folder / f"{self.request.source.resolve().stem or 'model'}{suffix}"


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """The measured ranges, and what was chosen with them."""

    ranges: Ranges
    choice: Choice


@dataclass(frozen=True, kw_only=True)
class EngineReport:
    """An engine that was built.

    Attributes:
        products: The number of its convolutions and matrix products by operator and type, see
            `products_of`.
        checked_by: What is compared with the source: the `engine`, or, without a GPU that runs
            it, its `onnx`, rounded as a GPU rounds.
    """

    built: Built
    products: Mapping[str, Mapping[str, int]]
    checked_by: Literal["engine", "onnx"]

    def sentence(self) -> str:
        """Return a line that names the library, the GPU, the batch sizes and the types."""
        counts = (
            f"{count} of {sum(types.values())} {kind} in {name}"
            for kind, types in self.products.items()
            for name, count in types.items()
        )
        passport = self.built.passport
        gpu = passport.gpu or f"compute capability {', '.join(passport.compute_capability)}"
        smallest, _, largest = passport.profile
        batches = f"batches of {smallest}" + (f" to {largest}" if largest > smallest else "")
        return (
            f"{NAMES[passport.library]} {passport.version} built for {gpu}, {batches}: "
            f"{', '.join(counts) or 'no layers'}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the value of `engine` in `edgeml export --json`."""
        passport = self.built.passport
        return {
            "library": passport.library,
            "version": passport.version,
            "gpu": passport.gpu,
            "compute_capability": list(passport.compute_capability),
            "portable": passport.portable,
            "profile": list(passport.profile),
            "bytes": passport.plan_bytes,
            "types": dict(passport.layers),
            "products": {kind: dict(types) for kind, types in self.products.items()},
            "layers": [layer.to_dict() for layer in self.built.layers],
            "warnings": list(self.built.warnings),
            "checked_by": self.checked_by,
        }


@dataclass(frozen=True, kw_only=True)
class Written:
    """The result `path`, still in the temporary folder, and the typed ONNX it was made from."""

    path: Path
    onnx: Path
    engine: EngineReport | None = None


def write_fp32(job: Job) -> Path:
    """Write the source as FP32 ONNX.

    Raises:
        ModelLoadError: The source cannot be read.
        ExportError: PyTorch cannot export it.
        MissingDependencyError: A library is not installed.
    """
    source, target = job.request.source, job.file("fp32", ".onnx")
    if source.suffix == ".onnx":
        # With the spec of the Predictor, which may come from a file next to the .onnx.
        spec = job.reference.spec
        network = as_classifier(read_onnx(source), spec)
        if limit_batch(network):
            job.progress.note(f"{source.name} runs with a batch of 1 only; so does its export.")
        write_onnx(network, target, spec)
        return target
    with (
        needs("torch", extra="export", to="export a checkpoint"),
        needs("timm", extra="export", to="export a checkpoint"),
        needs("onnx", extra="export", to="export a checkpoint"),
        needs("onnxruntime", extra="export", to="check an exported model"),
    ):
        from edgeml_export.to_onnx import onnx_from_checkpoint
    return onnx_from_checkpoint(source, target, input=job.request.input, slim=job.request.slim)


def rewrite_source(job: Job) -> Path:
    """Copy an .onnx that has the requested types already; with `retarget`, rewrite its Q/DQ nodes.

    Raises:
        ExportError: TensorRT would misread the file.
    """
    source, target = job.request.source, job.file("rewritten", ".onnx")
    spec = replace(job.reference.spec, precision=job.request.precision)
    if not job.request.retarget:
        network = as_classifier(read_onnx(source), spec)
        check_legal(source.name, refused_by_tensorrt(network))
        write_onnx(network, target, spec)
        return target
    changes = retargeted_from_onnx(source, target, spec)
    job.progress.note(
        f"Rewritten for TensorRT: {changes}."
        if changes
        else f"{source.name} suits TensorRT already: nothing was rewritten."
    )
    return target


def write_typed(job: Job, network: Path, quantization: Quantization | None) -> Path:
    """Write FP32 ONNX with the requested types, still as ONNX; INT8 needs a `quantization`.

    Raises:
        ExportError: The INT8 network does not suit its target.
    """
    typed = network if quantization is None else _write_int8(job, network, quantization)
    return _write_fp16(job, typed, fp32=network) if job.request.is_fp16 else typed


def _write_int8(job: Job, network: Path, quantization: Quantization) -> Path:
    with needs("onnx", extra="export", to="write INT8 models"):
        from edgeml_export.int8.to_int8 import int8_from_onnx
    layout = job.request.layout
    path = int8_from_onnx(
        network,
        job.file("int8", ".onnx"),
        quantization.ranges,
        layout=layout,
        method=quantization.choice.method,
        keep=quantization.choice.keep,
    )
    if faults := violations(read_onnx(path), layout):
        reasons = " ".join(map(str, faults[:3]))
        raise ExportError(f"The INT8 network does not suit {layout}: {reasons}")
    return path


def _write_fp16(job: Job, network: Path, *, fp32: Path) -> Path:
    """Write FP16, except for layers that overflow on the fitting images."""
    with needs("onnxruntime", extra="export", to="write FP16 models"):
        from edgeml_export.to_fp16 import fp16_from_onnx, overflows
    keep: set[str] = set()
    if job.roles.fitting is not None:
        spec = spec_of_onnx(read_onnx(fp32), fp32)
        frames = map(job.reference.read, job.roles.fitting.paths[:_OVERFLOW_IMAGES])
        keep = set(overflows(network, (spec.network_input([frame]) for frame in frames)))
    if keep:
        job.progress.note(f"{', '.join(sorted(keep))} overflow FP16, and stay FP32.")
    if job.request.precision == "fp16" and not job.request.library:
        job.progress.note(FP16_ON_X86)
    return fp16_from_onnx(network, job.file("fp16", ".onnx"), keep=keep)


def write_format(job: Job, network: Path) -> Written:
    """Write the requested format from ONNX of the requested types.

    Raises:
        ExportError: OpenVINO or TensorRT cannot convert it.
        MissingDependencyError: A library is not installed.
    """
    request = job.request
    target = job.file("result", SUFFIXES[request.file])
    if request.library:
        # The engine's passport names its source: a descriptive name instead of `fp16.onnx`.
        source = job.folder / "typed" / f"{request.path.stem}.onnx"
        source.parent.mkdir()
        shutil.copyfile(network, source)
        return Written(path=target, onnx=source, engine=_build_engine(job, source, target))
    if request.file == "openvino":
        with needs("openvino", extra="export", to="write OpenVINO models"):
            from edgeml_export.to_openvino import openvino_from_onnx
        openvino_from_onnx(network, target, fp16=request.precision == "fp16")
    else:
        shutil.copyfile(network, target)
    return Written(path=target, onnx=network)


def _build_engine(job: Job, source: Path, target: Path) -> EngineReport:
    """Build an engine with the timings that earlier builds on this machine measured."""
    library = job.request.library
    assert library is not None
    timings = None
    with suppress(InputError):  # there is no home to keep them in
        timings = user_cache("engines", extra="export") / f"{library}.timing"
    built = engine_from_onnx(
        source,
        target,
        job.request.engine,
        library=library,
        timing_cache=timings,
        progress=job.progress,
    )
    report = EngineReport(
        built=built,
        products=products_of(built.layers, read_onnx(source)),
        checked_by="engine" if incompatibility(built.passport) is None else "onnx",
    )
    job.progress.note(report.sentence())
    return report


def rewrite_spec(path: Path, spec: ModelSpec) -> None:
    """Replace the spec of a written .onnx, .xml or .engine, and leave its network as it is.

    Raises:
        ModelLoadError: The file cannot be read.
        InputError: It cannot be written.
        SpecError: An .xml has no spec to replace.
    """
    if path.suffix == ".onnx":
        write_onnx(read_onnx(path), path, spec)
        return
    if path.suffix == ".engine":
        write_passport(replace(read_passport(path), spec=spec), path)
        return
    write_spec_into_xml(path, spec)

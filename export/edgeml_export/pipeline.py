"""An export, step by step: open, write, compare, and only then name the file and report."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

from edgeml.benchmark.speedup import Speedup
from edgeml.data.framestore import cache_or_none
from edgeml.data.run_split import find_run_split
from edgeml.data.screen import without_unreadable
from edgeml.errors import needs
from edgeml.files import sha256_of_file
from edgeml.measure.compare import Fidelity, FidelityError, Recovery
from edgeml.network.card import licence_note
from edgeml.predict.predictor import Predictor
from edgeml.progress import SILENT, Progress
from edgeml.runtimes.model_files import staged_model
from edgeml.runtimes.onnx_file import read_onnx
from edgeml.runtimes.onnx_graph import IntegerLayers
from edgeml.runtimes.tensorrt.passport import passport_path
from edgeml.spec.model_spec import ModelSpec, Precision
from edgeml_export.check import Checked, check_model, measure_speed
from edgeml_export.int8.search import Candidates, Choice, choose_layers, choose_method
from edgeml_export.limits import Finding, joined
from edgeml_export.prerequisites import check_prerequisites, check_source, precision_of_source
from edgeml_export.report import write_report
from edgeml_export.request import ExportRequest, Format, RequestError
from edgeml_export.roles import Roles, assign_roles
from edgeml_export.serving import write_repository
from edgeml_export.write import (
    EngineReport,
    Job,
    Quantization,
    RecordingProgress,
    rewrite_source,
    rewrite_spec,
    write_format,
    write_fp32,
    write_typed,
)


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A model that was written.

    Attributes:
        path: The file. An .xml has its weights next to it, as .bin; an .engine its passport. For
            a server, the folder.
        sha256: The digest of the model file.
        checks: The comparison with its source; None if there were no images.
        recovery: What moving the thresholds recovers; None where they were not moved.
        choice: How INT8 ranges and layers were chosen; None for other precisions.
        layers: How many layers are INT8; None for other precisions.
        speed: The speed of INT8 against FP32 on this machine; None where it was not measured.
    """

    path: Path
    format: Format
    precision: Precision
    sha256: str
    checks: Fidelity | None
    recovery: Recovery | None = None
    choice: Choice | None = None
    layers: IntegerLayers | None = None
    speed: Speedup | None = None
    engine: EngineReport | None = None
    report: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what `edgeml export --json` prints."""
        return {
            "path": str(self.path),
            "format": self.format,
            "precision": self.precision,
            "sha256": self.sha256,
            "checks": self.checks and self.checks.to_dict(),
            "thresholds": self.recovery and _recovery_json(self.recovery),
            "int8": self._int8_json(),
            "speed": self.speed and self.speed.to_dict(),
            "engine": self.engine and self.engine.to_dict(),
            "report": self.report and str(self.report),
        }

    def _int8_json(self) -> dict[str, Any] | None:
        """Return the choice and the share of layers; there is no choice if the source was INT8."""
        if self.layers is None:
            return None
        chosen = (self.choice or Choice(method="minmax")).to_dict()
        return {
            **(chosen if self.choice else dict.fromkeys(chosen)),
            "int8_layers": self.layers.int8,
            "weighted_layers": self.layers.weighted,
        }


def _recovery_json(recovery: Recovery) -> dict[str, Any]:
    return {
        "images": recovery.images,
        "reference": recovery.before.to_dict()["metrics"],
        "unfitted": recovery.unfitted.to_dict()["metrics"],
        "fitted": recovery.fitted.to_dict()["metrics"],
    }


def export(source: Path, fmt: Format, *, progress: Progress = SILENT, **options: Any) -> Exported:
    """Write a model for a runtime, and compare it with its source before it gets its name.

    Args:
        source: A run folder of `edgeml train`, its .safetensors, or an .onnx.
        fmt: What to write: `onnx`, `openvino`, `trt`, `trt-rtx`, `triton` or `ovms`.
        progress: Where the work is shown.
        **options: The other attributes of `ExportRequest`, which explains them.

    Raises:
        EdgemlError: See `run_export`.

    Example:
        >>> from edgeml.data import read_dataset
        >>> data = read_dataset(Path("split.csv"))
        >>> exported = export(Path("model.onnx"), "openvino", precision="fp16", check=data)
        >>> exported.path.name, exported.checks.passed
        ('model.fp16.xml', True)
    """
    request = ExportRequest(source=source, fmt=fmt, **options)
    return run_export(request, progress=progress)


def run_export(request: ExportRequest, *, progress: Progress = SILENT) -> Exported:
    """Write a model for a runtime, and compare it with its source before it gets its name.

    Which images calibrate, fit and check is decided in `edgeml_export.roles`, the allowed
    differences in `edgeml_export.limits`. INT8 that exceeds them returns as few layers to
    floating point as needed. A report next to the result shows the comparison.

    Raises:
        InputError: The request contradicts itself, or the source does not allow it.
        MissingDependencyError: A library is not installed; names the extra.
        ModelLoadError: The source is missing or damaged.
        CalibrationError: INT8 has no images, or images that also check.
        DataError: Images for checking INT8 cannot be read.
        FidelityError: The result exceeds a limit. Only the report is written.
        ExportError: A step failed.
    """
    started = time.monotonic()
    source_precision = precision_of_source(request)
    check_prerequisites(request, source_precision)
    recording = RecordingProgress(progress)
    with Predictor(request.source) as reference, TemporaryDirectory() as folder:
        licence = reference.spec.provenance.weights_license
        if licence:
            recording.note(licence_note(licence))
        check_source(request, reference.spec, source_precision)
        job = Job(
            request=request,
            source_precision=source_precision,
            reference=reference,
            roles=_assign_roles(request, reference.spec, source_precision, recording),
            folder=Path(folder),
            progress=recording,
            started=started,
        )
        exported = _export(job)
    if exported.checks is None:
        progress.note(f"{request.path.name} was not compared with its source: no images given.")
    return exported


def _assign_roles(
    request: ExportRequest, spec: ModelSpec, source_precision: Precision | None, progress: Progress
) -> Roles:
    """Assign images to their roles, and check what would otherwise fail after minutes of work."""
    quantizes = request.precision == "int8" and source_precision is None
    roles = assign_roles(
        spec,
        request.calib if quantizes else None,
        request.check,
        run=find_run_split(request.source, spec),
        allow_overlap=request.allow_overlap,
        progress=progress,
    )
    if request.has_budget and not (roles.fitting or roles.reporting):
        raise RequestError(
            "A budget can only be checked on images: give --check DATA, or omit --max-drop and "
            "--max-label-drop.",
            "budget",
        )
    if quantizes and roles.reporting is not None:
        # The search for layers runs before the check and may take minutes.
        without_unreadable(roles.reporting, cache=cache_or_none(), progress=progress)
    return roles


def _export(job: Job) -> Exported:
    """Write, check, deliver and report."""
    request, quantization = job.request, None
    if job.source_precision:
        network = typed = rewrite_source(job)
    else:
        network = write_fp32(job)
        if request.precision == "int8":
            quantization = _choose_quantization(job, network)
        typed = write_typed(job, network, quantization)
    choice = quantization.choice if quantization else None
    layers = None
    if request.precision == "int8":
        layers = IntegerLayers.of(read_onnx(typed))
        job.progress.note(layers.sentence())
    written = write_format(job, typed)
    checked = check_model(job, written, choice)
    if checked.findings:
        _refuse(job, checked, choice, written.engine)
    rewrite_spec(written.path, checked.spec)
    speed = measure_speed(job, network, written)
    _deliver(request, written.path, checked.spec)
    return Exported(
        path=request.path,
        format=request.fmt,
        precision=request.precision,
        sha256=sha256_of_file(written.path),
        checks=checked.fidelity,
        recovery=checked.recovery,
        choice=choice,
        layers=layers,
        speed=speed,
        engine=written.engine,
        report=write_report(job, checked, choice=choice, engine=written.engine, speed=speed),
    )


def _choose_quantization(job: Job, network: Path) -> Quantization:
    """Measure ranges, or read stored ones; choose the method and the float layers by images."""
    with (
        needs("onnx", extra="export", to="write INT8 models"),
        needs("onnxruntime", extra="export", to="write INT8 models"),
    ):
        from edgeml_export.int8.ranges import measure_ranges
    request, fitting, progress = job.request, job.roles.fitting, job.progress
    ranges = measure_ranges(
        network, job.roles.calibration, cache=request.ranges_path, progress=progress
    )
    choice = Choice(method="minmax" if request.method == "auto" else request.method)
    if fitting is None:
        progress.note(
            f"There are no images to fit with: INT8 uses {choice.method} ranges, and thresholds "
            "and layers stay as they are. Data with a validation part provide them."
        )
        return Quantization(ranges=ranges, choice=choice)
    candidates = Candidates(network, ranges, request.layout, fitting, progress=progress)
    if request.method == "auto":
        choice = choose_method(candidates, progress=progress)
    try:
        choice = choose_layers(
            candidates, request.limits, choice, minutes=request.minutes, progress=progress
        )
    except FidelityError as err:
        findings = (Finding(code="budget", message=str(err)),)
        checked = Checked(spec=candidates.spec, fidelity=err.fidelity, findings=findings)
        err.report = write_report(job, checked, choice=choice)
        raise
    return Quantization(ranges=ranges, choice=choice)


def _refuse(
    job: Job, checked: Checked, choice: Choice | None, engine: EngineReport | None
) -> NoReturn:
    assert checked.fidelity is not None
    error = FidelityError(
        f"{job.request.path.name} disagrees with its source on {checked.fidelity.images} images: "
        f"{joined(checked.findings)}. Nothing was written.",
        checked.fidelity,
    )
    error.report = write_report(job, checked, choice=choice, engine=engine)
    raise error


def _deliver(request: ExportRequest, written: Path, spec: ModelSpec) -> None:
    """Copy the result to its path, completely or not at all."""
    path = request.path
    if request.fmt == "triton" or request.fmt == "ovms":
        name = path.stem if path.suffix == f".{request.fmt}" else path.name
        write_repository(written, spec, request.fmt, path, name=name)
        return
    with staged_model(path) as temporary:
        shutil.copyfile(written, temporary)
        if written.suffix == ".xml":
            shutil.copyfile(written.with_suffix(".bin"), temporary.with_suffix(".bin"))
        if written.suffix == ".engine":
            shutil.copyfile(passport_path(written), passport_path(temporary))

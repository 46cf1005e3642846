"""Which steps lead from a source to a format, and the comparison that ends each export."""

from __future__ import annotations

import math
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np

from edgeml.benchmark.speedup import Speedup, speedup
from edgeml.data import Dataset
from edgeml.data.framestore import cache_or_none
from edgeml.data.screen import without_unreadable
from edgeml.errors import ExportError, InputError, needs
from edgeml.files import sha256_of_file, user_cache
from edgeml.measure.compare import measure, run_both
from edgeml.measure.thresholds import carry_thresholds
from edgeml.network.card import licence_note
from edgeml.predict.predictor import Predictor
from edgeml.progress import SILENT, Progress
from edgeml.runtimes import RuntimeOptions, open_runtime
from edgeml.runtimes.onnx_file import read_onnx, spec_of_onnx, staged_model, write_onnx
from edgeml.runtimes.protocol import FP16_ON_X86
from edgeml.runtimes.tensorrt import cuda
from edgeml.runtimes.tensorrt.build import check_legal, engine_from_onnx
from edgeml.runtimes.tensorrt.engine_layers import products_of
from edgeml.runtimes.tensorrt.engine_options import EngineOptions, capabilities
from edgeml.runtimes.tensorrt.legality import refused_by_tensorrt
from edgeml.runtimes.tensorrt.passport import Library, passport_path, read_passport
from edgeml.runtimes.tensorrt.runtime import incompatibility
from edgeml.spec.model_spec import ModelSpec, Precision
from edgeml_export.engine_step import EngineReport
from edgeml_export.int8.histogram import Method
from edgeml_export.int8.legality import violations
from edgeml_export.int8.retarget import retargeted_from_onnx
from edgeml_export.int8.search import Candidates, Choice, choose_layers, choose_method
from edgeml_export.int8.targets import Target
from edgeml_export.limits import Limits, exceeded, judge, limits_for
from edgeml_export.plan import Plan, check_needs, check_place, check_source, made_before
from edgeml_export.report import Heard, Page, reported
from edgeml_export.result import (
    SUFFIXES,
    Exported,
    Format,
    Input,
    default_path,
    ranges_path,
    rewrite_spec,
)
from edgeml_export.roles import Roles, assign_roles

# How long FP32 and INT8 take turns.
_SPEED_SECONDS = 3.0

_BY_TWIN = "its ONNX, rounded to FP16 as a GPU would: no GPU that runs the engine is here"

# Images by which FP16 is tried for overflow: what overflows does so on most.
_OVERFLOW_TRIED_WITH = 64


def export(
    source: Path,
    fmt: Format,
    *,
    precision: Precision = "fp32",
    calib: Dataset | None = None,
    check: Dataset | None = None,
    max_drop: float | None = None,
    max_label_drop: float | None = None,
    target: Target | Literal["auto"] = "auto",
    method: Method | Literal["auto"] = "auto",
    input: Input = "float32",
    slim: bool = False,
    minutes: float = 10.0,
    allow_overlap: bool = False,
    retarget: bool = False,
    engine: EngineOptions | None = None,
    out: Path | None = None,
    progress: Progress = SILENT,
) -> Exported:
    """Write a model for a runtime, compare it with its source, and only then give it its name.

    Of data whose split is known, or that serve both ends, the train part calibrates, the
    validation part is what choices are made on, and the test part checks; see
    `edgeml_export.roles`. What is allowed to differ stands in `edgeml_export.limits`. INT8 that
    is outside of it gives the fewest layers back to floating point with which it is not. A page
    beside the result, `NAME.report.html`, shows the comparison.

    Args:
        source: A run folder of `edgeml train`, its .safetensors, or an FP32 .onnx. Engines are
            also built of an .onnx that is FP16 or INT8 already.
        fmt: What to write: `onnx`, `openvino`, an engine of TensorRT, `trt`, or of TensorRT-RTX,
            `trt-rtx`, or a model repository for the servers `triton` (with an .onnx) and `ovms`
            (with an .xml).
        precision: `fp32`, `fp16` or `int8`.
        calib: Images that INT8 ranges are measured on; None takes the ranges that an export
            before kept beside its result, `model.ranges.json`.
        check: Images to compare source and result on; None compares nothing, and says so.
        max_drop: Points of mAP that may be lost, instead of the precision's own limit.
        max_label_drop: Points of AP that any one label may lose.
        target: What an INT8 .onnx is laid out for; `auto` is `x86`.
        method: How INT8 ranges are taken; `auto` tries all, and is `minmax` with nothing to try on.
        input: `uint8` puts the normalisation inside: the model then takes raw frames.
        slim: Let onnxslim merge nodes.
        minutes: For the search for layers that stay in floating point.
        allow_overlap: Let images judge that were also chosen by; the model tells.
        retarget: Rewrite the Q/DQ nodes of an INT8 source so that TensorRT takes them.
        engine: How an engine is built.
        out: The file; None puts it beside the source, for example `model.int8.onnx`.
        progress: Where the work shows itself.

    Raises:
        InputError: An unknown format, precision or target, or a step that makes no sense.
        MissingDependencyError: A library is absent; names the extra.
        ModelLoadError: The source is missing or damaged.
        CalibrationError: INT8 without images, or with ones that also check.
        DataError: Images to check INT8 with cannot be read.
        FidelityError: The result differs by more than is allowed. No file is left but the report.
        ExportError: A step failed.
    """
    plan = Plan(fmt, precision, target, method, input, slim, minutes, retarget)
    path = out or default_path(source, fmt, precision)
    limits = limits_for(precision, max_drop=max_drop, max_label_drop=max_label_drop)
    made = made_before(source, plan)
    _check_engine(plan, engine or EngineOptions())
    check_needs(plan, calib, ranges_path(source, path, input), made)
    if source.exists():
        check_place(path, plan)
    heard = Heard(progress)
    with Predictor(source) as reference, TemporaryDirectory() as folder:
        licence = reference.spec.provenance.weights_license
        if licence:
            heard.note(licence_note(licence))
        check_source(source, reference.spec, plan, path, made)
        roles = assign_roles(
            reference.spec,
            calib if precision == "int8" and made is None else None,
            check,
            allow_overlap=allow_overlap,
            progress=heard,
        )
        if (max_drop, max_label_drop) != (None, None) and not (roles.fitting or roles.reporting):
            raise InputError(
                "A budget can only be held on images: give --check DATA, or leave --max-drop and "
                "--max-label-drop away."
            )
        if precision == "int8" and made is None and roles.reporting is not None:
            # The search before the check may take minutes: what would end it is found now.
            without_unreadable(roles.reporting, cache=cache_or_none(), progress=heard)
        job = _Job(plan, source, path, reference, roles, limits, Path(folder), heard, made, engine)
        page = Page(source=source, path=path, plan=plan, roles=roles, limits=limits, progress=heard)
        with reported(page):
            _write(plan, source, job.made, job, page)
            spec = _check(job, page)
            rewrite_spec(job.made, spec)
            page.speed = _speed(job)
            _deliver(job.made, spec, plan, path)
        digest = sha256_of_file(job.made)
    if page.fidelity is None:
        progress.note(f"{path.name} was not compared with its source: no images were given.")
    return Exported(
        path=path,
        format=fmt,
        precision=precision,
        sha256=digest,
        checks=page.fidelity,
        recovery=page.recovery,
        choice=page.choice,
        speed=page.speed,
        engine=page.engine,
        report=page.written,
    )


def _check_engine(plan: Plan, engine: EngineOptions) -> None:
    """Refuse, before any work, what cannot be said of an engine, or of what is none.

    Raises:
        InputError: The library knows no such choice, or no engine is built.
        ModelLoadError: It is to be for the GPU that is here, and none is.
    """
    if plan.library:
        capabilities(plan.library, engine.portable, engine.capability)
        if engine.capability == "current":
            cuda.this_gpu()
    elif engine != EngineOptions():
        raise InputError(
            f"{plan.fmt} is no engine: --batch, --portable, --capability and --workspace are for "
            "--fmt trt and trt-rtx."
        )


@dataclass(frozen=True)
class _Job:
    """What every step of one export needs.

    Attributes:
        plan: What to write.
        source: From what.
        path: Where to.
        reference: The source, opened.
        roles: The images.
        limits: What may differ.
        folder: For files that go when it is done.
        progress: Where the work shows itself.
        given: What the source is already, if it is to stay that.
        engine: How an engine is built.
    """

    plan: Plan
    source: Path
    path: Path
    reference: Predictor
    roles: Roles
    limits: Limits
    folder: Path
    progress: Progress
    given: Precision | None
    engine: EngineOptions | None

    @property
    def made(self) -> Path:
        """The result, until it is given its place."""
        return self.folder / f"model{SUFFIXES[self.plan.file]}"

    @property
    def network(self) -> Path:
        """The source as FP32 ONNX."""
        return self.folder / "fp32.onnx"

    @property
    def typed(self) -> Path:
        """The ONNX that an engine is built of, under a name that says what it is."""
        return self.folder / "typed" / f"{self.path.stem}.onnx"


def _write(plan: Plan, source: Path, target: Path, job: _Job, page: Page) -> None:
    """Go from the source to FP32 ONNX, and from there to what is wanted.

    Raises:
        FidelityError: INT8 cannot hold its budget.
        ExportError: A step failed.
    """
    network = _write_again(job) if job.given else _write_typed(plan, source, job, page)
    if plan.library:
        job.typed.parent.mkdir()
        shutil.copyfile(network, job.typed)
        page.engine = _build(job, plan.library)
    elif plan.file == "openvino":
        with needs("openvino", extra="export", to="write OpenVINO models"):
            from edgeml_export.to_openvino import openvino_from_onnx
        openvino_from_onnx(network, target, halve=plan.precision == "fp16")
    else:
        shutil.copyfile(network, target)


def _write_typed(plan: Plan, source: Path, job: _Job, page: Page) -> Path:
    """Write the source as ONNX of the types that are wanted."""
    _write_fp32(plan, source, job.network, job.reference.spec)
    network = job.network
    if plan.precision == "int8":
        network = _write_int8(job, page)
    return _write_fp16(network, job) if plan.half else network


def _write_again(job: _Job) -> Path:
    """Write a source that has its types already, with Q/DQ nodes that suit if it is asked for."""
    target, spec = job.folder / "again.onnx", job.reference.spec
    spec = replace(spec, precision=job.plan.precision)
    if not job.plan.retarget:
        network = read_onnx(job.source)
        check_legal(job.source.name, refused_by_tensorrt(network))
        write_onnx(network, target, spec)
        return target
    told = retargeted_from_onnx(job.source, target, spec)
    job.progress.note(
        f"Rewritten for TensorRT: {told}."
        if told
        else f"{job.source.name} suits TensorRT as it is: nothing was rewritten."
    )
    return target


def _build(job: _Job, library: Library) -> EngineReport:
    """Build the engine, with what was measured on this machine before."""
    built = engine_from_onnx(
        job.typed,
        job.made,
        job.engine or EngineOptions(),
        library=library,
        timing_cache=user_cache("engines", extra="export") / f"{library}.timing",
        progress=job.progress,
    )
    report = EngineReport(built=built, products=products_of(built.layers, read_onnx(job.typed)))
    job.progress.note(report.sentence())
    return report


def _write_fp32(plan: Plan, source: Path, target: Path, spec: ModelSpec) -> None:
    if source.suffix == ".onnx":
        # With the spec that the Predictor found, which may stand beside the file and not in it.
        write_onnx(read_onnx(source), target, spec)
        return
    with (
        needs("torch", extra="export", to="export a checkpoint"),
        needs("timm", extra="export", to="export a checkpoint"),
        needs("onnx", extra="export", to="export a checkpoint"),
        needs("onnxruntime", extra="export", to="check an exported model"),
    ):
        from edgeml_export.to_onnx import onnx_from_checkpoint
    onnx_from_checkpoint(source, target, input=plan.input, slim=plan.slim)


def _write_int8(job: _Job, page: Page) -> Path:
    """Measure ranges, or find them measured; choose by the fitting images; write Q/DQ nodes."""
    plan, roles = job.plan, job.roles
    with (
        needs("onnx", extra="export", to="write INT8 models"),
        needs("onnxruntime", extra="export", to="write INT8 models"),
    ):
        from edgeml_export.int8.ranges import measure_ranges
        from edgeml_export.int8.to_int8 import int8_from_onnx
    kept = ranges_path(job.source, job.path, plan.input)
    ranges = measure_ranges(job.network, roles.calibration, cache=kept, progress=job.progress)
    choice = Choice(method="minmax" if plan.method == "auto" else plan.method)
    if roles.fitting is None:
        job.progress.note(
            f"There are no images to fit with: INT8 takes {choice.method} ranges, and thresholds "
            "and layers stay as they are. Data with a validation side serve for it."
        )
    else:
        candidates = Candidates(
            job.network, ranges, plan.layout, roles.fitting, progress=job.progress
        )
        if plan.method == "auto":
            choice = choose_method(candidates, progress=job.progress)
        page.choice = choice  # what the report shows should the budget not be held
        choice = choose_layers(
            candidates, job.limits, choice, minutes=plan.minutes, progress=job.progress
        )
    page.choice = choice
    written = int8_from_onnx(
        job.network,
        job.folder / "int8.onnx",
        ranges,
        layout=plan.layout,
        method=choice.method,
        keep=choice.keep,
    )
    found = violations(read_onnx(written), plan.layout)
    if found:
        reasons = " ".join(map(str, found[:3]))
        raise ExportError(f"The INT8 network does not suit {plan.layout}: {reasons}")
    return written


def _write_fp16(network: Path, job: _Job) -> Path:
    """Write FP16, but for what overflows on the fitting images."""
    with needs("onnxruntime", extra="export", to="write FP16 models"):
        from edgeml_export.to_fp16 import fp16_from_onnx, overflows
    keep: set[str] = set()
    if job.roles.fitting is not None:
        with Predictor(job.network) as whole:
            paths = job.roles.fitting.paths[:_OVERFLOW_TRIED_WITH]
            batches = (whole.prepare([whole.read(path)]) for path in paths)
            keep = set(overflows(network, batches))
    if keep:
        job.progress.note(f"{', '.join(sorted(keep))} overflow FP16, and stay FP32.")
    if job.plan.precision == "fp16" and not job.plan.library:
        job.progress.note(FP16_ON_X86)
    return fp16_from_onnx(network, job.folder / "fp16.onnx", keep=keep)


@contextmanager
def _opened(job: _Job, page: Page) -> Iterator[Predictor]:
    """Open what was written, in the runtime that it is meant for if that is here.

    Of FP16 it is a twin that rounds as a GPU would: ONNX Runtime on x86 computes it in FP32. So it
    is of an engine, where no GPU is that runs it.
    """
    path, runtime = job.made, "openvino" if job.plan.layout == "openvino" else "auto"
    engine = page.engine
    if engine is not None:
        on_gpu = incompatibility(engine.built.passport) is None
        page.engine = replace(engine, checked_by="engine" if on_gpu else "onnx")
        page.facts["Checked"] = "the engine, on this machine's GPU" if on_gpu else _BY_TWIN
        path = job.made if on_gpu else job.typed
    if path.suffix == ".onnx" and (job.plan.half or engine is not None):
        from edgeml_export.to_fp16 import fp16_emulation_from_onnx

        path = fp16_emulation_from_onnx(path, job.folder / "twin.onnx")
    with Predictor(path, runtime=runtime) as predictor:
        yield predictor


def _check(job: _Job, page: Page) -> ModelSpec:
    """Move thresholds, compare what was written with its source; give the spec that says it.

    Raises:
        FidelityError: They differ by more than the limits allow.
    """
    spec, before = _spec_of(job), job.reference.spec
    provenance, roles = spec.provenance, job.roles
    page.facts["Exporter"] = provenance.exporter or "none: the source is ONNX"
    if roles.overlap:
        provenance = replace(provenance, overlap=roles.overlap)
    if page.choice is not None and page.choice.keep:
        provenance = replace(provenance, kept_in_float=tuple(sorted(page.choice.keep)))
    spec = replace(spec, provenance=provenance)
    with _opened(job, page) as candidate:
        move = job.plan.precision == "int8" and spec.activation == before.activation
        if move and roles.fitting is not None:
            fitted = run_both(job.reference, candidate, roles.fitting, progress=job.progress)
            moved = carry_thresholds(*fitted.scores(before, spec), before.thresholds)
            spec = replace(spec, thresholds=_where_they_decide(moved, before))
        if roles.reporting is None:
            return spec
        outputs = run_both(job.reference, candidate, roles.reporting, progress=job.progress)
    fidelity = measure(outputs, before, spec)
    page.scores = outputs.scores(before, spec)
    if move and roles.fitting is not None:
        from edgeml.measure.contents import Recovery

        unfitted = measure(outputs, before, replace(spec, thresholds=before.thresholds))
        page.recovery = Recovery(
            before=fidelity.reference,
            unfitted=unfitted.exported,
            fitted=fidelity.exported,
            images=len(roles.fitting),
            objective="the source's decisions",
        )
    page.findings = exceeded(fidelity, job.limits)
    page.fidelity = judge(fidelity, job.limits, job.path.name, progress=job.progress)
    summary = fidelity.exported.summary().items()
    return replace(spec, metrics={name: value for name, value in summary if not math.isnan(value)})


def _where_they_decide(moved: tuple[float, ...], spec: ModelSpec) -> tuple[float, ...]:
    """Take the moved thresholds, but for labels of which the best of a group is present anyway."""
    chosen = {name for group in spec.groups if group.rule == "one" for name in group.labels}
    if spec.task == "multiclass":
        chosen = set(spec.labels)
    return tuple(
        old if label in chosen else new
        for label, old, new in zip(spec.labels, spec.thresholds, moved, strict=True)
    )


def _spec_of(job: _Job) -> ModelSpec:
    """Read the spec of what was written."""
    if job.made.suffix == ".onnx":
        return spec_of_onnx(read_onnx(job.made), job.made)
    if job.plan.library:
        return read_passport(job.made).spec
    with Predictor(job.made, runtime="openvino") as written:
        return written.spec


def _speed(job: _Job) -> Speedup | None:
    """Let FP32 and INT8 take turns in the runtime that INT8 is for, if it runs on this machine."""
    layout = job.plan.layout
    if job.plan.precision != "int8" or not _runs_here(layout):
        return None
    runtime = "openvino" if layout == "openvino" else "onnxruntime"
    with Predictor(job.network) as whole:
        height, width = whole.spec.preprocess.size
        noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        batch = whole.prepare([noise])
    options = RuntimeOptions(runtime=runtime)
    slow, fast = (open_runtime(path, options) for path in (job.network, job.made))
    try:
        found = speedup(slow, fast, batch, seconds=_SPEED_SECONDS)
    finally:
        slow.close()
        fast.close()
    job.progress.note(found.sentence("INT8", "FP32"))
    return found


def _runs_here(layout: Target) -> bool:
    arm = platform.machine().lower() in ("aarch64", "arm64")
    return layout == "openvino" or layout == ("arm" if arm else "x86")


def _deliver(made: Path, spec: ModelSpec, plan: Plan, path: Path) -> None:
    """Give what was made its place and name: whole, or not at all."""
    if plan.fmt in ("triton", "ovms"):
        from edgeml_export.serving import write_repository

        server: Literal["triton", "ovms"] = "triton" if plan.fmt == "triton" else "ovms"
        name = path.stem if path.suffix == f".{plan.fmt}" else path.name
        write_repository(made, spec, server, path, name=name)
        return
    with staged_model(path) as temporary:
        shutil.copyfile(made, temporary)
        if made.suffix == ".xml":
            shutil.copyfile(made.with_suffix(".bin"), temporary.with_suffix(".bin"))
        if made.suffix == ".engine":
            shutil.copyfile(passport_path(made), passport_path(temporary))

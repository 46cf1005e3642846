"""Which steps lead from a source to a format, and the comparison that ends each export."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, get_args

from edgeml.compare import Fidelity, compare
from edgeml.data import Dataset, SplitPlan, known_split, split_dataset
from edgeml.data.framestore import usual_cache
from edgeml.errors import CalibrationError, DataError, ExportError, InputError, needs
from edgeml.files import sha256_of_file
from edgeml.predictor import Predictor
from edgeml.progress import SILENT, Progress
from edgeml.spec import ModelSpec, Precision
from edgeml.train.card import licence_note
from edgeml_export.artifact import (
    SUFFIXES,
    Exported,
    Format,
    default_path,
    read_onnx,
    rewrite_spec,
    staged_model,
    write_onnx,
)
from edgeml_export.calibration import Calibration, choose_calibration, refuse_overlap
from edgeml_export.limits import Limits, judge, limits_for

Target = Literal["auto", "x86", "openvino"]
Input = Literal["float32", "uint8"]


def export(
    source: Path,
    fmt: Format,
    *,
    precision: Precision = "fp32",
    calib: Dataset | None = None,
    check: Dataset | None = None,
    max_drop: float | None = None,
    max_label_drop: float | None = None,
    target: Target = "auto",
    input: Input = "float32",
    out: Path | None = None,
    progress: Progress = SILENT,
) -> Exported:
    """Write a model for a runtime, compare it with its source, and only then give it its name.

    Of data whose split is known, or that serve both ends, the train part calibrates and the test
    part checks; else all images do. What is allowed to differ stands in `edgeml_export.limits`.

    Args:
        source: A run folder of `edgeml train`, its .safetensors, or an FP32 .onnx.
        fmt: What to write: `onnx`, `openvino`, or `trt`.
        precision: `fp32`, `fp16` or `int8`.
        calib: Images that INT8 ranges are measured on.
        check: Images to compare source and result on; None compares nothing, and says so.
        max_drop: Points of mAP that may be lost, instead of the precision's own limit.
        max_label_drop: Points of AP that any one label may lose.
        target: What an INT8 .onnx is laid out for; `auto` is `x86`.
        input: `uint8` puts the normalisation inside: the model then takes raw frames.
        out: The file; None puts it beside the source, for example `model.int8.onnx`.
        progress: Where the work shows itself.

    Raises:
        InputError: An unknown format, precision or target, or a step that makes no sense.
        MissingDependencyError: A library is absent; names the extra.
        ModelLoadError: The source is missing or damaged.
        CalibrationError: INT8 without images, or with ones that also check.
        FidelityError: The result differs by more than is allowed. No file is left.
        ExportError: A step failed.
    """
    plan = _Plan(fmt, precision, target, input)
    _check_needs(plan, calib)
    with Predictor(source) as reference:
        licence = reference.spec.origin.get("weights_license")
        if licence:
            progress.note(licence_note(licence))
        path = out or default_path(source, fmt, precision)
        _check_source(source, reference.spec, plan, path)
        calibration, checked = _choose_images(
            reference.spec, calib if precision == "int8" else None, check, progress
        )
        checks = None
        with staged_model(path) as temporary:
            _write(plan, source, temporary, reference.spec, calibration, progress)
            if checked is not None:
                limits = limits_for(precision, max_drop=max_drop, max_label_drop=max_label_drop)
                checks = _check(plan, reference, temporary, checked, limits, progress)
    if checks is None:
        progress.note(f"{path.name} was not compared with its source: no images were given.")
    return Exported(
        path=path, format=fmt, precision=precision, sha256=sha256_of_file(path), checks=checks
    )


@dataclass(frozen=True)
class _Plan:
    """What is to be written.

    Raises:
        InputError: One of them is unknown, or they do not go together.
    """

    fmt: Format
    precision: Precision
    target: Target
    input: Input

    def __post_init__(self) -> None:
        for name, value, known in (
            ("format", self.fmt, get_args(Format)),
            ("precision", self.precision, get_args(Precision)),
            ("target", self.target, get_args(Target)),
            ("input", self.input, get_args(Input)),
        ):
            if value not in known:
                raise InputError(f"There is no {name} {value!r}; known are {', '.join(known)}.")
        if self.fmt == "openvino" and self.target == "x86":
            raise InputError("The format openvino has its own INT8 layout: leave --target away.")

    @property
    def layout(self) -> Literal["x86", "openvino"]:
        """How Q/DQ nodes are placed."""
        return "x86" if self.fmt == "onnx" and self.target != "openvino" else "openvino"


def _check_needs(plan: _Plan, calib: Dataset | None) -> None:
    """Refuse, before any work, what cannot end well."""
    if plan.fmt == "trt":
        with needs("tensorrt", extra="trt", to="build TensorRT engines"):
            import tensorrt  # noqa: F401
        raise ExportError(
            "This edgeml does not build engines yet: export --fmt onnx --precision fp16, then "
            "run trtexec --onnx=model.fp16.onnx --saveEngine=model.engine"
        )
    if plan.precision == "int8" and calib is None:
        raise CalibrationError(
            "INT8 needs images to measure the ranges of activations on: give --calib DATA; "
            "the data trained with do, of which the train part is used."
        )


def _check_source(source: Path, spec: ModelSpec, plan: _Plan, path: Path) -> None:
    """Refuse a step that has no meaning from this source.

    Raises:
        InputError: Says which step would have one.
    """
    if path.suffix != SUFFIXES[plan.fmt]:
        raise InputError(
            f"{path.name!r} is no name for {plan.fmt}: it must end in {SUFFIXES[plan.fmt]}."
        )
    if source.is_dir() or source.suffix == ".safetensors":
        return
    if source.suffix != ".onnx":
        raise InputError(f"Nothing leads on from {source.name!r}: give the run folder or an .onnx.")
    if spec.precision != "fp32":
        raise InputError(f"{source.name!r} is {spec.precision} already: start from the FP32 model.")
    if plan.fmt == "onnx" and plan.precision == "fp32":
        raise InputError(f"{source.name!r} is FP32 ONNX already.")
    if path.resolve() == source.resolve():
        raise InputError(f"{source.name!r} would be replaced: choose another name with --out.")
    if plan.input == "uint8" and spec.input != "uint8":
        raise InputError("The input of an .onnx stays as it is: give the run folder for uint8.")


def _choose_images(
    spec: ModelSpec, calib: Dataset | None, check: Dataset | None, progress: Progress
) -> tuple[Calibration | None, Dataset | None]:
    """Choose what calibrates and what checks, which have no image in common.

    Raises:
        CalibrationError: They have, or nothing is left to calibrate with.
        DataError: Nothing is left to check with.
    """
    together = calib is not None and check is not None and calib.paths == check.paths
    if calib is not None:
        calib = _part(calib, spec, "train", split_anyhow=together)
    if check is not None:
        check = _part(check, spec, "test", split_anyhow=together)
        if not len(check):
            raise DataError("The test part of the data to check with is empty.")
    if calib is None:
        return None, check
    calibration = choose_calibration(calib, spec.labels, progress=progress)
    if check is not None:
        refuse_overlap(calibration, check)
    return calibration, check


def _part(
    dataset: Dataset, spec: ModelSpec, part: Literal["train", "test"], *, split_anyhow: bool
) -> Dataset:
    """Take a part if the split is known, or made here; else all images."""
    divided = known_split(dataset, spec, cache=usual_cache())
    if divided is None and split_anyhow:
        divided = split_dataset(dataset, SplitPlan(), cache=usual_cache())
    return dataset if divided is None else divided.part(part)


def _write(
    plan: _Plan,
    source: Path,
    target: Path,
    spec: ModelSpec,
    calibration: Calibration | None,
    progress: Progress,
) -> None:
    """Go from the source to FP32 ONNX, and from there to what is wanted."""
    if plan.fmt == "onnx" and plan.precision == "fp32":
        _write_fp32(source, target, spec, plan.input)
        return
    with TemporaryDirectory() as folder:
        network = Path(folder) / f"{target.stem}.fp32.onnx"
        _write_fp32(source, network, spec, plan.input)
        if plan.precision == "int8":
            assert calibration is not None
            with needs("onnx", extra="export", to="write INT8 models"):
                from edgeml_export.to_int8 import int8_from_onnx, measure_ranges
            ranges = measure_ranges(network, calibration, progress=progress)
            integers = target if plan.fmt == "onnx" else Path(folder) / "int8.onnx"
            network = int8_from_onnx(network, integers, ranges, layout=plan.layout)
        elif plan.fmt == "onnx":
            with needs("onnxruntime", extra="export", to="write FP16 models"):
                from edgeml_export.to_fp16 import fp16_from_onnx
            fp16_from_onnx(network, target)
        if plan.fmt == "openvino":
            with needs("openvino", extra="export", to="write OpenVINO models"):
                from edgeml_export.to_openvino import openvino_from_onnx
            openvino_from_onnx(network, target, halve=plan.precision == "fp16")


def _write_fp32(source: Path, target: Path, spec: ModelSpec, input: Input) -> None:
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
    onnx_from_checkpoint(source, target, input=input)


def _check(
    plan: _Plan,
    reference: Predictor,
    written: Path,
    images: Dataset,
    limits: Limits,
    progress: Progress,
) -> Fidelity:
    """Compare what was written with its source; note in it what it is worth.

    Raises:
        FidelityError: They differ by more than the limits allow.
    """
    runtime = "openvino" if plan.layout == "openvino" else "auto"
    with Predictor(written, runtime=runtime) as candidate:
        fidelity = compare(reference, candidate, images, progress=progress)
        spec = candidate.spec
    fidelity = judge(fidelity, limits, written.name, progress=progress)
    metrics = {
        name: value for name, value in fidelity.exported.summary().items() if not math.isnan(value)
    }
    rewrite_spec(written, replace(spec, metrics=metrics))
    return fidelity

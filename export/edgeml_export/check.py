"""The step that compares the result with its source, after moving INT8 thresholds."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgeml.benchmark.speedup import Speedup, speedup
from edgeml.data import Dataset
from edgeml.measure.compare import Fidelity, Recovery, measure, run_both
from edgeml.measure.thresholds import transfer_thresholds
from edgeml.predict.predictor import Predictor
from edgeml.runtimes import RuntimeOptions, open_runtime
from edgeml.runtimes.onnx_file import read_onnx, spec_of_onnx
from edgeml.runtimes.tensorrt.passport import read_passport
from edgeml.spec.labels import Scores
from edgeml.spec.model_spec import ModelSpec
from edgeml_export.int8.search import Choice
from edgeml_export.limits import Finding, judge
from edgeml_export.write import Job, Written

SPEED_SECONDS = 3.0
"""How long FP32 and INT8 are timed in turns."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Checked:
    """The result of the comparison with the source; most is None or empty if there were no images.

    Attributes:
        spec: The spec of the result, with moved thresholds and measured metrics.
        fidelity: The comparison, with `passed`.
        findings: The limits that are exceeded.
        scores: (N, labels) probabilities of source and result.
        recovery: What moving the thresholds recovers; None where they were not moved.
    """

    spec: ModelSpec
    fidelity: Fidelity | None = None
    findings: tuple[Finding, ...] = ()
    scores: tuple[Scores, Scores] | None = None
    recovery: Recovery | None = None


def check_model(job: Job, written: Written, choice: Choice | None) -> Checked:
    """Move thresholds of INT8, then compare the result with its source on the reporting images.

    Raises:
        DataError: No reporting image shows any label.
        NotComparableError: The result does not give as many outputs as there are labels.
    """
    before, roles = job.reference.spec, job.roles
    spec = _spec_of(job, written, choice)
    fitting = roles.fitting
    if job.request.precision != "int8" or spec.activation != before.activation:
        fitting = None  # other precisions keep their thresholds
    with _opened(job, written) as candidate:
        if fitting is not None:
            spec = _with_moved_thresholds(job, candidate, spec, fitting)
        if roles.reporting is None:
            return Checked(spec=spec)
        outputs = run_both(job.reference, candidate, roles.reporting, progress=job.progress)
    fidelity = measure(outputs, before, spec)
    findings = judge(fidelity, job.request.limits, progress=job.progress)
    recovery = None
    if fitting is not None:
        recovery = Recovery(
            before=fidelity.reference,
            unfitted=measure(outputs, before, replace(spec, thresholds=before.thresholds)).exported,
            fitted=fidelity.exported,
            images=len(fitting),
            objective="the source's decisions",
        )
    metrics = fidelity.exported.summary().items()
    return Checked(
        spec=replace(
            spec, metrics={name: value for name, value in metrics if not math.isnan(value)}
        ),
        fidelity=replace(fidelity, passed=not findings),
        findings=findings,
        scores=outputs.scores(before, spec),
        recovery=recovery,
    )


def _spec_of(job: Job, written: Written, choice: Choice | None) -> ModelSpec:
    """Read the spec of the result, and add which images overlap and which layers stay float."""
    path = written.path
    if path.suffix == ".onnx":
        spec = spec_of_onnx(read_onnx(path), path)
    elif path.suffix == ".engine":
        spec = read_passport(path).spec
    else:
        with Predictor(path, runtime="openvino") as predictor:
            spec = predictor.spec
    provenance = replace(spec.provenance, overlap=job.roles.overlap or spec.provenance.overlap)
    if choice is not None and choice.keep:
        provenance = replace(provenance, kept_in_float=tuple(sorted(choice.keep)))
    return replace(spec, provenance=provenance)


@contextmanager
def _opened(job: Job, written: Written) -> Iterator[Predictor]:
    """Open the result in the runtime that it is meant for, if that is available here.

    FP16 ONNX is opened as a copy that rounds as a GPU does: ONNX Runtime on x86 computes it in
    FP32. So is the ONNX of an engine that no GPU here runs.
    """
    path, engine = written.path, written.engine
    if engine is not None and engine.checked_by == "onnx":
        path = written.onnx
    if path.suffix == ".onnx" and (job.request.is_fp16 or engine is not None):
        from edgeml_export.to_fp16 import fp16_emulation_from_onnx

        path = fp16_emulation_from_onnx(path, job.file("emulated", ".onnx"))
    runtime = "openvino" if job.request.layout == "openvino" else "auto"
    with Predictor(path, runtime=runtime) as predictor:
        yield predictor


def _with_moved_thresholds(
    job: Job, candidate: Predictor, spec: ModelSpec, fitting: Dataset
) -> ModelSpec:
    """Move thresholds to where the result decides as its source does.

    Labels of a group with rule `one` keep theirs: the best label is present whatever its score.
    """
    before = job.reference.spec
    outputs = run_both(job.reference, candidate, fitting, progress=job.progress)
    moved = transfer_thresholds(*outputs.scores(before, spec), before.thresholds)
    exclusive = {name for group in before.groups if group.rule == "one" for name in group.labels}
    if before.task == "multiclass":
        exclusive = set(before.labels)
    return replace(
        spec,
        thresholds=tuple(
            old if label in exclusive else new
            for label, old, new in zip(before.labels, before.thresholds, moved, strict=True)
        ),
    )


def measure_speed(job: Job, network: Path, written: Written) -> Speedup | None:
    """Time INT8 against FP32 in the runtime that INT8 is for; None if that is not on this machine.

    Raises:
        InferenceError: A runtime failed.
    """
    layout = job.request.layout
    native = "arm" if platform.machine().lower() in ("aarch64", "arm64") else "x86"
    if job.request.precision != "int8" or layout not in ("openvino", native):
        return None
    runtime = "openvino" if layout == "openvino" else "onnxruntime"
    spec = spec_of_onnx(read_onnx(network), network)
    noise = np.random.default_rng(0).integers(0, 256, (1, *spec.preprocess.size, 3), np.uint8)
    batch = spec.network_input_fitted(noise)
    options = RuntimeOptions(runtime=runtime)
    slow, fast = (open_runtime(path, options) for path in (network, written.path))
    try:
        result = speedup(slow, fast, batch, seconds=SPEED_SECONDS)
    finally:
        slow.close()
        fast.close()
    job.progress.note(result.sentence("INT8", "FP32"))
    return result

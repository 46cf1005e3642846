"""Whether a model file is sound, and whether it still gives the same labels as its source."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgeml.data import Dataset
from edgeml.errors import (
    EdgemlError,
    EngineMismatchError,
    InferenceError,
    InputError,
    MissingDependencyError,
    ModelLoadError,
    SpecError,
)
from edgeml.files import sha256_of_file
from edgeml.image.frame import Frame
from edgeml.measure.compare import Fidelity, Outputs, measure, run_both
from edgeml.measure.parts import choose_part
from edgeml.predict.inspection import model_files
from edgeml.predict.predictor import Predictor
from edgeml.progress import SILENT, Progress
from edgeml.runtimes.onnx_file import read_onnx
from edgeml.runtimes.tensorrt.passport import read_engine
from edgeml.runtimes.tensorrt.runtime import incompatibility
from edgeml.spec.labels import Scores
from edgeml.spec.model_spec import ModelSpec, quoted_names
from edgeml_export.int8.legality import violations
from edgeml_export.int8.targets import TARGETS, Target
from edgeml_export.limits import Finding, Limits, judge, limits_for

# Number of findings in the line of `sentence`.
_MAX_FINDINGS = 3
# FP16 may give a probability of 1.0005.
_ROUNDING = 1e-3
# Kernels are chosen by batch size and round differently, INT8 by a full step. An image that
# leaks into its neighbour moves it by as much as images differ from each other.
_BATCH_NOISE = 0.1
# Points of 100 that new thresholds may cost on images they were not fitted on. Less is noise of
# a few hundred images; thresholds of another model, or none, cost several times more.
_THRESHOLD_NOISE = 3.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Verification:
    """What is known about a model file.

    Attributes:
        spec: Its spec; None if it cannot be opened.
        scores: (N, labels) float32 probabilities of the source and of the model, if both were run.
        limits: The allowed differences; None if it cannot be opened.
        fidelity: The comparison with its source; None without one, or if there is nothing to
            compare.
        not_run: Why an engine was compared with its passport only; None if the model was run.
    """

    path: Path
    sha256: str
    findings: tuple[Finding, ...]
    spec: ModelSpec | None = None
    scores: tuple[Scores, Scores] | None = None
    limits: Limits | None = None
    fidelity: Fidelity | None = None
    not_run: str | None = None

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def sentence(self) -> str:
        """Return the verdict in one line."""
        if self.passed and self.not_run:
            return (
                f"{self.path.name} is intact and matches its passport; it was not run: "
                f"{self.not_run.rstrip('.')}."
            )
        if self.passed:
            return f"{self.path.name} is sound" + (
                f" and agrees with its source on {self.fidelity.images} images."
                if self.fidelity
                else "; it was not compared with a source."
            )
        messages = [finding.message for finding in self.findings]
        more = len(messages) - _MAX_FINDINGS
        also = f"; and {more} more (--json lists them)" if more > 0 else ""
        return f"{self.path.name} is not sound: {'; '.join(messages[:_MAX_FINDINGS])}{also}."

    def to_dict(self) -> dict[str, Any]:
        """Return what `edgeml verify --json` prints."""
        return {
            "path": str(self.path),
            "sha256": self.sha256,
            "precision": self.spec and self.spec.precision,
            "passed": self.passed,
            "findings": [finding.message for finding in self.findings],
            "checks": self.fidelity and self.fidelity.to_dict(),
            "not_run": self.not_run,
        }


def verify(
    model: Path,
    *,
    against: Path | None = None,
    data: Dataset | None = None,
    target: Target | None = None,
    max_drop: float | None = None,
    max_label_drop: float | None = None,
    progress: Progress = SILENT,
) -> Verification:
    """Check that a model file is sound and, with a source and images, gives the same labels.

    Sound: it opens, its spec fits its tensors, its Q/DQ nodes are legal, and its outputs are
    finite and independent of the batch. An engine for another machine is only compared with its
    passport. The same labels: within the limits of its precision (`edgeml_export.limits`), with
    labels, groups and thresholds that serve as well as the source's.

    Args:
        model: The file, in any format.
        against: The source.
        data: Labelled images; if their split is known, the test part is used.
        target: The device that its INT8 layout must suit; None accepts any of them.
        max_drop: Points of mAP that may be lost, instead of the limit of the precision.
        max_label_drop: Points of AP that any single label may lose.
        progress: Where the work is shown.

    Raises:
        ModelLoadError: A file is missing or damaged, or an engine to compare cannot run here.
        InputError: A source without data, or data without a source.
        MissingDependencyError: A runtime's library is not installed.
        DataError: The images do not suffice to judge.
    """
    if not model.exists():
        raise ModelLoadError(f"There is no model {str(model)!r}.")
    if (against is None) != (data is None):
        raise InputError("To compare with a source, give both: --against SOURCE --data DATA.")
    digest = sha256_of_file(model_files(model)[0])
    if model.suffix.lower() == ".engine":
        verification = _verify_passport(model, digest, compared=against is not None)
        if verification is not None:
            return verification
    try:
        opened = Predictor(model, runtime="openvino" if target == "openvino" else "auto")
    except (ModelLoadError, SpecError) as err:
        return Verification(path=model, sha256=digest, findings=(_finding("cannot-open", err),))
    with opened as candidate:
        spec = candidate.spec
        limits = limits_for(spec.precision, max_drop=max_drop, max_label_drop=max_label_drop)
        verification = Verification(
            path=model,
            sha256=digest,
            findings=(*output_faults(candidate), *qdq_violations(model, spec, target, progress)),
            spec=spec,
            limits=limits,
        )
        if not verification.passed or against is None or data is None:
            return verification
        with Predictor(against) as reference:
            return _compared(verification, reference, candidate, data, progress)


def _verify_passport(engine: Path, digest: str, *, compared: bool) -> Verification | None:
    """Compare an engine that cannot run here with its passport; return None if it can run."""
    try:
        passport, _ = read_engine(engine)
    except EngineMismatchError as err:
        return Verification(
            path=engine, sha256=digest, findings=(_finding(f"engine-{err.reason}", err),)
        )
    reason = incompatibility(passport)
    if reason is None:
        return None
    if compared:
        raise ModelLoadError(f"{engine.name} cannot be compared on this machine: {reason}")
    return Verification(path=engine, sha256=digest, findings=(), spec=passport.spec, not_run=reason)


def _compared(
    verification: Verification,
    reference: Predictor,
    candidate: Predictor,
    data: Dataset,
    progress: Progress,
) -> Verification:
    """Add the comparison of two models; models with different labels cannot be run together."""
    before, after = reference.spec, candidate.spec
    findings = spec_differences(before, after)
    if before.labels != after.labels:
        return replace(verification, findings=tuple(findings))
    assert verification.limits is not None
    images = choose_part(data, before, None, progress=progress)
    outputs = run_both(reference, candidate, images, progress=progress)
    fidelity = measure(outputs, before, after)
    findings += judge(fidelity, verification.limits, progress=progress)
    findings += _worse_thresholds(outputs, fidelity, before, after)
    return replace(
        verification,
        findings=tuple(findings),
        scores=outputs.scores(before, after),
        fidelity=replace(fidelity, passed=not findings),
    )


def output_faults(predictor: Predictor) -> list[Finding]:
    """Run a model on drawn images, alone and in pairs, and return what is wrong with its output."""
    frames = _draw_images()
    labels = len(predictor.spec.labels)
    try:
        alone = np.concatenate([predictor.logits([frame]) for frame in frames])
        findings = _shape_faults(alone, (len(frames), labels))
        if findings:
            return findings
        pairs = [predictor.logits(frames[i : i + 2]) for i in range(0, len(frames), 2)]
    except InferenceError as err:
        return [_finding("inference", err)]
    findings = _probability_faults(alone, predictor.spec)
    if findings:
        return findings
    together = np.concatenate(pairs)
    findings = _shape_faults(together, (len(frames), labels))
    if findings:
        return [replace(one, message=f"in a batch of two {one.message}") for one in findings]
    off = float(np.abs(together - alone).max())
    if off > _BATCH_NOISE * max(1.0, float(np.abs(alone).max())):
        message = f"the output for an image depends on its batch: it is off by {off:.2g}"
        return [Finding("batch", message)]
    return []


def qdq_violations(
    model: Path, spec: ModelSpec, target: Target | None, progress: Progress = SILENT
) -> list[Finding]:
    """Return what is wrong with the Q/DQ nodes of an .onnx for a target, or for the best target.

    Unless a target is named, what another tool wrote is only noted: such a file runs, if slower or
    less exactly than it could. So is it that a device lacks the library that reads the graph.

    Raises:
        MissingDependencyError: A target is named, and onnx is not installed.
    """
    if model.suffix.lower() != ".onnx":
        return []
    try:
        network = read_onnx(model)
    except MissingDependencyError as err:
        if target:
            raise
        progress.note(f"Its Q/DQ nodes were not checked. {err}")
        return []
    except ModelLoadError as err:  # the runtime reads it, but not as one file
        return [_finding("cannot-open", err)]
    targets = (target,) if target else TARGETS
    fewest = min((violations(network, one) for one in targets), key=len)
    if fewest and target is None and spec.provenance.quantizer is None:
        progress.note(f"{fewest[0]} Another tool has quantised this file; --target NAME checks it.")
        return []
    return [_finding(one.code, str(one)) for one in fewest]


def spec_differences(reference: ModelSpec, candidate: ModelSpec) -> list[Finding]:
    """Return where two specs decide differently, whatever the networks give."""
    if set(reference.labels) != set(candidate.labels):
        names = quoted_names(sorted(set(reference.labels) ^ set(candidate.labels)))
        return [Finding("labels", f"its labels are not those of its source: {names}")]
    if reference.labels != candidate.labels:
        moved = [
            f"{theirs!r} is at the position of {ours!r}"
            for ours, theirs in zip(reference.labels, candidate.labels, strict=True)
            if ours != theirs
        ]
        message = f"its labels are in another order than those of its source: {moved[0]}"
        return [Finding("label-order", message)]
    if reference.groups != candidate.groups:
        return [Finding("groups", "its groups of labels are not those of its source")]
    return []


def _worse_thresholds(
    outputs: Outputs, fidelity: Fidelity, reference: ModelSpec, candidate: ModelSpec
) -> list[Finding]:
    """Return whether its thresholds decide worse on its outputs than those of the source."""
    if candidate.thresholds == reference.thresholds:
        return []
    with_source_thresholds = replace(candidate, thresholds=reference.thresholds)
    before = measure(outputs, reference, with_source_thresholds).exported
    for name in ("macro_F1", "OF1", "exact_match"):
        own, theirs = (100 * metrics.summary()[name] for metrics in (fidelity.exported, before))
        if theirs - own > _THRESHOLD_NOISE:
            message = (
                "its thresholds are worse than those of its source: "
                f"{name} is {own:.1f} % instead of {theirs:.1f} %"
            )
            return [Finding("thresholds", message)]
    return []


def _probability_faults(outputs: Any, spec: ModelSpec) -> list[Finding]:
    """Check that a model without an activation to apply gives probabilities."""
    low, high = float(outputs.min()), float(outputs.max())
    if spec.activation != "none" or (low >= -_ROUNDING and high <= 1 + _ROUNDING):
        return []
    message = f"its spec promises probabilities, but its output is {low:.3g} to {high:.3g}"
    return [Finding("not-probabilities", message)]


def _shape_faults(outputs: Any, shape: tuple[int, int]) -> list[Finding]:
    """Check the shape, and that all values are finite."""
    if outputs.shape != shape:
        message = f"its output is {outputs.shape} for {shape[0]} images and {shape[1]} labels"
        return [Finding("output-shape", message)]
    broken = int((~np.isfinite(outputs)).any(axis=1).sum())
    if broken:
        message = f"for {broken} of {shape[0]} drawn images its output is NaN or infinity"
        return [Finding("not-finite", message)]
    return []


def _draw_images() -> list[Frame]:
    """Draw black, white, noise, shades, a shape, and saturated stripes: an even number."""
    rng = np.random.default_rng(0)
    size = (240, 320, 3)
    shades = np.linspace(0, 255, size[0] * size[1] * 3).reshape(size).astype(np.uint8)
    shape = np.full(size, 200, np.uint8)
    cv2.circle(shape, (170, 110), 70, (40, 60, 210), -1)
    stripes = np.zeros(size, np.uint8)
    for channel in range(3):
        stripes[:, channel::3, channel] = 255
    black, white = np.zeros(size, np.uint8), np.full(size, 255, np.uint8)
    return [black, white, rng.integers(0, 256, size, np.uint8), shades, shape, stripes]


def _finding(code: str, message: EdgemlError | str) -> Finding:
    """Return a finding whose message has no full stop, as a clause of a longer sentence."""
    return Finding(code, str(message).rstrip("."))

"""Whether a model file is sound, and whether it still means what its source does."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgeml.data import Dataset
from edgeml.errors import (
    EngineMismatchError,
    InferenceError,
    InputError,
    MissingDependencyError,
    ModelLoadError,
    SpecError,
)
from edgeml.files import sha256_of_file
from edgeml.image.frame import Frame
from edgeml.measure.compare import Fidelity, FidelityError, Outputs, measure, run_both
from edgeml.measure.evaluation import choose_part
from edgeml.predict.inspection import model_files
from edgeml.predict.predictor import Predictor
from edgeml.progress import SILENT, Progress
from edgeml.runtimes.onnx_file import read_onnx
from edgeml.runtimes.tensorrt.passport import read_engine
from edgeml.runtimes.tensorrt.runtime import incompatibility
from edgeml.spec.labels import Scores
from edgeml.spec.model_spec import ModelSpec
from edgeml_export.int8.legality import violations
from edgeml_export.int8.targets import TARGETS, Target
from edgeml_export.limits import Limits, exceeded, judge, limits_for

# Findings in the one line of `sentence`.
_MOST_TOLD = 3

# Of FP16: a probability may be 1.0005.
_ROUNDING = 1e-3

# Kernels are chosen by the size of a batch and round differently, INT8 by a whole step. An image
# that sees its neighbour moves by as much as images differ from each other.
_BATCH_NOISE = 0.1

# Points of 100 that new thresholds may cost on images they were not fitted on. Below this it is
# noise of some hundred images; thresholds of another model, or none, cost several times more.
_THRESHOLD_NOISE = 3.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Verification:
    """What was found out about a model file.

    Attributes:
        path: The file.
        sha256: Of the file.
        findings: What is wrong with it, a phrase each.
        spec: What it says of itself; None if it cannot be opened.
        scores: (N, labels) float32 probabilities of the source and of the model, if both were run.
        limits: What is allowed to it; None if it cannot be opened.
        fidelity: How it compares with its source; None without one, or if there is nothing to
            compare.
        not_run: Why an engine was compared with its passport only; None if the model was run.
    """

    path: Path
    sha256: str
    findings: tuple[str, ...]
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
        """Say in one line what was found."""
        if self.passed and self.not_run:
            return (
                f"{self.path.name} is whole and has its passport; it was not run: "
                f"{self.not_run.rstrip('.')}."
            )
        if self.passed:
            return f"{self.path.name} is sound" + (
                f" and agrees with its source on {self.fidelity.images} images."
                if self.fidelity
                else "; it was compared with no source."
            )
        told, more = self.findings[:_MOST_TOLD], len(self.findings) - _MOST_TOLD
        also = f"; and {more} more (--json lists them)" if more > 0 else ""
        return f"{self.path.name} does not hold: {'; '.join(told)}{also}."

    def to_dict(self) -> dict[str, Any]:
        """Give what `edgeml verify --json` prints."""
        return {
            "path": str(self.path),
            "sha256": self.sha256,
            "precision": self.spec and self.spec.precision,
            "passed": self.passed,
            "findings": list(self.findings),
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
    """Check that a model file is sound; with a source and images also that it means the same.

    Sound: it opens, its spec fits its tensors, its Q/DQ nodes are legal, and it gives finite
    numbers for pictures of every kind, alone or in a batch, and the same either way. Of an engine
    for another machine only its passport is compared with it. Meaning the same: within the limits
    of its precision (`edgeml_export.limits`), with labels, groups and thresholds that serve as well
    as the source's.

    Args:
        model: The file, of any format.
        against: The source.
        data: Labelled images; of a known split the test part is used.
        target: What its INT8 layout must suit; None is content with any of the targets. For
            `openvino` it is also run there.
        max_drop: Points of mAP that may be lost, instead of the precision's own limit.
        max_label_drop: Points of AP that any one label may lose.
        progress: Where the work shows itself.

    Raises:
        ModelLoadError: There is no such file, the source cannot be read, or an engine that is to
            be compared with one cannot be run here.
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
        told = _by_passport(model, digest, compared=against is not None)
        if told is not None:
            return told
    try:
        opened = Predictor(model, runtime="openvino" if target == "openvino" else "auto")
    except (ModelLoadError, SpecError) as err:
        return Verification(path=model, sha256=digest, findings=(_phrase(err),))
    with opened as candidate:
        findings = [*unsound(candidate), *qdq_violations(model, target, progress)]
        limits = limits_for(
            candidate.spec.precision, max_drop=max_drop, max_label_drop=max_label_drop
        )
        scores = fidelity = None
        if not findings and against is not None and data is not None:
            with Predictor(against) as reference:
                findings, outputs = _beside(reference, candidate, data, progress)
            if outputs:
                scores = outputs.scores(reference.spec, candidate.spec)
                fidelity, more = _judged(outputs, reference.spec, candidate.spec, limits, progress)
                findings += more
    return Verification(
        path=model,
        sha256=digest,
        findings=tuple(findings),
        spec=candidate.spec,
        scores=scores,
        limits=limits,
        fidelity=fidelity and replace(fidelity, passed=not findings),
    )


def _by_passport(engine: Path, digest: str, *, compared: bool) -> Verification | None:
    """Judge an engine that cannot be run here; None of one that can.

    Raises:
        ModelLoadError: It is to be compared with a source, and cannot be run.
    """
    try:
        passport, _ = read_engine(engine)
    except EngineMismatchError as err:
        return Verification(path=engine, sha256=digest, findings=(_phrase(err),))
    why = incompatibility(passport)
    if why is None:
        return None
    if compared:
        raise ModelLoadError(f"{engine.name} cannot be compared on this machine: {why}")
    return Verification(path=engine, sha256=digest, findings=(), spec=passport.spec, not_run=why)


def _beside(
    reference: Predictor, candidate: Predictor, data: Dataset, progress: Progress
) -> tuple[list[str], Outputs | None]:
    """Say where the specs part, and run both, if they are about the same labels."""
    findings = other_meaning(reference.spec, candidate.spec)
    if reference.spec.labels != candidate.spec.labels:
        return findings, None
    images = choose_part(data, reference.spec, None, progress=progress)
    return findings, run_both(reference, candidate, images, progress=progress)


def _judged(
    outputs: Outputs,
    reference: ModelSpec,
    candidate: ModelSpec,
    limits: Limits,
    progress: Progress,
) -> tuple[Fidelity, list[str]]:
    """Measure, and say which limits do not hold."""
    fidelity = measure(outputs, reference, candidate)
    with suppress(FidelityError):  # it says the same as a sentence about something written
        judge(fidelity, limits, "", progress=progress)
    findings = exceeded(fidelity, limits)
    return fidelity, [*findings, *_lost_thresholds(outputs, fidelity, reference, candidate)]


def unsound(predictor: Predictor) -> list[str]:
    """Run a model on drawn pictures, alone and in twos; say what is wrong with what it gives."""
    frames = _pictures()
    count = len(predictor.spec.labels)
    try:
        alone = np.concatenate([predictor.logits([frame]) for frame in frames])
        found = _not_finite(alone, (len(frames), count))
        if found:
            return found
        pairs = [predictor.logits(frames[i : i + 2]) for i in range(0, len(frames), 2)]
    except InferenceError as err:
        return [_phrase(err)]
    found = _no_probabilities(alone, predictor.spec)
    if found:
        return found
    together = np.concatenate(pairs)
    found = _not_finite(together, (len(frames), count))
    if found:
        return [f"in a batch of two {one}" for one in found]
    off = float(np.abs(together - alone).max())
    if off > _BATCH_NOISE * max(1.0, float(np.abs(alone).max())):
        return [f"a picture's output depends on what else is in its batch: it is off by {off:.2g}"]
    return []


def qdq_violations(model: Path, target: Target | None, progress: Progress = SILENT) -> list[str]:
    """Say what is wrong with the Q/DQ nodes of an .onnx, for a target or, unnamed, for the best.

    A device may lack the library that reads the graph: that is noted, unless a target is asked for.

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
        progress.note(f"Whether its Q/DQ nodes are legal was not looked at. {err}")
        return []
    except ModelLoadError as err:  # the runtime reads it, but not as one file
        return [_phrase(err)]
    asked = (target,) if target else TARGETS
    return [_phrase(found) for found in min((violations(network, one) for one in asked), key=len)]


def other_meaning(reference: ModelSpec, candidate: ModelSpec) -> list[str]:
    """Say where the words of two specs decide differently, whatever the networks give."""
    if set(reference.labels) != set(candidate.labels):
        named = sorted(set(reference.labels) ^ set(candidate.labels))
        return [f"it has not the labels of its source: they differ in {', '.join(named)}"]
    if reference.labels != candidate.labels:
        moved = [
            f"{theirs!r} stands where {ours!r} should"
            for ours, theirs in zip(reference.labels, candidate.labels, strict=True)
            if ours != theirs
        ]
        return [f"its labels are in another order than its source's: {moved[0]}"]
    if reference.groups != candidate.groups:
        return ["its groups of labels are not those of its source"]
    return []


def _lost_thresholds(
    outputs: Outputs, fidelity: Fidelity, reference: ModelSpec, candidate: ModelSpec
) -> list[str]:
    """Say whether its thresholds decide worse than the source's would on the same outputs."""
    if candidate.thresholds == reference.thresholds:
        return []
    by_source = replace(candidate, thresholds=reference.thresholds)
    before = measure(outputs, reference, by_source).exported
    for name in ("macro_F1", "OF1", "exact_match"):
        own, theirs = (100 * metrics.summary()[name] for metrics in (fidelity.exported, before))
        if theirs - own > _THRESHOLD_NOISE:
            return [
                f"its thresholds serve it worse than its source's would: {name} is {own:.1f} % "
                f"with them, {theirs:.1f} % with those"
            ]
    return []


def _no_probabilities(outputs: Any, spec: ModelSpec) -> list[str]:
    """Say where a model that leaves no activation to be applied gives no probabilities."""
    low, high = float(outputs.min()), float(outputs.max())
    if spec.activation != "none" or (low >= -_ROUNDING and high <= 1 + _ROUNDING):
        return []
    return [f"its spec says that it gives probabilities, but they are {low:.3g} to {high:.3g}"]


def _not_finite(outputs: Any, shape: tuple[int, int]) -> list[str]:
    if outputs.shape != shape:
        return [f"its output is {outputs.shape}, where {shape[1]} labels and {shape[0]} images are"]
    broken = int((~np.isfinite(outputs)).any(axis=1).sum())
    return (
        [f"for {broken} of {shape[0]} drawn pictures it gives what is no number"] if broken else []
    )


def _pictures() -> list[Frame]:
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


def _phrase(said: object) -> str:
    """Give an error, or a sentence, as a part of another."""
    return str(said).rstrip(".")

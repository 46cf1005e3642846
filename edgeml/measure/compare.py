"""How far two models disagree: in their input, in the tensor, in the labels, in the metrics."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeml.data import Dataset
from edgeml.errors import ExportError, InferenceError, MissingSpecError, NotComparableError
from edgeml.image.frame import Frame
from edgeml.image.reading import read_image
from edgeml.measure.bootstrap import Drops, drop_intervals
from edgeml.measure.evaluation import align_targets
from edgeml.measure.metrics import Metrics, evaluate
from edgeml.predict.predictor import Predictor
from edgeml.progress import SILENT, Progress
from edgeml.spec.decide import decide, probabilities
from edgeml.spec.labels import Scores, Targets
from edgeml.spec.model_spec import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
"""Shares of all outputs at which their difference is told."""

_BATCH = 32

Input = NDArray[np.float32] | NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class Outputs:
    """What two networks gave for the same images: to be measured, by other specs as well.

    Attributes:
        reference, candidate: (N, labels) float32, before what the specs' `activation` says is
            still to be applied. The reference's are finite, the candidate's perhaps not.
        targets: (N, labels) int8: 1 present, 0 absent, -1 unknown.
        inputs_equal: Images, 0 to N, for which both networks were given the same input.
        inputs_max_abs: The largest difference of any value of the inputs, normalised; infinite if
            their shapes differ.
    """

    reference: NDArray[np.float32]
    candidate: NDArray[np.float32]
    targets: Targets
    inputs_equal: int
    inputs_max_abs: float

    def scores(self, reference: ModelSpec, candidate: ModelSpec) -> tuple[Scores, Scores]:
        """Give the probabilities (N, labels) float32 of both; what is no number becomes one."""
        return (
            probabilities(self.reference, reference),
            probabilities(np.nan_to_num(self.candidate), candidate),
        )


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """How close a candidate is to its reference on the same images, at four levels.

    Preprocessing: the input of the networks, after normalisation. Of a network that takes raw
    frames it is what these mean by its spec, (frame / 255 - mean) / std, with the code that
    normalises for the other: so equal frames are equal inputs if the specs tell equal means and
    deviations. Whether the graph really does that, the other levels show.

    Attributes:
        images: How many, N.
        inputs_equal: Images, 0 to N, whose inputs are the same in every byte.
        inputs_max_abs: The largest difference of any value of the inputs, in units of the
            normalised input; 0 if all are equal, infinite if the shapes differ.
        max_abs, mean_abs: Tensor: absolute difference of the logits; of the probabilities where
            only one of the models gives logits. Infinite if the candidate gave what is no number.
        quantiles: Of that difference: `p50`, `p90`, `p99`, `p99.9`, each one that occurred.
        probability_mean_abs: Mean absolute difference of the probabilities, 0 to 1.
        label_flips_per_1000: Decision: labels present in one and absent in the other, of 1000
            decisions; each image is one decision a label.
        flips: Images on which a label flips, by label.
        reference, exported: Metric: what each model is worth on these images.
        drops: Points of AP (0 to 100) that the candidate loses, with 95 % intervals.
        passed: Whether this is within the limits that the caller set; None without limits.
    """

    images: int
    inputs_equal: int
    inputs_max_abs: float
    max_abs: float
    mean_abs: float
    quantiles: dict[str, float]
    probability_mean_abs: float
    label_flips_per_1000: float
    flips: dict[str, int]
    reference: Metrics
    exported: Metrics
    drops: Drops
    passed: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give all but the metrics by label, as JSON values; what is not finite becomes None."""
        return {
            "images": self.images,
            "inputs_equal": self.inputs_equal,
            "inputs_max_abs": _or_none(self.inputs_max_abs),
            "max_abs": _or_none(self.max_abs),
            "mean_abs": _or_none(self.mean_abs),
            "quantiles": {name: _or_none(value) for name, value in self.quantiles.items()},
            "probability_mean_abs": self.probability_mean_abs,
            "label_flips_per_1000": self.label_flips_per_1000,
            "flips": self.flips,
            "metrics": {
                "reference": self.reference.to_dict()["metrics"],
                "exported": self.exported.to_dict()["metrics"],
            },
            "drops": self.drops.to_dict(),
            "passed": self.passed,
        }


def compare(
    reference: Predictor, candidate: Predictor, dataset: Dataset, *, progress: Progress = SILENT
) -> Fidelity:
    """Show both models the same decoded images and measure how far they disagree.

    Raises:
        NotComparableError: The models differ in their labels, the data name others, or there is
            no image.
        InferenceError: The reference gave what is no number, or a network failed.
        ImageError: An image cannot be read.
    """
    outputs = run_both(reference, candidate, dataset, progress=progress)
    return measure(outputs, reference.spec, candidate.spec)


def run_both(
    reference: Predictor, candidate: Predictor, dataset: Dataset, *, progress: Progress = SILENT
) -> Outputs:
    """Run both models over all images, each decoded once.

    Each model prepares the frames by its own spec, so that a difference in preprocessing counts
    too. Where the specs prepare them alike that is done once, and the inputs are one and the same.

    Raises:
        NotComparableError: The models differ in their labels, the data name others, or there is
            no image.
        InferenceError: The reference gave what is no number, or a network failed.
        ImageError: An image cannot be read.
    """
    if reference.spec.labels != candidate.spec.labels:
        raise NotComparableError(
            f"The models name different labels, or in another order: "
            f"{', '.join(reference.spec.labels)} and {', '.join(candidate.spec.labels)}."
        )
    if not len(dataset):
        raise NotComparableError("There is no image to compare the models on.")
    targets = align_targets(dataset, reference.spec)
    first, second = reference.spec, candidate.spec
    same_input = all(
        getattr(first, name) == getattr(second, name)
        for name in ("preprocess", "input", "channels_last", "raw_channels")
    )
    expected, got, equal, furthest = [], [], 0, 0.0
    with progress.task("compare", total=len(dataset)) as advance:
        for frames in _decoded(dataset.paths, first, second):
            batch = reference.prepare(frames)
            other = batch if same_input else candidate.prepare(frames)
            expected.append(_run(reference, batch))
            got.append(_run(candidate, other))
            distance = np.zeros(len(frames)) if same_input else _apart(first, batch, second, other)
            equal += int((distance == 0).sum())
            furthest = max(furthest, float(distance.max()))
            advance(len(frames))
    outputs = Outputs(
        reference=np.concatenate(expected),
        candidate=np.concatenate(got),
        targets=targets,
        inputs_equal=equal,
        inputs_max_abs=furthest,
    )
    if not np.isfinite(outputs.reference).all():
        raise InferenceError("The reference gave a score that is not a finite number.")
    return outputs


def measure(outputs: Outputs, reference: ModelSpec, candidate: ModelSpec) -> Fidelity:
    """Measure how far outputs disagree, by the activations, thresholds and groups of the specs.

    The networks are not needed again: other thresholds are another call.
    """
    before, after = outputs.scores(reference, candidate)
    flipped = decide(before, reference) != decide(after, candidate)
    difference = _difference(outputs, before, after, reference.activation == candidate.activation)
    return Fidelity(
        images=len(outputs.targets),
        inputs_equal=outputs.inputs_equal,
        inputs_max_abs=outputs.inputs_max_abs,
        max_abs=float(difference.max()),
        mean_abs=float(difference.mean()),
        quantiles={
            # A value that occurred: between a finite and an infinite one there is none.
            name: float(np.quantile(difference, share, method="inverted_cdf"))
            for name, share in QUANTILES.items()
        },
        probability_mean_abs=float(np.abs(before.astype(np.float64) - after).mean()),
        label_flips_per_1000=1000 * float(flipped.mean()),
        flips=dict(zip(reference.labels, flipped.sum(axis=0).tolist(), strict=True)),
        reference=evaluate(before, outputs.targets, reference),
        exported=evaluate(after, outputs.targets, candidate),
        drops=drop_intervals(before, after, outputs.targets, reference.labels),
    )


@contextmanager
def both_open(
    reference: Path, candidate: Path, *, progress: Progress = SILENT
) -> Iterator[tuple[Predictor, Predictor]]:
    """Open two models; one that says nothing of itself is taken at the other's word.

    So a file that another tool wrote can be compared, if its shapes fit; that is noted.

    Raises:
        SpecError: Neither carries a spec, or the one that there is does not fit both.
        ModelLoadError: One is missing, damaged, or of a kind that no runtime reads.
        MissingDependencyError: A runtime's library is not installed.
    """
    with ExitStack() as stack:
        try:
            first = stack.enter_context(Predictor(reference))
        except MissingSpecError:
            second = stack.enter_context(Predictor(candidate))
            first = stack.enter_context(_at_word_of(second, candidate, reference, progress))
            yield first, second
            return
        try:
            second = stack.enter_context(Predictor(candidate))
        except MissingSpecError:
            second = stack.enter_context(_at_word_of(first, reference, candidate, progress))
        yield first, second


def _at_word_of(known: Predictor, told_by: Path, bare: Path, progress: Progress) -> Predictor:
    """Open a model without a spec by that of another."""
    opened = Predictor(bare, spec=known.spec)
    progress.note(
        f"{bare.name} says nothing of its labels and preprocessing: "
        f"it is taken to mean what {told_by.name} does."
    )
    return opened


def _decoded(paths: Sequence[Path], first: ModelSpec, second: ModelSpec) -> Iterator[list[Frame]]:
    """Decode batches of images, large enough for both; two threads do."""
    sizes = zip(first.preprocess.min_decode_size, second.preprocess.min_decode_size, strict=True)
    height, width = (max(pair) for pair in sizes)

    def read(path: Path) -> Frame:
        return read_image(path, at_least=(height, width))

    with ThreadPoolExecutor(max_workers=2) as pool:
        for start in range(0, len(paths), _BATCH):
            yield list(pool.map(read, paths[start : start + _BATCH]))


def _run(predictor: Predictor, batch: Input) -> NDArray[np.float32]:
    """Run one network.

    Raises:
        NotComparableError: Its output is not one number for each label.
    """
    output = predictor.infer(batch)
    if output.shape != (len(batch), len(predictor.spec.labels)):
        raise NotComparableError(
            f"For {len(batch)} images {predictor.runtime.name} gave an output of shape "
            f"{output.shape}; {len(predictor.spec.labels)} labels are known. "
            "The spec is not that of this network."
        )
    return output


def _apart(first: ModelSpec, batch: Input, second: ModelSpec, other: Input) -> NDArray[np.float32]:
    """Give the largest difference of two inputs, normalised, by image: (N,)."""
    a, b = first.normalized_input(batch), second.normalized_input(other)
    if a.shape != b.shape:
        return np.full(len(a), np.inf, np.float32)
    apart: NDArray[np.float32] = np.abs(a - b).max(axis=(1, 2, 3))
    return apart


def _difference(
    outputs: Outputs, before: Scores, after: Scores, same_activation: bool
) -> NDArray[np.float64]:
    """Give |reference - candidate| (N, labels): of the outputs, or of what they mean.

    A candidate that gives what is no number is compared too: as infinitely far away.
    """
    first, second = (outputs.reference, outputs.candidate) if same_activation else (before, after)
    with np.errstate(invalid="ignore"):
        difference: NDArray[np.float64] = np.abs(first.astype(np.float64) - second)
    difference[~np.isfinite(outputs.candidate)] = np.inf
    return difference


def _or_none(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None


class FidelityError(ExportError):
    """The exported model disagrees with its source by more than is allowed.

    Attributes:
        fidelity: What the comparison found.
        report: The page that shows it, if one was written.
    """

    exit_status = 1

    def __init__(self, message: str, fidelity: Fidelity) -> None:
        super().__init__(message)
        self.fidelity = fidelity
        self.report: Path | None = None

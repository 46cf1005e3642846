"""How far two models disagree: in their inputs, outputs, decisions and metrics."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.data import Dataset
from edgeml.errors import ExportError, InferenceError, MissingSpecError, NotComparableError
from edgeml.image.frame import Frame
from edgeml.image.reading import read_image
from edgeml.measure.bootstrap import ApLosses, drop_intervals
from edgeml.measure.evaluation import align_targets
from edgeml.measure.metrics import Metrics, evaluate
from edgeml.predict.predictor import Predictor
from edgeml.progress import SILENT, Progress
from edgeml.spec.decide import decide, probabilities
from edgeml.spec.labels import Scores, Targets
from edgeml.spec.model_spec import ModelSpec, quoted_names

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
"""The quantiles of the difference of outputs that are reported."""

_BATCH = 32

Input = NDArray[np.float32] | NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class Outputs:
    """The outputs of two networks for the same images, which can be measured by several specs.

    Attributes:
        reference, candidate: (N, labels) float32, before the `activation` of the specs. Those of
            the reference are finite, those of the candidate may be NaN or infinity.
        targets: (N, labels) int8: 1 present, 0 absent, -1 unknown.
        inputs_equal, inputs_max_abs: As in `Fidelity`.
    """

    reference: NDArray[np.float32]
    candidate: NDArray[np.float32]
    targets: Targets
    inputs_equal: int
    inputs_max_abs: float

    def scores(self, reference: ModelSpec, candidate: ModelSpec) -> tuple[Scores, Scores]:
        """Return the probabilities (N, labels) float32 of both; NaN becomes a finite number."""
        return (
            probabilities(self.reference, reference),
            probabilities(np.nan_to_num(self.candidate), candidate),
        )


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """How close a candidate is to its reference on the same images, at four levels.

    The inputs are compared after normalisation. If a network takes raw frames, they are normalised
    as its spec states, (frame / 255 - mean) / std, by the code that prepares the other network's
    input. The other levels show whether the graph really does the same.

    Attributes:
        images: The number of images, N.
        inputs_equal: Preprocessing: the number of images whose inputs are the same in every byte.
        inputs_max_abs: The largest difference of any value of the inputs, in units of the
            normalised input; 0 if all are equal, infinite if the shapes differ.
        max_abs, mean_abs: Tensor: the absolute difference of the logits, or of the probabilities
            if only one of the models returns logits. Infinite if the candidate returned NaN or
            infinity.
        quantiles: `p50`, `p90`, `p99` and `p99.9` of that difference, each a value that occurred.
        probability_mean_abs: Mean absolute difference of the probabilities, 0 to 1.
        label_flips_per_1000: Decision: labels that only one of the models predicts, per 1000
            decisions; each image is one decision per label.
        flips: The number of images on which a label flips, by label.
        reference, exported: Metric: the metrics of each model on these images.
        drops: Points of AP (0 to 100) that the candidate loses, with 95 % intervals.
        passed: Whether this is within the caller's limits; None without limits.
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
    drops: ApLosses
    passed: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values without the metrics by label; NaN and infinity become None."""
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


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """What fitting the thresholds again recovers, on the reporting images.

    Attributes:
        before: The reference with its own thresholds.
        unfitted: The exported model with the reference's thresholds.
        fitted: The exported model with thresholds fitted again on the fitting images.
        images: The number of images that the thresholds were fitted on.
        objective: What they were fitted for, for example `macro_f1`.
    """

    before: Metrics
    unfitted: Metrics
    fitted: Metrics
    images: int
    objective: str = ""


def compare(
    reference: Predictor, candidate: Predictor, dataset: Dataset, *, progress: Progress = SILENT
) -> Fidelity:
    """Run both models on the same decoded images and measure how far they disagree.

    Raises:
        The errors of `run_both`.
    """
    outputs = run_both(reference, candidate, dataset, progress=progress)
    return measure(outputs, reference.spec, candidate.spec)


def run_both(
    reference: Predictor, candidate: Predictor, dataset: Dataset, *, progress: Progress = SILENT
) -> Outputs:
    """Run both models on all images; each image is decoded once.

    Each model prepares the frames by its own spec, so a difference in preprocessing counts too.
    If the specs agree on it, both networks get the same prepared input.

    Raises:
        NotComparableError: The models differ in their labels, the data have other labels, or
            there is no image.
        InferenceError: The reference returned NaN or infinity, or a network failed.
        ImageError: An image cannot be read.
    """
    if reference.spec.labels != candidate.spec.labels:
        raise NotComparableError(
            f"The models have different labels, or in another order: "
            f"{quoted_names(reference.spec.labels, 5)}; and "
            f"{quoted_names(candidate.spec.labels, 5)}."
        )
    if not len(dataset):
        raise NotComparableError(
            "There is no image to compare the models on: check the data and its split."
        )
    targets = align_targets(dataset, reference.spec)
    first, second = reference.spec, candidate.spec
    same_input = all(
        getattr(first, name) == getattr(second, name)
        for name in ("preprocess", "input", "channels_last", "raw_channels")
    )
    expected, actual, equal, largest = [], [], 0, 0.0
    with progress.task("compare", total=len(dataset)) as advance:
        for frames in _decoded(dataset.paths, first, second):
            batch = reference.prepare(frames)
            other = batch if same_input else candidate.prepare(frames)
            expected.append(_run(reference, batch))
            actual.append(_run(candidate, other))
            distance = (
                np.zeros(len(frames)) if same_input else _distance(first, batch, second, other)
            )
            equal += int((distance == 0).sum())
            largest = max(largest, float(distance.max()))
            advance(len(frames))
    outputs = Outputs(
        reference=np.concatenate(expected),
        candidate=np.concatenate(actual),
        targets=targets,
        inputs_equal=equal,
        inputs_max_abs=largest,
    )
    if not np.isfinite(outputs.reference).all():
        raise InferenceError(
            "The reference model returned NaN or infinity: it cannot be compared with."
        )
    return outputs


def measure(outputs: Outputs, reference: ModelSpec, candidate: ModelSpec) -> Fidelity:
    """Measure how far outputs disagree, by the activations, thresholds and groups of the specs."""
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
            # A value that occurred: none can be interpolated between a finite and an infinite one.
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
def open_pair(
    reference: Path, candidate: Path, *, progress: Progress = SILENT
) -> Iterator[tuple[Predictor, Predictor]]:
    """Open two models; a model without a spec uses the other model's spec, which is noted.

    So a file that another tool wrote can be compared, if its shapes fit.

    Raises:
        SpecError: Neither has a spec, or the only spec does not fit both.
        ModelLoadError: A file is missing, damaged, or of a kind that no runtime reads.
        MissingDependencyError: A runtime's library is not installed.
    """
    with ExitStack() as stack:
        try:
            first = stack.enter_context(Predictor(reference))
        except MissingSpecError:
            second = stack.enter_context(Predictor(candidate))
            first = stack.enter_context(_open_with_spec_of(second, candidate, reference, progress))
            yield first, second
            return
        try:
            second = stack.enter_context(Predictor(candidate))
        except MissingSpecError:
            second = stack.enter_context(_open_with_spec_of(first, reference, candidate, progress))
        yield first, second


def _open_with_spec_of(known: Predictor, source: Path, bare: Path, progress: Progress) -> Predictor:
    opened = Predictor(bare, spec=known.spec)
    progress.note(
        f"{bare.name} does not state its labels and preprocessing: "
        f"it uses the spec of {source.name}."
    )
    return opened


def _decoded(paths: Sequence[Path], first: ModelSpec, second: ModelSpec) -> Iterator[list[Frame]]:
    """Yield batches of images that are large enough for both, decoded by two threads."""
    sizes = zip(first.preprocess.min_decode_size, second.preprocess.min_decode_size, strict=True)
    height, width = (max(pair) for pair in sizes)

    def read(path: Path) -> Frame:
        return read_image(path, at_least=(height, width))

    with ThreadPoolExecutor(max_workers=2) as pool:
        for start in range(0, len(paths), _BATCH):
            yield list(pool.map(read, paths[start : start + _BATCH]))


def _run(predictor: Predictor, batch: Input) -> NDArray[np.float32]:
    """Run one network, and check that it returns one number for each label."""
    output = predictor.infer(batch)
    if output.shape != (len(batch), len(predictor.spec.labels)):
        raise NotComparableError(
            f"For {len(batch)} images {predictor.runtime.name} returned an output of shape "
            f"{output.shape}, but the spec has {len(predictor.spec.labels)} labels: "
            "it is not the spec of this network."
        )
    return output


def _distance(
    first: ModelSpec, batch: Input, second: ModelSpec, other: Input
) -> NDArray[np.float32]:
    """Return the largest difference of two normalised inputs by image: (N,)."""
    a, b = first.normalized_input(batch), second.normalized_input(other)
    if a.shape != b.shape:
        return np.full(len(a), np.inf, np.float32)
    distance: NDArray[np.float32] = np.abs(a - b).max(axis=(1, 2, 3))
    return distance


def _difference(
    outputs: Outputs, before: Scores, after: Scores, same_activation: bool
) -> NDArray[np.float64]:
    """Return |reference - candidate| (N, labels): of the outputs, or of the probabilities.

    A NaN or infinity of the candidate counts as an infinite difference.
    """
    first, second = (outputs.reference, outputs.candidate) if same_activation else (before, after)
    with np.errstate(invalid="ignore"):
        difference: NDArray[np.float64] = np.abs(first.astype(np.float64) - second)
    difference[~np.isfinite(outputs.candidate)] = np.inf
    return difference


def _or_none(value: float) -> float | None:
    """Return a JSON value: JSON has neither NaN nor infinity."""
    return value if math.isfinite(value) else None


class FidelityError(ExportError):
    """The exported model disagrees with its source by more than is allowed.

    Attributes:
        fidelity: The result of the comparison.
        report: The page that shows it, if one was written.
    """

    exit_status = 1

    def __init__(self, message: str, fidelity: Fidelity) -> None:
        super().__init__(message)
        self.fidelity = fidelity
        self.report: Path | None = None

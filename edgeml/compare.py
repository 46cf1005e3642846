"""How far two models disagree: in the tensor, in the labels, in the metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.data import Dataset
from edgeml.errors import NotComparableError
from edgeml.evaluation import align_targets
from edgeml.images import read_image
from edgeml.metrics import Metrics, decide, evaluate
from edgeml.predictor import Predictor
from edgeml.preprocess import Frame
from edgeml.progress import SILENT, Progress

Outputs = NDArray[np.float32]

_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """How close a candidate is to its reference on the same images.

    Attributes:
        images: How many.
        max_abs, mean_abs: Absolute difference of the logits; of the probabilities where only one
            of the models gives logits. Infinite if the candidate gave what is no number.
        label_flips_per_1000: Labels present in one and absent in the other, of 1000 decisions;
            each image is one decision a label.
        flips: Images on which a label flips, by label.
        reference, exported: What each model is worth on these images.
        passed: Whether this is within the limits that the caller set; None without limits.
    """

    images: int
    max_abs: float
    mean_abs: float
    label_flips_per_1000: float
    flips: dict[str, int]
    reference: Metrics
    exported: Metrics
    passed: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give all but the metrics by label, as JSON values."""
        return {
            "images": self.images,
            "max_abs": _or_none(self.max_abs),
            "mean_abs": _or_none(self.mean_abs),
            "label_flips_per_1000": self.label_flips_per_1000,
            "flips": self.flips,
            "metrics": {
                "reference": self.reference.to_dict()["metrics"],
                "exported": self.exported.to_dict()["metrics"],
            },
            "passed": self.passed,
        }


def compare(
    reference: Predictor, candidate: Predictor, dataset: Dataset, *, progress: Progress = SILENT
) -> Fidelity:
    """Show both models the same decoded images and measure how far they disagree.

    Each prepares the frames by its own spec, so that a difference in preprocessing counts too.

    Raises:
        NotComparableError: The models differ in their labels, the data name others, or there is
            no image.
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
    expected, got = _outputs(reference, candidate, dataset.paths, progress)
    # A candidate that gives what is no number is compared too: as infinitely far away.
    scores = reference.probabilities(expected), candidate.probabilities(np.nan_to_num(got))
    flipped = decide(scores[0], reference.spec) != decide(scores[1], candidate.spec)
    if reference.spec.activation != candidate.spec.activation:
        expected, got = scores
    with np.errstate(invalid="ignore"):
        difference = np.abs(expected.astype(np.float64) - got)
    difference[np.isnan(difference)] = np.inf
    return Fidelity(
        images=len(dataset),
        max_abs=float(difference.max()),
        mean_abs=float(difference.mean()),
        label_flips_per_1000=1000 * float(flipped.mean()),
        flips=dict(zip(reference.spec.labels, flipped.sum(axis=0).tolist(), strict=True)),
        reference=evaluate(scores[0], targets, reference.spec),
        exported=evaluate(scores[1], targets, candidate.spec),
    )


def _outputs(
    reference: Predictor, candidate: Predictor, paths: Sequence[Path], progress: Progress
) -> tuple[Outputs, Outputs]:
    """Run both models over all images, each decoded once; two threads decode."""
    first, second = reference.spec, candidate.spec
    sizes = zip(first.preprocess.whole, second.preprocess.whole, strict=True)
    height, width = (max(pair) for pair in sizes)
    same_input = (first.preprocess, first.input) == (second.preprocess, second.input)

    def read(path: Path) -> Frame:
        return read_image(path, at_least=(height, width))

    expected, got = [], []
    with (
        progress.task("compare", total=len(paths)) as advance,
        ThreadPoolExecutor(max_workers=2) as pool,
    ):
        for start in range(0, len(paths), _BATCH):
            frames = list(pool.map(read, paths[start : start + _BATCH]))
            batch = reference.prepare(frames)
            expected.append(reference.runtime.run(batch))
            got.append(candidate.runtime.run(batch if same_input else candidate.prepare(frames)))
            advance(len(frames))
    return np.concatenate(expected), np.concatenate(got)


def _or_none(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None

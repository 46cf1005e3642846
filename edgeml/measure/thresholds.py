"""Fit thresholds to scores and targets for an objective, or transfer them to another model.

Unknown targets do not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import InputError
from edgeml.measure.calibration import fit_calibration
from edgeml.spec.labels import UNKNOWN, Scores, Targets

# Below this many positives a label's own best threshold is mostly noise.
FEW_POSITIVES = 20

# The threshold of all labels if there is no positive at all.
_DEFAULT = 0.5

# How far a threshold for F1 moves from the best expected F1 towards even odds, in log odds.
_TOWARDS_EVEN = 0.3

# No label's F1 is expected to be a smaller part of the F1 of all decisions: without positives
# it would be near 0, and so would the threshold.
_LEAST_F1 = 1 / 3


@dataclass(frozen=True)
class Objective:
    """The purpose that thresholds are fitted for.

    Attributes:
        kind: `macro_f1`: the best F1 of each label; `micro_f1`: the best F1 of all decisions
            together; `precision`, `recall`: at least the `floor`, with the best of the other.
        floor: Above 0, at most 1; None for the kinds that maximise.
    """

    kind: Literal["macro_f1", "micro_f1", "precision", "recall"]
    floor: float | None = None

    def __post_init__(self) -> None:
        if (self.floor is None) != self.kind.endswith("_f1"):
            raise InputError(f"The objective {self.kind!r} cannot have the floor {self.floor}.")
        if self.floor is not None and not 0 < self.floor <= 1:
            raise InputError(f"{self.kind} can be above 0 and at most 1, not {self.floor:g}.")

    def __str__(self) -> str:
        return self.kind if self.floor is None else f"{self.kind}>={self.floor}"


def parse_objective(text: str) -> Objective:
    """Read `macro_f1`, `micro_f1`, `precision>=0.9` or `recall>=0.9`, with any number 0 to 1.

    Raises:
        InputError: The text is none of these.
    """
    kind, _, floor = (part.strip() for part in text.partition(">="))
    try:
        match kind:
            case "macro_f1" | "micro_f1" if kind == text.strip():
                return Objective(kind)
            case "precision" | "recall":
                return Objective(kind, float(floor))
            case _:
                raise ValueError(text)
    except ValueError as err:
        raise InputError(
            f"There is no objective {text!r}: use macro_f1, micro_f1, precision>=0.9 or "
            "recall>=0.9, or another share above 0 and at most 1."
        ) from err


def fit_thresholds(
    scores: Scores,
    targets: Targets,
    objective: Objective | str = "macro_f1",
    *,
    few: int = FEW_POSITIVES,
) -> tuple[float, ...]:
    """Return for each label the threshold that serves the objective on images like these.

    The best F1 is not sought among the cuts of these scores: one positive with an odd score would
    move the best cut far. The scores are calibrated instead, and the threshold follows from the
    calibrated probabilities, see `_f1_thresholds`.

    A precision or a recall holds on these scores: its threshold lies in the middle of a gap between
    two of them. A label with few positives would fit noise: its threshold moves towards the one
    that is best for all labels together, in proportion to the positives that it lacks. A label that
    cannot reach a precision gets the threshold at which it is most precise; `labels_below_floor`
    returns such labels.

    Without any positive, each threshold is 0.5. Rules of groups are not applied.

    Args:
        scores: (N, labels) probabilities.
        targets: (N, labels).
        objective: Also as text, see `parse_objective`.
        few: For a precision or recall: a label with fewer positives uses the threshold of all
            labels in part; 1 uses it in none.

    Raises:
        InputError: The objective cannot be read, the shapes differ, or a score is not in 0 to 1.
    """
    if isinstance(objective, str):
        objective = parse_objective(objective)
    _check(scores, targets)
    if not (targets > 0).any():
        return tuple([_DEFAULT] * scores.shape[1])
    if objective.floor is None:
        fitted = _f1_thresholds(scores, targets, pooled=objective.kind == "micro_f1")
    else:
        fitted = _floor_thresholds(scores, targets, objective, few)
    return tuple(_short(threshold) for threshold in fitted)


def _f1_thresholds(scores: Scores, targets: Targets, *, pooled: bool) -> NDArray[np.float64]:
    """Return the thresholds (labels,) for the best F1 that calibrated probabilities promise.

    With `pooled` all labels share one probability, for the best F1 of all decisions together.

    The expected F1 is best where the probability is half of that F1: Lipton, Elkan and
    Naryanaswamy, Optimal Thresholding of Classifiers to Maximize F1 Measure, ECML 2014. It hardly
    falls a little above, where far fewer labels are wrongly claimed, and the calibration of rare
    labels is uncertain; so the cut moves three tenths of the way to even odds, in log odds. The
    figures are in benchmarks/training/README.md.
    """
    calibration = fit_calibration(scores, targets)
    known = targets != UNKNOWN
    probabilities = np.where(known, calibration.probabilities(scores), 0.0)
    together = _best_expected_f1(probabilities.reshape(-1, 1))
    alone = np.maximum(_best_expected_f1(probabilities), together * _LEAST_F1)
    half = np.where(pooled, together, alone) / 2
    odds = (half / (1 - half)) ** (1 - _TOWARDS_EVEN)
    return calibration.scores_at(odds / (1 + odds))


def _best_expected_f1(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the best F1 (labels,) that any number of the most probable images (N, labels) has.

    The expected F1 of n images is near 2 sum / (n + total), by the sum of their probabilities and
    the sum of all.
    """
    hits = np.cumsum(np.sort(probabilities, axis=0)[::-1], axis=0)
    claimed = np.arange(1, len(hits) + 1)[:, None]
    best: NDArray[np.float64] = (2 * hits / (claimed + hits[-1])).max(axis=0)
    return best


def _floor_thresholds(
    scores: Scores, targets: Targets, objective: Objective, few: int
) -> NDArray[np.float64]:
    """Return the thresholds (labels,) that keep the floor of the objective on these scores."""
    everything = _cuts(scores, targets)
    shared = float(everything.thresholds[_chosen(everything, objective)])
    fitted = []
    for i in range(scores.shape[1]):
        cuts = _cuts(scores[:, i], targets[:, i])
        trust = min(1.0, cuts.positives / max(1, few))
        own = float(cuts.thresholds[_chosen(cuts, objective)])
        fitted.append(trust * own + (1 - trust) * shared)
    return np.array(fitted)


def transfer_thresholds(
    reference: Scores, candidate: Scores, thresholds: tuple[float, ...]
) -> tuple[float, ...]:
    """Return thresholds with which a candidate agrees most often with its reference's decisions.

    Quantisation shifts and squeezes scores, and a threshold must follow. This keeps the purpose of
    each threshold, such as an F1, a precision or a choice by hand, and needs no targets. Fitting F1
    again would instead sample the noise of few positives a second time.

    A new threshold lies in the middle of a gap. Among thresholds that agree equally often the one
    nearest to the old is chosen; the old one stays if no other agrees more often.

    Args:
        reference: (N, labels) probabilities.
        candidate: (N, labels) probabilities for the same images.
        thresholds: (labels,) of the reference.

    Raises:
        InputError: The shapes differ, or a score is not in 0 to 1.
    """
    for scores in (reference, candidate):
        _check_probabilities(scores)
    labels = (len(thresholds),)
    if reference.ndim != 2 or not reference.shape == candidate.shape == (len(reference), *labels):
        raise InputError(
            f"The scores must both be (N, labels), and a threshold for each label; they are "
            f"{reference.shape}, {candidate.shape} and {labels}."
        )
    return tuple(
        _transferred(reference[:, i] >= np.float32(threshold), candidate[:, i], threshold)
        for i, threshold in enumerate(thresholds)
    )


def _transferred(
    present: NDArray[np.bool_], scores: NDArray[np.float32], threshold: float
) -> float:
    """Return the threshold on scores (N,) that agrees most often with decisions (N,)."""
    values = np.unique(scores)
    if not len(values):
        return threshold
    above, below = np.sort(scores[present]), np.sort(scores[~present])
    # A cut below all, one in the middle of each gap, one above all.
    middles = _middles(values[:-1], values[1:])
    cuts = np.concatenate([[0.0], middles, [1.0], [threshold]]).astype(np.float32)
    agreeing = (
        len(above)
        - np.searchsorted(above, cuts, side="left")
        + np.searchsorted(below, cuts, side="left")
    )
    best = np.flatnonzero(agreeing == agreeing.max())
    nearest = best[np.abs(cuts[best] - np.float32(threshold)).argmin()]
    return threshold if agreeing[-1] == agreeing.max() else _short(cuts[nearest])


def labels_below_floor(
    scores: Scores, targets: Targets, thresholds: tuple[float, ...], objective: Objective | str
) -> tuple[int, ...]:
    """Return the columns of the labels that miss the floor of the objective on these scores.

    Labels without a known positive are ignored. Without a floor no label is returned.
    """
    if isinstance(objective, str):
        objective = parse_objective(objective)
    if objective.floor is None:
        return ()
    predicted = (scores >= np.asarray(thresholds, np.float32)) & (targets != UNKNOWN)
    hits, positives = (predicted & (targets > 0)).sum(axis=0), (targets > 0).sum(axis=0)
    total = predicted.sum(axis=0) if objective.kind == "precision" else positives
    missed = hits / np.maximum(total, 1) < objective.floor
    missing = np.flatnonzero(missed & (positives > 0))
    return tuple(int(column) for column in missing)


@dataclass(frozen=True, eq=False)
class _Cuts:
    """Candidate thresholds for some scores, the one with the fewest predictions first.

    Attributes:
        thresholds: (K,) float32, falling; a score at or above is predicted.
        predicted: (K,) the number of predictions.
        hits: (K,) the number of predictions that are positive.
        positives: The number of all positives.
    """

    thresholds: NDArray[np.float32]
    predicted: NDArray[np.intp]
    hits: NDArray[np.intp]
    positives: int


def _cuts(scores: NDArray[np.float32], targets: NDArray[np.int8]) -> _Cuts:
    """Return the cuts of scores of any shape that can keep a floor best.

    The lowest prediction of each is a positive: one more negative would only be a false alarm. The
    cut with the fewest predictions is added: it predicts nothing, unless a score is 1.
    """
    known = np.sort(scores[targets != UNKNOWN].astype(np.float32))
    positives = np.sort(scores[targets > 0].astype(np.float32))
    values = np.unique(np.append(positives, np.float32(1)))
    first = np.searchsorted(known, values)
    return _Cuts(
        thresholds=_middles(np.append(np.float32(0), known)[first], values)[::-1],
        predicted=(len(known) - first)[::-1],
        hits=(len(positives) - np.searchsorted(positives, values))[::-1],
        positives=len(positives),
    )


def _middles(below: NDArray[np.float32], above: NDArray[np.float32]) -> NDArray[np.float32]:
    middles = ((below.astype(np.float64) + above) / 2).astype(np.float32)
    # The middle of two adjacent float32 numbers rounds to either of them.
    return np.where(middles > below, middles, above)


def _chosen(cuts: _Cuts, objective: Objective) -> int:
    """Choose the cut that keeps the floor."""
    floor = objective.floor or 0.0
    if objective.kind == "precision":
        # The lowest threshold that is precise enough has the highest recall.
        return _lowest_precise(cuts, floor)
    return int((cuts.hits / max(1, cuts.positives) >= floor).argmax())


def _lowest_precise(cuts: _Cuts, floor: float) -> int:
    """Choose the last cut that is precise enough, else the last of the most precise ones."""
    precision = cuts.hits / np.maximum(cuts.predicted, 1)
    return int(np.flatnonzero(precision >= min(floor, precision.max()))[-1])


def _check(scores: Scores, targets: Targets) -> None:
    if scores.ndim != 2 or scores.shape != targets.shape:
        raise InputError(
            "Scores and targets must both be (N, labels); "
            f"they are {scores.shape} and {targets.shape}."
        )
    _check_probabilities(scores)


def _check_probabilities(scores: Scores) -> None:
    if scores.size and not (scores.min() >= 0 and scores.max() <= 1):
        raise InputError(
            f"Thresholds need probabilities from 0 to 1, but the scores are from "
            f"{scores.min():g} to {scores.max():g}."
        )


def _short(threshold: float) -> float:
    """Return a float32 with the fewest digits that distinguish it from its neighbours."""
    return float(str(np.float32(threshold)))

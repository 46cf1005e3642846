"""Thresholds that are best for an objective on given scores and targets.

A threshold lies in the middle of a gap between two scores. Unknown targets do not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import InputError
from edgeml.spec.labels import UNKNOWN, Scores, Targets

# Below this many positives a label's own best threshold is mostly noise.
FEW_POSITIVES = 20

# What a label gets of which nothing is known, nor of any other.
_MIDDLE = 0.5


@dataclass(frozen=True)
class Objective:
    """What thresholds are fitted for.

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
        InputError: It is none of these; names them.
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
            f"There is no objective {text!r}: take macro_f1, micro_f1, precision>=0.9 or "
            "recall>=0.9, or another share above 0 and at most 1."
        ) from err


def fit_thresholds(
    scores: Scores,
    targets: Targets,
    objective: Objective | str = "macro_f1",
    *,
    few: int = FEW_POSITIVES,
) -> tuple[float, ...]:
    """Find for each label the threshold that serves the objective best.

    A label with few positives would fit noise: its threshold is drawn towards the best global
    one, in proportion to the positives that it lacks. A label without any takes the global one,
    and where there are no positives at all it is 0.5.

    Each label is decided by its threshold alone: in a group of which one label is present,
    thresholds decide nothing.

    A label that cannot reach a precision gets the threshold at which it is most precise;
    `labels_below_floor` names such labels.

    Args:
        scores: (N, labels) probabilities.
        targets: (N, labels).
        objective: Also as text, see `parse_objective`.
        few: Below this many positives a label leans on the global threshold; 1 trusts each.

    Raises:
        InputError: The objective cannot be read, the shapes differ, or the scores are no
            probabilities.
    """
    if isinstance(objective, str):
        objective = parse_objective(objective)
    _check(scores, targets)
    everything = _cuts(scores, targets)
    if not everything.positives:
        return tuple([_MIDDLE] * scores.shape[1])
    shared = everything.thresholds[_chosen([everything], objective)[0]]
    columns = [(scores[:, i], targets[:, i]) for i in range(scores.shape[1])]
    labels = [
        _cuts(*column) if (column[1] > 0).any() else _held(*column, shared) for column in columns
    ]
    fitted = []
    for cuts, cut in zip(labels, _chosen(labels, objective), strict=True):
        trust = min(1.0, cuts.positives / max(1, few))
        fitted.append(trust * float(cuts.thresholds[cut]) + (1 - trust) * float(shared))
    return tuple(_short(threshold) for threshold in fitted)


def transfer_thresholds(
    reference: Scores, candidate: Scores, thresholds: tuple[float, ...]
) -> tuple[float, ...]:
    """Move thresholds so that a candidate decides as its reference does, as often as it can.

    Quantisation shifts and squeezes scores, and a threshold should go along. Whatever a threshold
    was set for, be it F1, a precision, or by hand, is so kept, and no target is needed. Fitting F1
    anew instead would draw again from the noise that few positives make.

    A new threshold lies in the middle of a gap; of those that agree equally often it is the one
    nearest to the old, which stays where it is if nothing agrees more.

    Args:
        reference: (N, labels) probabilities.
        candidate: (N, labels) probabilities for the same images.
        thresholds: (labels,) of the reference.

    Raises:
        InputError: The shapes differ, or the scores are no probabilities.
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
        _carried(reference[:, i] >= np.float32(threshold), candidate[:, i], threshold)
        for i, threshold in enumerate(thresholds)
    )


def _carried(present: NDArray[np.bool_], scores: NDArray[np.float32], threshold: float) -> float:
    """Find the threshold on scores (N,) that agrees most often with decisions (N,)."""
    values = np.unique(scores)
    if not len(values):
        return threshold
    above, below = np.sort(scores[present]), np.sort(scores[~present])
    # A cut below all, one in the middle of each gap, one above all.
    middles = ((values[:-1].astype(np.float64) + values[1:]) / 2).astype(np.float32)
    # Of neighbours among the float32 numbers it would round to either.
    middles = np.where(middles > values[:-1], middles, values[1:])
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
    """Give the columns of the labels that miss the floor of the objective on these scores.

    Labels without a known positive are not judged. None are given for an objective without floor.
    """
    if isinstance(objective, str):
        objective = parse_objective(objective)
    if objective.floor is None:
        return ()
    claimed = (scores >= np.asarray(thresholds, np.float32)) & (targets != UNKNOWN)
    hits, positives = (claimed & (targets > 0)).sum(axis=0), (targets > 0).sum(axis=0)
    whole = claimed.sum(axis=0) if objective.kind == "precision" else positives
    missed = hits / np.maximum(whole, 1) < objective.floor
    missing = np.flatnonzero(missed & (positives > 0))
    return tuple(int(column) for column in missing)


@dataclass(frozen=True, eq=False)
class _Cuts:
    """Ways to divide some scores into claimed and not claimed, the fewest claimed first.

    Attributes:
        thresholds: (K,) float32, falling; what is at or above is claimed.
        claimed: (K,) how many are.
        hits: (K,) how many of these are positive.
        positives: How many there are in all.
    """

    thresholds: NDArray[np.float32]
    claimed: NDArray[np.intp]
    hits: NDArray[np.intp]
    positives: int


def _cuts(scores: NDArray[np.float32], targets: NDArray[np.int8]) -> _Cuts:
    """Find the cuts of scores of any shape that some objective may want.

    Each has a positive as the last that it claims: one that ends with a negative claims more and
    finds no more. Besides, there is the one that claims least: nothing, unless a score is 1.
    """
    every = np.sort(scores[targets != UNKNOWN].astype(np.float32))
    found = np.sort(scores[targets > 0].astype(np.float32))
    values = np.unique(np.append(found, np.float32(1)))
    first = np.searchsorted(every, values)
    below = np.append(np.float32(0), every)[first]
    # The middle of neighbours among the float32 numbers would round to either of them.
    middle = ((below.astype(np.float64) + values) / 2).astype(np.float32)
    thresholds = np.where(middle > below, middle, values)
    return _Cuts(
        thresholds=thresholds[::-1],
        claimed=(len(every) - first)[::-1],
        hits=(len(found) - np.searchsorted(found, values))[::-1],
        positives=len(found),
    )


def _held(scores: NDArray[np.float32], targets: NDArray[np.int8], threshold: np.float32) -> _Cuts:
    """Leave a label without positives no choice but the cut that this threshold makes."""
    claimed = ((scores >= threshold) & (targets != UNKNOWN)).sum()
    return _Cuts(np.array([threshold]), np.array([claimed]), np.array([0]), 0)


def _chosen(labels: list[_Cuts], objective: Objective) -> list[int]:
    """Choose one cut of each label."""
    floor = objective.floor or 0.0
    match objective.kind:
        case "macro_f1":
            return [_best_f1(cuts) for cuts in labels]
        case "micro_f1":
            return _best_pooled_f1(labels)
        case "precision":
            # Of the thresholds with that recall it is the highest, which is the most precise.
            return [_lowest_precise(cuts, floor) for cuts in labels]
        case "recall":
            return [int((cuts.hits / max(1, cuts.positives) >= floor).argmax()) for cuts in labels]


def _best_f1(cuts: _Cuts) -> int:
    return int((2 * cuts.hits / np.maximum(cuts.claimed + cuts.positives, 1)).argmax())


def _best_pooled_f1(labels: list[_Cuts]) -> list[int]:
    """Choose the cuts that together have the best F1 there is.

    F1 is a ratio, 2 hits / (claimed + positives). For a given ratio r the sum of
    2 hits - r (claimed + positives) is largest where it is for each label alone; r is then set to
    the ratio of that choice, until it grows no more: Dinkelbach, On Nonlinear Fractional
    Programming, Management Science 13(7), 1967. It reaches the global optimum, in a few rounds.
    """
    positives = sum(cuts.positives for cuts in labels)
    chosen, ratio = [len(cuts.claimed) - 1 for cuts in labels], 0.0
    while True:
        hits = sum(int(cuts.hits[cut]) for cuts, cut in zip(labels, chosen, strict=True))
        claimed = sum(int(cuts.claimed[cut]) for cuts, cut in zip(labels, chosen, strict=True))
        better = 2 * hits / max(1, claimed + positives)
        if better <= ratio:
            return chosen
        ratio = better
        chosen = [int((2 * cuts.hits - ratio * cuts.claimed).argmax()) for cuts in labels]


def _lowest_precise(cuts: _Cuts, floor: float) -> int:
    """Choose the last cut that is precise enough, else the last of the most precise ones."""
    precision = cuts.hits / np.maximum(cuts.claimed, 1)
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
            f"Thresholds are fitted on probabilities, 0 to 1, not on scores from "
            f"{scores.min():g} to {scores.max():g}."
        )


def _short(threshold: float) -> float:
    """Write a float32 with as few digits as tell it from its neighbours."""
    return float(str(np.float32(threshold)))

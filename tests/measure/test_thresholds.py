"""Thresholds against all thresholds there are, on cases small enough to try each."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn import metrics as reference

from edgeml.errors import InputError
from edgeml.measure.thresholds import (
    FEW_POSITIVES,
    Objective,
    fit_thresholds,
    labels_below_floor,
    parse_objective,
    transfer_thresholds,
)
from edgeml.spec.labels import UNKNOWN, Scores, Targets

Case = tuple[Scores, Targets]

FLOORS = ("precision>=0.75", "recall>=0.6")
OBJECTIVES = ("macro_f1", "micro_f1", *FLOORS)

# Ties, both ends, and neighbours between which no other float32 lies.
VALUES = [0.0, 1e-7, 0.25, np.nextafter(np.float32(0.25), np.float32(1)), 0.5, 0.75, 1.0]


@st.composite
def cases(draw: st.DrawFn, most: int = 3) -> Case:
    shape = (draw(st.integers(0, 7)), draw(st.integers(1, most)))
    scores = arrays(np.float32, shape, elements=st.sampled_from(np.float32(VALUES).tolist()))
    targets = arrays(np.int8, shape, elements=st.sampled_from([1, 1, 0, 0, 0, UNKNOWN]))
    return draw(scores), draw(targets)


def example(seed: int = 0, n: int = 400) -> Case:
    """Scores that know something of the targets; the last of the five labels is rare."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, 5)) < (0.5, 0.3, 0.2, 0.1, 0.02)).astype(np.int8)
    scores = np.clip(0.25 + 0.4 * targets + rng.normal(0, 0.25, (n, 5)), 0, 1)
    targets[rng.random((n, 5)) < 0.1] = UNKNOWN
    return scores.round(2).astype(np.float32), targets


def every_threshold(scores: Scores) -> NDArray[np.float32]:
    """All that decide differently: the scores themselves, and 1, where little or nothing is."""
    return np.unique(np.append(scores, np.float32(1)))


def column_of(case: Case, column: int) -> Case:
    """The known scores and targets of one label."""
    scores, targets = case
    known = targets[:, column] != UNKNOWN
    return scores[known, column], targets[known, column]


def measured(
    function: Callable[..., float], scores: Scores, targets: Targets, threshold: float
) -> float:
    present = scores >= np.float32(threshold)
    return float(function(targets, present, zero_division=0, labels=[0, 1]))


def drawn(seed: int, n: int, shares: Sequence[float], shift: float = 0.0) -> Case:
    """Scores of a label as a network gives them that is sure of itself, nearly always rightly."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, len(shares))) < shares).astype(np.int8)
    logits = np.where(targets > 0, 6.0, -6.0) + rng.normal(0, 1.5, targets.shape) + shift
    return (1 / (1 + np.exp(-logits))).astype(np.float32), targets


@pytest.mark.parametrize("objective", ["macro_f1", "micro_f1"])
@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("odd", [0.025, 0.16])
def test_one_odd_positive_among_a_hundred_does_not_pull_a_threshold_down(
    odd: float, count: int, objective: str
) -> None:
    for seed in range(5):
        scores, targets = drawn(seed, 379, (100 / 379,) * count)
        scores[np.flatnonzero(targets[:, 0])[0], 0] = odd
        assert 0.3 < fit_thresholds(scores, targets, objective)[0] < 0.6


@pytest.mark.parametrize("count", [1, 7])
def test_one_odd_negative_among_hundreds_does_not_push_a_threshold_up(count: int) -> None:
    for seed in range(5):
        scores, targets = drawn(seed, 379, (0.3,) * count)
        scores[np.flatnonzero(targets[:, 0] == 0)[0], 0] = 0.97
        assert 0.35 < fit_thresholds(scores, targets)[0] < 0.75


@pytest.mark.parametrize("objective", ["macro_f1", "micro_f1"])
@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("n", [50, 379])
@pytest.mark.parametrize("shift", [-9.0, -4.5, 4.5, 9.0])
def test_a_label_whose_scores_are_shifted_gets_a_threshold_between_them(
    shift: float, n: int, count: int, objective: str
) -> None:
    for seed in range(5):
        scores, targets = drawn(seed, n, (0.3,) * count)
        scores[:, :1], targets[:, :1] = drawn(seed + 100, n, (0.3,), shift)
        threshold = fit_thresholds(scores, targets, objective)[0]
        assert measured(reference.f1_score, scores[:, 0], targets[:, 0], threshold) > 0.95


@pytest.mark.parametrize("low", [1e-4, 0.02])
def test_a_label_that_no_image_shows_is_not_claimed_where_its_scores_are_low(low: float) -> None:
    scores, targets = drawn(0, 100, (0.3,) * 6)
    scores[:, 5] = np.random.default_rng(0).uniform(0, low, 100)
    targets[:, 5] = 0
    assert not (scores[:, 5] >= fit_thresholds(scores, targets)[5]).any()


def test_a_threshold_is_lower_where_the_best_f1_is() -> None:
    # The label is present with the probability that its score states.
    rng = np.random.default_rng(0)
    scores = rng.beta(0.3, 1.5, (20_000, 1)).astype(np.float32)
    targets = (rng.random(scores.shape) < scores).astype(np.int8)
    precision, recall, _ = reference.precision_recall_curve(targets[:, 0], scores[:, 0])
    half = (2 * precision * recall / (precision + recall)).max() / 2
    threshold = fit_thresholds(scores, targets)[0]
    assert half < threshold < 0.5
    log_odds = [np.log(p / (1 - p)) for p in (threshold, half)]
    assert log_odds[0] == pytest.approx(0.7 * log_odds[1], abs=0.1)


def test_thresholds_for_f1_generalise_better_than_the_best_cuts_of_few_images() -> None:
    reached, best_cuts = [], []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        targets = (rng.random((2050, 6)) < 0.15).astype(np.int8)
        logits = -3 + 4 * targets + rng.normal(0, 1.5, targets.shape)
        scores = (1 / (1 + np.exp(-logits))).astype(np.float32)
        if not targets[:50].any(axis=0).all():
            continue
        fitted = fit_thresholds(scores[:50], targets[:50])
        for i, threshold in enumerate(fitted):
            precision, recall, cuts = reference.precision_recall_curve(
                targets[:50, i], scores[:50, i]
            )
            f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
            rest = scores[50:, i], targets[50:, i]
            reached.append(measured(reference.f1_score, *rest, threshold))
            best_cuts.append(measured(reference.f1_score, *rest, cuts[f1[:-1].argmax()]))
    assert np.mean(reached) > np.mean(best_cuts) + 0.03


def test_micro_f1_gives_alike_labels_alike_thresholds() -> None:
    # Scores that are calibrated alike need one threshold for all, be they frequent or rare.
    scores, targets = example(n=4000)
    rng = np.random.default_rng(1)
    targets = (rng.random(scores.shape) < scores).astype(np.int8)
    micro = fit_thresholds(scores, targets, "micro_f1")
    assert max(micro) - min(micro) < 0.03


@pytest.mark.parametrize("objective", ["macro_f1", "micro_f1"])
def test_scores_of_exactly_0_and_1_are_told_apart(objective: str) -> None:
    targets = np.array([[1, 0], [0, 1], [0, 0], [1, 0]] * 5, np.int8)
    threshold = fit_thresholds(targets.astype(np.float32), targets, objective)
    assert all(0.2 < one < 0.8 for one in threshold)


@settings(deadline=None)
@given(cases(most=6), st.sampled_from(["macro_f1", "micro_f1"]))
def test_thresholds_for_f1_are_probabilities_whatever_the_scores_are(
    case: Case, objective: str
) -> None:
    fitted = fit_thresholds(*case, objective)
    assert len(fitted) == case[0].shape[1]
    assert all(0 <= threshold <= 1 for threshold in fitted)
    assert fitted == fit_thresholds(*case, objective)


@settings(deadline=None)
@given(cases(), st.sampled_from([0.3, 0.5, 0.75, 0.9, 1.0]))
@pytest.mark.slow
def test_a_precision_is_kept_at_the_most_recall_or_missed_by_the_least(
    case: Case, floor: float
) -> None:
    fitted = fit_thresholds(*case, f"precision>={floor}", few=1)
    missed = labels_below_floor(*case, fitted, f"precision>={floor}")
    for column, threshold in enumerate(fitted):
        scores, targets = column_of(case, column)
        if not targets.any():
            assert column not in missed
            continue
        reached = [
            (
                measured(reference.precision_score, scores, targets, t),
                measured(reference.recall_score, scores, targets, t),
            )
            for t in (threshold, *every_threshold(scores))
        ]
        precision, recall = reached[0]
        assert (column in missed) == (precision < floor)
        if enough := [pair for pair in reached if pair[0] >= floor]:
            assert precision >= floor
            assert recall == max(recall for _, recall in enough)
        else:
            assert precision == max(precision for precision, _ in reached)


@settings(deadline=None)
@given(cases(), st.sampled_from([0.3, 0.5, 0.75, 0.9, 1.0]))
@pytest.mark.slow
def test_a_recall_is_kept_with_as_little_claimed_as_possible(case: Case, floor: float) -> None:
    fitted = fit_thresholds(*case, f"recall>={floor}", few=1)
    assert labels_below_floor(*case, fitted, f"recall>={floor}") == ()
    for column, threshold in enumerate(fitted):
        scores, targets = column_of(case, column)
        if targets.any():
            enough = [
                t
                for t in every_threshold(scores)
                if measured(reference.recall_score, scores, targets, t) >= floor
            ]
            assert measured(reference.recall_score, scores, targets, threshold) >= floor
            assert (scores >= np.float32(threshold)).sum() == (scores >= max(enough)).sum()


@pytest.mark.parametrize(("floor", "share"), [(0.55, 55), (0.29, 29), (0.07, 7)])
def test_a_floor_that_is_met_exactly_is_met(floor: float, share: int) -> None:
    # 0.55 * 100 is more than 55 in floating point; 55 / 100 is 0.55.
    scores = np.linspace(0.9, 0.1, 100, dtype=np.float32)[:, None]
    threshold = fit_thresholds(scores, np.ones((100, 1), np.int8), f"recall>={floor}")[0]
    assert (scores >= np.float32(threshold)).sum() == share


@pytest.mark.parametrize("objective", FLOORS)
def test_a_threshold_is_in_the_middle_of_the_gap_below_the_last_positive(objective: str) -> None:
    scores = np.array([[0.9], [0.8], [0.4], [0.1]], np.float32)
    targets = np.array([[1], [1], [0], [0]], np.int8)
    assert fit_thresholds(scores, targets, objective, few=1) == (pytest.approx(0.6),)


def test_neighbours_among_the_float32_numbers_are_told_apart() -> None:
    low = np.float32(0.75)
    scores = np.array([[np.nextafter(low, np.float32(1))], [low]], np.float32)
    threshold = fit_thresholds(scores, np.array([[1], [0]], np.int8), "recall>=1", few=1)[0]
    assert (scores >= np.float32(threshold)).tolist() == [[True], [False]]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_unknown_targets_do_not_move_a_threshold(objective: str) -> None:
    scores, targets = example()
    known = (targets != UNKNOWN).all(axis=1)
    blank = np.where(known[:, None], targets, UNKNOWN).astype(np.int8)
    assert fit_thresholds(scores, blank, objective) == fit_thresholds(
        scores[known], targets[known], objective
    )


@pytest.mark.parametrize("objective", FLOORS)
def test_a_label_with_few_positives_leans_on_the_global_threshold(objective: str) -> None:
    scores, targets = example()
    fitted, alone = (fit_thresholds(scores, targets, objective, few=few) for few in (20, 1))
    shared = fit_thresholds(scores.reshape(-1, 1), targets.reshape(-1, 1), objective)[0]
    count = (targets > 0).sum(axis=0)
    assert 0 < count[4] < FEW_POSITIVES < count[:4].min()
    assert fitted[:4] == alone[:4]
    trust = count[4] / FEW_POSITIVES
    assert fitted[4] == pytest.approx(trust * alone[4] + (1 - trust) * shared, abs=1e-6)
    assert fitted[4] != alone[4]


@pytest.mark.parametrize("objective", FLOORS)
def test_a_label_without_positives_takes_the_global_threshold(objective: str) -> None:
    scores, targets = example()
    targets[:, 4] = np.minimum(targets[:, 4], 0)
    shared = fit_thresholds(scores.reshape(-1, 1), targets.reshape(-1, 1), objective)[0]
    for few in (1, FEW_POSITIVES):
        assert fit_thresholds(scores, targets, objective, few=few)[4] == shared


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("targets", [np.zeros((0, 3)), np.zeros((4, 3)), np.full((4, 3), UNKNOWN)])
def test_without_positives_thresholds_stay_in_the_middle(
    objective: str, targets: NDArray[np.float64]
) -> None:
    scores = np.full(targets.shape, 0.9, np.float32)
    assert fit_thresholds(scores, targets.astype(np.int8), objective) == (0.5,) * 3


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_scores_that_are_all_equal_leave_all_or_nothing(objective: str, value: float) -> None:
    scores = np.full((30, 1), value, np.float32)
    targets = np.array([[1], [0]] * 15, np.int8)
    threshold = fit_thresholds(scores, targets, objective)[0]
    assert 0 <= threshold <= 1
    assert (scores >= np.float32(threshold)).all()
    missed = (0,) if objective == "precision>=0.75" else ()
    assert labels_below_floor(scores, targets, (threshold,), objective) == missed


@given(
    st.one_of(
        st.sampled_from([Objective("macro_f1"), Objective("micro_f1")]),
        st.builds(
            Objective,
            st.sampled_from(["precision", "recall"]),
            st.floats(0, 1, exclude_min=True),
        ),
    )
)
def test_an_objective_is_read_as_it_is_written(objective: Objective) -> None:
    assert parse_objective(str(objective)) == objective
    assert parse_objective(f" {objective} ".replace(">=", " >= ")) == objective


@pytest.mark.parametrize(
    "text",
    ["", "f1", "macro_f1>=0.9", "micro_f1>=", "precision", "precision>=", "precision>=high",
     "recall>=0", "recall>=1.01", "recall>=-1", "recall>=nan", "recall>=0.9>=0.8", "recall=0.9"],
)  # fmt: skip
def test_another_text_is_refused_with_the_choices(text: str) -> None:
    with pytest.raises(InputError, match="macro_f1, micro_f1, precision") as caught:
        parse_objective(text)
    assert repr(text) in str(caught.value)


@given(st.text("precisonalmf1>=.09_ ", max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(InputError):
        assert isinstance(parse_objective(text), Objective)


def test_scores_that_cannot_be_used_are_refused() -> None:
    scores, targets = example(n=4)
    with pytest.raises(InputError, match=r"\(4, 5\) and \(3, 5\)"):
        fit_thresholds(scores, targets[:3])
    for wrong in (scores * 10, scores - 2, np.full_like(scores, np.nan)):
        with pytest.raises(InputError, match="probabilities"):
            fit_thresholds(wrong, targets)
    with pytest.raises(InputError, match="floor"):
        Objective("macro_f1", 0.5)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Scores, Scores, tuple[float, ...]]:
    """Scores of a reference and of a candidate, and thresholds of the reference."""
    shape = (draw(st.integers(0, 7)), draw(st.integers(1, 3)))
    values = st.sampled_from(np.float32(VALUES).tolist())
    thresholds = st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.5, 0.62, 1.0])
    scores = arrays(np.float32, shape, elements=values)
    moved = draw(st.lists(thresholds, min_size=shape[1], max_size=shape[1]))
    return draw(scores), draw(scores), tuple(moved)


def agreement(
    reference: Scores, candidate: Scores, old: tuple[float, ...], new: tuple[float, ...]
) -> NDArray[np.intp]:
    """How many images both decide alike, for each label."""
    before = reference >= np.asarray(old, np.float32)
    return (before == (candidate >= np.asarray(new, np.float32))).sum(axis=0)


@settings(deadline=None)
@given(pairs())
def test_carried_thresholds_agree_as_often_as_any_do(
    case: tuple[Scores, Scores, tuple[float, ...]],
) -> None:
    reference, candidate, old = case
    new = transfer_thresholds(reference, candidate, old)
    assert all(0 <= threshold <= 1 for threshold in new)
    agreeing = agreement(reference, candidate, old, new)
    for column, threshold in enumerate(old):
        most = max(
            agreement(reference[:, [column]], candidate[:, [column]], (threshold,), (float(cut),))
            for cut in (*every_threshold(candidate[:, column]), 0.0)
        )
        assert agreeing[column] == most


@given(pairs())
def test_of_carried_thresholds_that_agree_equally_the_old_or_the_nearest_is_taken(
    case: tuple[Scores, Scores, tuple[float, ...]],
) -> None:
    reference, candidate, old = case
    new = transfer_thresholds(reference, candidate, old)
    agreeing = agreement(reference, candidate, old, new)
    stayed = agreement(reference, candidate, old, old)
    for column, threshold in enumerate(old):
        if stayed[column] == agreeing[column]:
            assert new[column] == threshold
            continue
        values = np.unique(candidate[:, column])
        middles = ((values[:-1].astype(np.float64) + values[1:]) / 2).astype(np.float32)
        for cut in (0.0, *np.where(middles > values[:-1], middles, values[1:]), 1.0):
            one = reference[:, [column]], candidate[:, [column]], (threshold,), (float(cut),)
            if agreement(*one) == agreeing[column]:
                # float32 numbers beside 0.25 are 3e-8 apart.
                assert abs(new[column] - threshold) <= abs(cut - threshold) + 1e-7


def test_of_two_gaps_that_agree_equally_the_nearer_is_taken() -> None:
    # The reference claims the first and the third: one image is decided otherwise in any case.
    reference = np.array([[0.9], [0.1], [0.9], [0.1]], np.float32)
    candidate = np.array([[0.8], [0.6], [0.4], [0.2]], np.float32)
    assert transfer_thresholds(reference, candidate, (0.15,)) == (pytest.approx(0.3),)
    assert transfer_thresholds(reference, candidate, (0.9,)) == (pytest.approx(0.7),)
    assert transfer_thresholds(reference, candidate, (0.75,)) == (0.75,), "which does as well"


@given(pairs())
def test_a_candidate_that_scores_alike_keeps_its_thresholds(
    case: tuple[Scores, Scores, tuple[float, ...]],
) -> None:
    reference, _, old = case
    assert transfer_thresholds(reference, reference.copy(), old) == old


@given(
    arrays(np.float32, (12, 2), elements=st.sampled_from(np.linspace(0, 1, 33).tolist())),
    st.sampled_from([0.01, 0.2, 0.5, 0.7, 0.99]),
    st.sampled_from([np.sqrt, np.square, lambda s: s / 4, lambda s: s / 3 + np.float32(0.6)]),
)
def test_scores_that_were_squeezed_in_order_lose_no_decision(
    reference: Scores, threshold: float, squeeze: Callable[[Scores], Scores]
) -> None:
    candidate, old = squeeze(reference), (threshold, 1 - threshold)
    new = transfer_thresholds(reference, candidate, old)
    assert agreement(reference, candidate, old, new).tolist() == [12, 12]


def test_neighbours_among_the_float32_numbers_are_told_apart_by_carried_thresholds() -> None:
    reference = np.array([[0.1], [0.9]], np.float32)
    low = np.float32(0.25)
    for _ in range(2):  # the middle rounds to either of them
        high = np.nextafter(low, np.float32(1))
        candidate = np.array([[low], [high]], np.float32)
        new = transfer_thresholds(reference, candidate, (0.15,))
        assert agreement(reference, candidate, (0.15,), new).tolist() == [2]
        low = high


def test_without_images_thresholds_stay_where_they_are() -> None:
    empty = np.zeros((0, 2), np.float32)
    assert transfer_thresholds(empty, empty, (0.3, 0.4)) == (0.3, 0.4)


def test_scores_that_thresholds_cannot_be_carried_between_are_refused() -> None:
    scores = example(n=4)[0]
    halves = (0.5,) * 5
    for before, after, old in (
        (scores, scores[:3], halves),
        (scores, scores[:, :4], halves),
        (scores, scores, halves[:4]),
        (scores, scores, (*halves, 0.5)),
        (scores[0], scores[0], halves),
    ):
        with pytest.raises(InputError, match=r"\(N, labels\)"):
            transfer_thresholds(before, after, old)
    for wrong in (scores * 10, scores - 2, np.full_like(scores, np.nan)):
        with pytest.raises(InputError, match="probabilities"):
            transfer_thresholds(scores, wrong, halves)
        with pytest.raises(InputError, match="probabilities"):
            transfer_thresholds(wrong, scores, halves)

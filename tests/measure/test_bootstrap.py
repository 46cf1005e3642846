"""Intervals of a loss of AP: against scikit-learn draw by draw, and against simulated truth."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from edgeml.errors import InputError
from edgeml.measure.bootstrap import FEWEST_POSITIVES, ApLoss, ApLosses, drop_intervals
from edgeml.measure.metrics import average_precision
from edgeml.spec.labels import UNKNOWN

Pair = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int8]]


def example(seed: int = 0, n: int = 120, digits: int = 6) -> Pair:
    """Two models of which the second is worse; few digits make many ties."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, 4)) < (0.5, 0.2, 0.05, 0.02)).astype(np.int8)
    reference = np.clip(0.3 + 0.4 * targets + rng.normal(0, 0.25, (n, 4)), 0, 1)
    candidate = np.clip(reference + rng.normal(0, 0.15, (n, 4)), 0, 1)
    return (
        reference.round(digits).astype(np.float32),
        candidate.round(digits).astype(np.float32),
        targets,
    )


def names(count: int) -> list[str]:
    return [f"label {i}" for i in range(count)]


def one_by_one(pair: Pair, resamples: int, seed: int) -> tuple[NDArray[np.float64], ...]:
    """Draw the same images and measure each draw with scikit-learn: (labels, 2) and (2,)."""
    reference, candidate, targets = pair
    rng = np.random.default_rng(seed)
    lost = np.full((resamples, targets.shape[1]), np.nan)
    for row in range(resamples):
        counts = np.bincount(rng.integers(len(targets), size=len(targets)), minlength=len(targets))
        for i in range(targets.shape[1]):
            known = targets[:, i] != UNKNOWN
            if counts[known & (targets[:, i] > 0)].sum():
                before, after = (
                    average_precision_score(
                        targets[known, i], scores[known, i], sample_weight=counts[known]
                    )
                    for scores in (reference, candidate)
                )
                lost[row, i] = 100 * (before - after)
    labels = np.nanquantile(lost, (0.025, 0.975), axis=0).T
    return labels, np.quantile(np.nanmean(lost, axis=1), (0.025, 0.975))


@pytest.mark.slow
@pytest.mark.parametrize("digits", [6, 1])
@pytest.mark.parametrize("unknown", [0.0, 0.4])
def test_intervals_are_those_of_scikit_learn_on_each_resample(digits: int, unknown: float) -> None:
    pair = example(digits=digits)
    pair[2][np.random.default_rng(1).random(pair[2].shape) < unknown] = UNKNOWN
    assert ((pair[2] > 0).sum(axis=0) > 0).all()
    found = drop_intervals(*pair, names(4), resamples=60, seed=5)
    labels, whole = one_by_one(pair, 60, 5)
    assert (found.mAP.low, found.mAP.high) == pytest.approx(whole, abs=1e-9)
    for i, drop in enumerate(found.labels.values()):
        known = pair[2][:, i] != UNKNOWN
        before, after = (
            average_precision_score(pair[2][known, i], scores[known, i]) for scores in pair[:2]
        )
        assert drop.points == pytest.approx(100 * (before - after), abs=1e-9)
        if (pair[2][:, i] > 0).sum() >= FEWEST_POSITIVES:
            assert (drop.low, drop.high) == pytest.approx(labels[i], abs=1e-9)
        else:
            assert math.isnan(drop.low)
            assert math.isnan(drop.high)


def test_chunks_of_resamples_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = drop_intervals(*example(), names(4), resamples=50)
    monkeypatch.setattr("edgeml.measure.bootstrap._CHUNK", 7 * 120)
    assert drop_intervals(*example(), names(4), resamples=50) == whole
    monkeypatch.setattr("edgeml.measure.bootstrap._CHUNK", 1)
    assert drop_intervals(*example(), names(4), resamples=50) == whole


def test_the_seed_decides_the_draw() -> None:
    first = drop_intervals(*example(), names(4), seed=1)
    assert drop_intervals(*example(), names(4), seed=1) == first
    assert drop_intervals(*example(), names(4), seed=2) != first


def test_the_points_of_the_mean_are_the_mean_over_the_labels_that_have_a_positive() -> None:
    reference, candidate, targets = example()
    targets[:, 2] = 0
    found = drop_intervals(reference, candidate, targets, names(4))
    lost = [found.labels[f"label {i}"].points for i in (0, 1, 3)]
    assert found.mAP.points == pytest.approx(np.mean(lost))
    assert all(math.isnan(v) for v in vars(found.labels["label 2"]).values())


def test_without_a_positive_nothing_is_told() -> None:
    reference, candidate, targets = example()
    for blank in (np.zeros_like(targets), np.full_like(targets, UNKNOWN), targets[:0]):
        scores = reference[: len(blank)], candidate[: len(blank)]
        found = drop_intervals(*scores, blank, names(4), resamples=10)
        assert all(math.isnan(value) for value in vars(found.mAP).values())
        assert set(found.labels) == set(names(4))


def test_one_or_two_positives_have_a_loss_but_no_interval() -> None:
    """Both sink below everything: each draw shows a loss, and yet it may be an accident."""
    targets = np.zeros((50, 1), np.int8)
    targets[:2] = 1
    reference = np.linspace(1, 0, 50, dtype=np.float32)[:, None]
    candidate = np.where(targets > 0, np.float32(-1), reference)
    found = drop_intervals(reference, candidate, targets, ["rare"])
    assert found.labels["rare"].points == pytest.approx(100 * (1 - (1 / 50 + 2 / 50) / 2), abs=2)
    assert math.isnan(found.labels["rare"].low)
    targets[2] = 1
    candidate = np.where(targets > 0, np.float32(-1), reference)
    assert drop_intervals(reference, candidate, targets, ["rare"]).labels["rare"].low > 50


scored = arrays(np.float32, (25, 2), elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
marked = arrays(np.int8, (25, 2), elements=st.sampled_from([1, 0, 0, UNKNOWN]))


@settings(deadline=None, max_examples=50)
@given(scored, marked)
def test_a_model_loses_nothing_against_itself(
    scores: NDArray[np.float32], targets: NDArray[np.int8]
) -> None:
    found = drop_intervals(scores, scores, targets, names(2), resamples=20)
    for drop in (found.mAP, *found.labels.values()):
        assert all(value == 0 or math.isnan(value) for value in vars(drop).values())


@settings(deadline=None, max_examples=50)
@given(scored, scored, marked)
def test_who_is_compared_with_whom_only_turns_the_sign(
    one: NDArray[np.float32], other: NDArray[np.float32], targets: NDArray[np.int8]
) -> None:
    there = drop_intervals(one, other, targets, names(2), resamples=20)
    back = drop_intervals(other, one, targets, names(2), resamples=20)
    for drop, turned in zip(
        (there.mAP, *there.labels.values()), (back.mAP, *back.labels.values()), strict=True
    ):
        same = pytest.approx((-turned.points, -turned.high, -turned.low), abs=1e-9, nan_ok=True)
        assert (drop.points, drop.low, drop.high) == same


@settings(deadline=None, max_examples=50)
@given(scored, scored, marked)
def test_an_interval_is_ordered_and_lies_among_what_can_be_lost(
    one: NDArray[np.float32], other: NDArray[np.float32], targets: NDArray[np.int8]
) -> None:
    found = drop_intervals(one, other, targets, names(2), resamples=20)
    wider = drop_intervals(one, other, targets, names(2), resamples=20, level=0.99)
    for drop, wide in zip(found.labels.values(), wider.labels.values(), strict=True):
        if not math.isnan(drop.low):
            assert -100 < wide.low <= drop.low <= drop.high <= wide.high < 100


@settings(deadline=None, max_examples=50)
@given(scored, scored, marked)
def test_only_the_ranking_counts(
    one: NDArray[np.float32], other: NDArray[np.float32], targets: NDArray[np.int8]
) -> None:
    as_they_are = drop_intervals(one, other, targets, names(2), resamples=20)
    stretched = drop_intervals(np.exp(3 * one), other - 7, targets, names(2), resamples=20)
    assert stretched.to_dict() == as_they_are.to_dict()


def test_what_both_models_share_cancels() -> None:
    """Each AP varies by several points from draw to draw, their difference far less."""
    reference, _, targets = example(n=400)
    rng = np.random.default_rng(3)
    candidate = (reference + rng.normal(0, 0.02, reference.shape)).astype(np.float32)
    drop = drop_intervals(reference, candidate, targets, names(4)).labels["label 1"]
    draws = [rng.integers(400, size=400) for _ in range(200)]
    alone = [100 * average_precision(reference[rows, 1], targets[rows, 1]) for rows in draws]
    low, high = np.quantile(alone, (0.025, 0.975))
    assert drop.high - drop.low < 0.25 * (high - low)


def test_the_dictionary_is_json_without_nan() -> None:
    drops = ApLosses(
        mAP=ApLoss(points=0.5, low=-0.25, high=1.0),
        labels={"a": ApLoss(points=2.0, low=math.nan, high=math.nan)},
    )
    assert json.loads(json.dumps(drops.to_dict(), allow_nan=False)) == {
        "mAP": {"points": 0.5, "low": -0.25, "high": 1.0},
        "labels": {"a": {"points": 2.0, "low": None, "high": None}},
    }


def test_arrays_that_do_not_fit_and_scores_that_are_no_numbers_are_refused() -> None:
    reference, candidate, targets = example()
    with pytest.raises(InputError, match=r"\(N, 3\)"):
        drop_intervals(reference, candidate, targets, names(3))
    with pytest.raises(InputError, match=r"\(119, 4\)"):
        drop_intervals(reference, candidate[1:], targets, names(4))
    candidate[3, 2] = np.nan
    with pytest.raises(InputError, match="candidate are NaN"):
        drop_intervals(reference, candidate, targets, names(4))


@pytest.mark.nightly
def test_an_interval_covers_a_known_loss_as_often_as_it_says() -> None:
    """The true loss is that of the same two models on very many images.

    600 intervals of 95 % that cover in 95 % of the cases do so in 93 to 97 % of them, two and a
    half standard errors; a percentile interval may be off by some more with 60 positives.
    """

    def models(seed: int, n: int) -> Pair:
        rng = np.random.default_rng(seed)
        targets = (rng.random((n, 3)) < 0.12).astype(np.int8)
        reference = 2.5 * targets + rng.normal(0, 1, (n, 3))
        candidate = reference - 0.2 * targets + rng.normal(0, 0.4, (n, 3))
        return reference.astype(np.float32), candidate.astype(np.float32), targets

    truth = drop_intervals(*models(0, 1_000_000), names(3), resamples=1)
    each = truth.labels["label 0"].points
    found = [
        drop_intervals(*models(seed, 500), names(3), resamples=500, seed=seed)
        for seed in range(1, 601)
    ]
    for expected, drops in (
        (truth.mAP.points, [one.mAP for one in found]),
        (each, [one.labels["label 0"] for one in found]),
    ):
        covered = np.mean([drop.low <= expected <= drop.high for drop in drops])
        assert 0.92 <= covered <= 0.98


@pytest.mark.nightly
@pytest.mark.parametrize("positives", [FEWEST_POSITIVES, 8])
def test_few_positives_seldom_accuse_a_model_that_is_no_worse(positives: int) -> None:
    """Both models are drawn alike around the truth; 2.5 % of the intervals should lie above 0."""
    rng = np.random.default_rng(positives)
    targets = np.zeros((475, 1), np.int8)
    targets[:positives] = 1
    accused = 0
    for seed in range(400):
        shared = 2.5 * targets + 0.8 * rng.normal(0, 1, (475, 1))
        pair = [(shared + 0.6 * rng.normal(0, 1, (475, 1))).astype(np.float32) for _ in range(2)]
        drops = drop_intervals(*pair, targets, ["rare"], resamples=400, seed=seed)
        accused += drops.labels["rare"].low > 0
    assert accused <= 0.05 * 400

"""Calibration against scikit-learn, torchmetrics and SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from edgeml.errors import InputError
from edgeml.measure.reliability import fit_temperature, reliability
from edgeml.spec.labels import UNKNOWN, Targets


def example(seed: int = 0, n: int = 3000) -> tuple[NDArray[np.float32], Targets]:
    """Logits and targets that are drawn with just their probabilities; a tenth is unknown."""
    rng = np.random.default_rng(seed)
    logits = rng.normal((-2, -1, 0, 1), 1.5, (n, 4)).astype(np.float32)
    targets = (rng.random((n, 4)) < sigmoid(logits)).astype(np.int8)
    targets[rng.random((n, 4)) < 0.1] = UNKNOWN
    return logits, targets


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return (1 / (1 + np.exp(-logits))).astype(np.float32)


@pytest.mark.train
@pytest.mark.parametrize("bins", [1, 10, 15])
def test_the_expected_calibration_error_is_that_of_torchmetrics(bins: int) -> None:
    import torch
    from torchmetrics.functional.classification import binary_calibration_error

    def theirs(scores: NDArray[np.float32], targets: Targets) -> float:
        return float(
            binary_calibration_error(
                torch.from_numpy(scores), torch.from_numpy(targets), bins, ignore_index=UNKNOWN
            )
        )

    logits, targets = example()
    scores = sigmoid(2 * logits)
    measured = reliability(scores, targets, bins)
    assert measured.ece == pytest.approx(theirs(scores.ravel(), targets.ravel()), abs=1e-6)
    each = [theirs(scores[:, i].copy(), targets[:, i].copy()) for i in range(4)]
    assert measured.label_ece.tolist() == pytest.approx(each, abs=1e-6)


def test_the_curve_and_the_brier_score_are_those_of_scikit_learn() -> None:
    logits, targets = example(n=60)  # so few that some bins are empty
    scores, known = sigmoid(3 * logits), targets != UNKNOWN
    measured = reliability(scores, targets, 40)
    frequency, confidence = calibration_curve(targets[known], scores[known], n_bins=40)
    filled = measured.count > 0
    assert not filled.all()
    assert np.isnan(measured.confidence[~filled]).all()
    assert np.isnan(measured.frequency[~filled]).all()
    np.testing.assert_allclose(measured.frequency[filled], frequency)
    np.testing.assert_allclose(measured.confidence[filled], confidence)
    assert measured.count.sum() == known.sum()
    np.testing.assert_allclose(measured.edges, np.arange(41) / 40)
    assert measured.brier == pytest.approx(brier_score_loss(targets[known], scores[known]))


def test_the_expected_calibration_error_is_that_counted_by_hand() -> None:
    scores = np.array([[0.2, 0.9], [0.4, 0.8], [0.5, 1.0], [0.0, 0.7]], np.float32)
    targets = np.array([[0, 1], [1, 0], [UNKNOWN, 1], [0, 1]], np.int8)
    measured = reliability(scores, targets, bins=2)
    # Below a half: said 0.2, 0.4 and 0, of which one came true. Above: 3.4 said, three true.
    assert measured.count.tolist() == [3, 4]
    assert measured.frequency.tolist() == pytest.approx([1 / 3, 3 / 4])
    assert measured.confidence.tolist() == pytest.approx([0.6 / 3, 3.4 / 4])
    assert measured.ece == pytest.approx((0.4 + 0.4) / 7)
    assert measured.label_ece.tolist() == pytest.approx([0.4 / 3, 0.4 / 4])


def test_a_bin_holds_its_lower_edge_and_the_last_one_both() -> None:
    scores = np.array([[0.0], [0.25], [0.5], [0.75], [1.0]], np.float32)
    assert reliability(scores, np.zeros((5, 1), np.int8), 4).count.tolist() == [1, 1, 1, 2]


def test_without_a_known_target_calibration_is_no_number() -> None:
    blank = np.full((3, 2), UNKNOWN, np.int8)
    measured = reliability(np.full((3, 2), 0.5, np.float32), blank)
    assert math.isnan(measured.ece)
    assert math.isnan(measured.brier)
    assert np.isnan(measured.label_ece).all()
    blank[:, 1] = 1
    one = reliability(np.full((3, 2), 0.5, np.float32), blank)
    assert np.isnan(one.label_ece).tolist() == [True, False]
    assert one.ece == one.label_ece[1] == 0.5


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.5])
def test_the_temperature_is_that_of_the_least_log_loss(scale: float) -> None:
    logits, targets = example()
    logits, known = scale * logits, targets != UNKNOWN

    def loss(temperature: float) -> float:
        p = sigmoid(logits[known].astype(np.float64) / temperature).astype(np.float64)
        return float(log_loss(targets[known], p))

    expected = minimize_scalar(loss, bounds=(0.2, 5), method="bounded", options={"xatol": 1e-6})
    assert fit_temperature(logits, targets) == pytest.approx(expected.x, abs=1e-3)
    assert fit_temperature(logits, targets) == pytest.approx(scale, rel=0.05)


def test_the_temperature_mends_a_model_that_is_too_sure() -> None:
    logits, targets = example()
    sure = 3 * logits
    mended = sure / fit_temperature(sure, targets)
    assert reliability(sigmoid(sure), targets).ece > 0.1
    assert reliability(sigmoid(mended), targets).ece < 0.02


def test_a_temperature_scales_with_the_logits() -> None:
    logits, targets = example()
    once = fit_temperature(logits, targets)
    assert fit_temperature(4 * logits, targets) == pytest.approx(4 * once)


def test_a_temperature_from_large_logits_is_exact_too() -> None:
    # 1,000 logits of +-400, one in 1000 wrong: sigmoid(400 / T) = 0.999 at T = 58, out of bounds.
    logits = np.full((1000, 1), 400, np.float32)
    targets = np.ones((1000, 1), np.int8)
    targets[0] = 0
    assert fit_temperature(logits, targets) == pytest.approx(5.0)
    assert fit_temperature(logits / 20, targets) == pytest.approx(20 / math.log(999))


def test_a_model_without_an_error_gets_the_coldest_temperature_there_is() -> None:
    logits = np.array([[3.0], [-3.0]], np.float32)
    assert fit_temperature(logits, np.array([[1], [0]], np.int8)) == pytest.approx(0.2)
    assert fit_temperature(logits, np.array([[0], [1]], np.int8)) == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("logits", "targets"),
    [
        (np.zeros((0, 2)), np.zeros((0, 2))),
        (np.ones((3, 2)), np.full((3, 2), UNKNOWN)),
        (np.zeros((3, 2)), np.ones((3, 2))),
    ],
)
def test_without_anything_to_learn_from_the_temperature_is_one(
    logits: NDArray[np.float64], targets: NDArray[np.float64]
) -> None:
    assert fit_temperature(logits.astype(np.float32), targets.astype(np.int8)) == 1.0


def test_unknown_targets_do_not_move_the_temperature() -> None:
    logits, targets = example()
    half = targets.copy()
    half[::2] = UNKNOWN
    assert fit_temperature(logits, half) == pytest.approx(
        fit_temperature(logits[1::2], targets[1::2])
    )


def test_input_that_cannot_be_used_is_refused() -> None:
    logits, targets = example(n=3)
    with pytest.raises(InputError, match=r"\(3, 4\) and \(2, 4\)"):
        reliability(sigmoid(logits), targets[:2])
    with pytest.raises(InputError, match=r"\(3, 4\) and \(2, 4\)"):
        fit_temperature(logits, targets[:2])
    with pytest.raises(InputError, match="not probabilities"):
        reliability(logits, targets)
    with pytest.raises(InputError, match="at least one bin"):
        reliability(sigmoid(logits), targets, 0)
    with pytest.raises(InputError, match="NaN or infinity"):
        fit_temperature(np.full((3, 4), np.inf, np.float32), targets)

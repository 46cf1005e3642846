"""The calibration of each label against scikit-learn's logistic regression."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from edgeml.measure.calibration import fit_calibration
from edgeml.spec.labels import UNKNOWN, Scores, Targets


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def drawn(seed: int, n: int, lines: list[tuple[float, float]]) -> tuple[Scores, Targets]:
    """Scores, and targets that are present with the probability that a line states."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 2.5, (n, len(lines)))
    slopes, offsets = np.array(lines).T
    targets = (rng.random(logits.shape) < sigmoid(slopes * logits + offsets)).astype(np.int8)
    return sigmoid(logits).astype(np.float32), targets


LINES = [(1.0, 0.0), (0.5, 1.0), (2.0, -3.0), (1.0, 4.0), (0.8, 0.3)]


def test_many_images_determine_the_lines_alone() -> None:
    scores, targets = drawn(0, 20_000, LINES)
    fitted = fit_calibration(scores, targets)
    logits = np.log(scores) - np.log1p(-scores)
    for i in range(len(LINES)):
        expected = LogisticRegression(C=1e6).fit(logits[:, [i]], targets[:, i])
        assert fitted.slopes[i] == pytest.approx(expected.coef_[0, 0], rel=0.02)
        assert fitted.offsets[i] == pytest.approx(expected.intercept_[0], abs=0.05)


def test_few_images_share_what_they_know() -> None:
    errors: dict[str, list[float]] = {"shared": [], "alone": []}
    for seed in range(10):
        scores, targets = drawn(seed, 40, [(0.7, 1.0)] * 12)
        logits = np.log(scores) - np.log1p(-scores)
        shared = fit_calibration(scores, targets)
        for i in range(12):
            alone = LogisticRegression(C=1e6).fit(logits[:, [i]], targets[:, i])
            errors["shared"].append(abs(shared.offsets[i] - 1.0))
            errors["alone"].append(abs(alone.intercept_[0] - 1.0))
    assert np.mean(errors["shared"]) < 0.5 * np.mean(errors["alone"])


def test_a_score_is_found_again_by_its_probability() -> None:
    fitted = fit_calibration(*drawn(0, 500, LINES))
    scores = fitted.scores_at(np.full(len(LINES), 0.4))
    assert fitted.probabilities(scores.astype(np.float32)[None])[0] == pytest.approx(0.4, abs=1e-4)


def test_unknown_targets_do_not_count() -> None:
    scores, targets = drawn(0, 300, LINES)
    targets[200:] = UNKNOWN
    fitted, known = fit_calibration(scores, targets), fit_calibration(scores[:200], targets[:200])
    assert fitted.slopes.tolist() == known.slopes.tolist()
    assert fitted.offsets.tolist() == known.offsets.tolist()


@pytest.mark.parametrize("label", ["never known", "always present", "never present"])
def test_a_label_that_shows_nothing_leaves_the_others_as_they_are(label: str) -> None:
    scores, targets = drawn(0, 2000, LINES)
    without = fit_calibration(scores[:, :4], targets[:, :4])
    targets[:, 4] = {"never known": UNKNOWN, "always present": 1, "never present": 0}[label]
    fitted = fit_calibration(scores, targets)
    assert np.isfinite(fitted.slopes).all()
    assert np.isfinite(fitted.offsets).all()
    assert fitted.slopes[:4] == pytest.approx(without.slopes, rel=0.05)
    assert fitted.offsets[:4] == pytest.approx(without.offsets, abs=0.1)


def test_separable_scores_at_both_ends_converge() -> None:
    # The unpenalised line would be infinitely steep.
    targets = np.array([[1], [0]] * 500, np.int8)
    fitted = fit_calibration(targets.astype(np.float32), targets)
    assert 0.5 < fitted.slopes[0] < 5
    assert abs(fitted.offsets[0]) < 1


def test_scores_that_contradict_their_targets_keep_a_rising_line() -> None:
    scores, targets = drawn(0, 500, [(-2.0, 0.0)])
    assert fit_calibration(scores, targets).slopes[0] > 0

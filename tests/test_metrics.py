"""Metrics against scikit-learn, torchmetrics and hand-made examples."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn import metrics as reference

from edgeml import LabelGroup, ModelSpec, Preprocess
from edgeml.metrics import average_precision, decide, evaluate
from edgeml.thresholds import fit_thresholds

LABELS = ("black", "red", "dress", "shirt", "hat")
SPEC = ModelSpec(labels=LABELS, thresholds=(0.5,) * 5, preprocess=Preprocess(size=(8, 8)))


def example(seed: int = 0, n: int = 300) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Scores that know something of the targets; rounded, so that there are ties."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, 5)) < (0.5, 0.3, 0.2, 0.1, 0.03)).astype(np.uint8)
    scores = np.clip(0.25 + 0.4 * targets + rng.normal(0, 0.25, (n, 5)), 0, 1)
    return scores.round(2).astype(np.float32), targets


def test_average_precision_is_that_of_scikit_learn() -> None:
    scores, targets = example()
    for column in range(5):
        expected = reference.average_precision_score(targets[:, column], scores[:, column])
        assert average_precision(scores[:, column], targets[:, column]) == pytest.approx(expected)


@settings(deadline=None)
@given(
    arrays(np.uint8, 30, elements=st.integers(0, 1)).filter(lambda a: a.any()),
    arrays(np.float32, 30, elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])),
)
def test_average_precision_agrees_under_heavy_ties(
    targets: NDArray[np.uint8], scores: NDArray[np.float32]
) -> None:
    expected = reference.average_precision_score(targets, scores)
    assert average_precision(scores, targets) == pytest.approx(expected)


def test_pooled_and_per_label_metrics_are_those_of_scikit_learn() -> None:
    scores, targets = example()
    measured = evaluate(scores, targets, SPEC)
    present = scores >= 0.5
    macro = reference.precision_recall_fscore_support(
        targets, present, average="macro", zero_division=0
    )
    micro = reference.precision_recall_fscore_support(
        targets, present, average="micro", zero_division=0
    )
    each = reference.f1_score(targets, present, average=None, zero_division=0)
    assert (measured.CP, measured.CR) == pytest.approx(macro[:2])
    assert (measured.OP, measured.OR, measured.OF1) == pytest.approx(micro[:3])
    assert [label.F1 for label in measured.labels.values()] == pytest.approx(list(each))
    assert measured.exact_match == pytest.approx(reference.accuracy_score(targets, present))
    assert measured.mAP == pytest.approx(
        reference.average_precision_score(targets, scores, average="macro")
    )


def test_cf1_is_the_harmonic_mean_of_cp_and_cr_and_not_macro_f1() -> None:
    scores, targets = example()
    measured = evaluate(scores, targets, SPEC)
    assert pytest.approx(2 / (1 / measured.CP + 1 / measured.CR)) == measured.CF1
    macro_f1 = reference.f1_score(targets, scores >= 0.5, average="macro", zero_division=0)
    assert abs(measured.CF1 - macro_f1) > 1e-4


@pytest.mark.train
def test_map_is_that_of_torchmetrics() -> None:
    import torch
    from torchmetrics.functional.classification import multilabel_average_precision

    scores, targets = example()
    expected = multilabel_average_precision(
        torch.from_numpy(scores), torch.from_numpy(targets).long(), num_labels=5
    )
    assert evaluate(scores, targets, SPEC).mAP == pytest.approx(float(expected), abs=1e-6)


def test_a_label_without_positives_has_no_ap_and_is_left_out_of_map() -> None:
    scores, targets = example()
    targets[:, 4] = 0
    measured = evaluate(scores, targets, SPEC)
    assert math.isnan(measured.labels["hat"].AP)
    expected = reference.average_precision_score(targets[:, :4], scores[:, :4])
    assert measured.mAP == pytest.approx(expected)
    assert measured.to_dict()["labels"]["hat"]["AP"] is None


def test_in_a_group_of_rule_one_exactly_the_best_label_is_present() -> None:
    group = LabelGroup(name="colour", labels=("black", "red"), rule="one")
    spec = replace(SPEC, groups=(group,))
    scores = np.array([[0.1, 0.2, 0.9, 0.1, 0.1], [0.8, 0.9, 0.1, 0.5, 0.1]], np.float32)
    present = decide(scores, spec)
    assert present.tolist() == [
        [False, True, True, False, False],  # no colour reaches its threshold: the best stands
        [False, True, False, True, False],  # both reach it: the better stands; 0.5 is present
    ]


def test_a_group_of_rule_any_changes_nothing() -> None:
    scores, _ = example()
    group = LabelGroup(name="colour", labels=("black", "red"), rule="any")
    np.testing.assert_array_equal(
        decide(scores, replace(SPEC, groups=(group,))), decide(scores, SPEC)
    )


def test_fitted_thresholds_reach_the_best_f1_there_is() -> None:
    scores, targets = example(n=2000)
    thresholds = fit_thresholds(scores, targets)
    for column in range(4):  # the fifth has too few positives to be trusted alone
        precision, recall, _ = reference.precision_recall_curve(
            targets[:, column], scores[:, column]
        )
        best = (2 * precision * recall / np.maximum(precision + recall, 1e-9)).max()
        reached = reference.f1_score(targets[:, column], scores[:, column] >= thresholds[column])
        assert reached == pytest.approx(best)


def test_a_label_with_few_positives_leans_on_the_global_threshold() -> None:
    scores, targets = example(n=2000)
    targets[:, 0] = 0
    targets[scores[:, 0].argmin(), 0] = 1  # one positive, at the very bottom: pure noise
    alone = fit_thresholds(scores[:, :1], targets[:, :1])[0]
    shared = fit_thresholds(scores, targets)[0]
    assert alone < 0.1 < shared


def test_thresholds_of_a_label_without_positives_stay_in_the_middle() -> None:
    scores = np.array([[0.2], [0.9]], np.float32)
    assert fit_thresholds(scores, np.zeros((2, 1), np.uint8)) == (0.5,)

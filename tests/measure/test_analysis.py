"""What lies behind the metrics, against scikit-learn and by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn import metrics as reference

from edgeml import LabelGroup, ModelSpec, Preprocess
from edgeml.data.dataset import cooccurrence
from edgeml.errors import InputError
from edgeml.measure.analysis import confusion, precision_recall_curve, worst_errors
from edgeml.measure.metrics import average_precision
from edgeml.spec.labels import UNKNOWN, Scores, Targets

COLOUR = LabelGroup(name="colour", labels=("red", "black", "blue"), rule="one")
SPEC = ModelSpec(
    labels=("black", "blue", "dress", "red"),
    thresholds=(0.5,) * 4,
    preprocess=Preprocess(size=(8, 8)),
    groups=(COLOUR,),
)


def example(seed: int = 0, n: int = 300) -> tuple[Scores, Targets]:
    """Pictures of one colour each, of which a tenth of the labels is unknown."""
    rng = np.random.default_rng(seed)
    targets = np.zeros((n, 4), np.int8)
    targets[np.arange(n), rng.choice([0, 1, 3], n)] = 1
    targets[:, 2] = rng.random(n) < 0.3
    scores = np.clip(0.3 + 0.3 * targets + rng.normal(0, 0.25, (n, 4)), 0, 1)
    targets[rng.random((n, 4)) < 0.1] = UNKNOWN
    return scores.astype(np.float32), targets


def test_cooccurrence_counts_the_pictures_that_have_both() -> None:
    targets = np.array([[1, 1, 0], [1, UNKNOWN, 1], [0, 1, UNKNOWN], [1, 1, 1]], np.int8)
    assert cooccurrence(targets).tolist() == [[3, 2, 2], [2, 3, 1], [2, 1, 2]]
    assert cooccurrence(np.zeros((0, 2), np.int8)).tolist() == [[0, 0], [0, 0]]


def test_the_confusion_matrix_is_that_of_scikit_learn() -> None:
    scores, targets = example()
    columns = [3, 0, 1]  # in the order of the group, which is not that of the model
    truth = targets[:, columns]
    counted = (truth != UNKNOWN).all(axis=1)
    assert 0 < counted.sum() < len(targets)
    expected = reference.confusion_matrix(
        truth[counted].argmax(axis=1), scores[counted][:, columns].argmax(axis=1), labels=[0, 1, 2]
    )
    found = confusion(scores, targets, SPEC, COLOUR)
    assert found.tolist() == expected.tolist()
    assert (found - found.T).any()  # so that rows and columns could not be exchanged unseen


def test_pictures_of_no_colour_or_of_two_are_not_in_the_confusion_matrix() -> None:
    scores = np.full((3, 4), 0.1, np.float32)
    scores[:, 3] = 0.9
    targets = np.array([[0, 0, 1, 0], [1, 0, 0, 1], [0, 1, 0, 0]], np.int8)
    assert confusion(scores, targets, SPEC, COLOUR).tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]


def test_labels_that_do_not_exclude_each_other_have_no_confusion_matrix() -> None:
    scores, targets = example()
    free = replace(COLOUR, rule="any")
    with pytest.raises(InputError, match="'colour' has rule 'any' and is the model's"):
        confusion(scores, targets, replace(SPEC, groups=(free,)), free)
    with pytest.raises(InputError, match="is not the model's"):
        confusion(scores, targets, replace(SPEC, groups=()), COLOUR)


@settings(deadline=None)
@given(
    arrays(np.int8, 20, elements=st.sampled_from([1, 0, UNKNOWN])).filter(lambda a: (a > 0).any()),
    arrays(np.float32, 20, elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])),
)
def test_the_precision_recall_curve_is_that_of_scikit_learn(
    targets: NDArray[np.int8], scores: NDArray[np.float32]
) -> None:
    known = targets != UNKNOWN
    expected = reference.precision_recall_curve(targets[known], scores[known])
    found = precision_recall_curve(scores, targets)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs)
    precision, recall, _ = found
    area = -(np.diff(recall) * precision[:-1]).sum()
    assert average_precision(scores, targets) == pytest.approx(area)


def test_a_label_without_positives_has_a_curve_without_recall() -> None:
    scores, targets = np.array([0.2, 0.7], np.float32), np.zeros(2, np.int8)
    precision, recall, thresholds = precision_recall_curve(scores, targets)
    assert precision.tolist() == [0, 0, 1]
    assert np.isnan(recall).tolist() == [True, True, False]
    assert thresholds.tolist() == scores.tolist()


def test_the_worst_errors_are_the_wrong_pictures_of_the_largest_loss() -> None:
    scores, targets = example()
    present = scores >= 0.5
    present[:, [0, 1, 3]] = scores[:, [0, 1, 3]] == scores[:, [0, 1, 3]].max(axis=1, keepdims=True)
    losses = {}
    for row, (p, truth, claim) in enumerate(zip(scores, targets, present, strict=True)):
        known = truth != UNKNOWN
        if (claim != truth)[known].any():
            p = np.clip(p[known].astype(np.float64), 2**-24, 1 - 2**-24)
            losses[row] = reference.log_loss(truth[known], p, labels=[0, 1])
    ranked = sorted(losses, key=lambda row: -losses[row])
    assert worst_errors(scores, targets, SPEC, 10).tolist() == ranked[:10]
    found = worst_errors(scores, targets, SPEC, len(scores))
    assert sorted(found.tolist()) == sorted(losses)
    assert len(losses) < len(scores)
    assert worst_errors(scores, targets, SPEC, 0).tolist() == []


def test_what_is_wrong_and_sure_comes_first_and_what_is_unknown_does_not_come() -> None:
    spec = replace(SPEC, groups=())
    targets = np.array([[0, 1, 0, 0], [0, 1, 0, 0], [0, UNKNOWN, 0, 0], [0, 1, 0, 0]], np.int8)
    scores = np.array(
        [[0, 0.4, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0], [0.4, 0.6, 0.4, 0.4]], np.float32
    )
    assert worst_errors(scores, targets, spec, 4).tolist() == [1, 0]
    assert worst_errors(scores[:0], targets[:0], spec, 4).tolist() == []

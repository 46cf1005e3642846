"""Metrics against scikit-learn, torchmetrics and hand-made examples."""

from __future__ import annotations

import json
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
from edgeml.errors import InputError
from edgeml.measure.metrics import average_precision, evaluate
from edgeml.spec.decide import decide, interpret, probabilities
from edgeml.spec.labels import UNKNOWN

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


def random_case(
    seed: int,
) -> tuple[NDArray[np.float32], NDArray[np.int8], NDArray[np.int8], ModelSpec]:
    """Scores, targets of which some are unknown, decisions and a spec.

    By turns the scores are of a good model, of one whose logits are tiny, full of ties, or all
    small; some labels have no positive, and in some cases two labels exclude each other.
    """
    rng = np.random.default_rng(seed)
    n, count = int(rng.integers(4, 120)), int(rng.integers(3, 9))
    targets = (rng.random((n, count)) < rng.choice([0.0, 0.05, 0.3, 0.8], count)).astype(np.int8)
    logits = 2.5 * targets + rng.normal(-1.5, 1.5, (n, count))
    scores = [
        1 / (1 + np.exp(-logits)),
        1 / (1 + np.exp(-logits / 1000)),
        (1 / (1 + np.exp(-logits))).round(1),
        1e-3 / (1 + np.exp(-logits)),
    ][seed % 4].astype(np.float32)
    thresholds = rng.choice(scores.ravel(), count)
    targets[rng.random((n, count)) < rng.choice([0.0, 0.3, 0.9])] = UNKNOWN
    names = tuple(f"label {i}" for i in range(count))
    group = LabelGroup(name="one of two", labels=names[1:3], rule="one")
    spec = ModelSpec(
        labels=names,
        thresholds=tuple(float(threshold) for threshold in thresholds),
        preprocess=Preprocess(size=(8, 8)),
        groups=(group,) if seed % 3 == 0 else (),
    )
    present = (scores >= thresholds).astype(np.int8)
    if spec.groups:
        present[:, 1] = scores[:, 1] >= scores[:, 2]
        present[:, 2] = 1 - present[:, 1]
    return scores, targets, present, spec


@pytest.mark.slow
@pytest.mark.parametrize("block", range(4))
def test_metrics_are_those_of_scikit_learn_on_what_is_known(block: int) -> None:
    for seed in range(50 * block, 50 * block + 50):
        scores, targets, present, spec = random_case(seed)
        measured = evaluate(scores, targets, spec)
        known, averaged = targets != UNKNOWN, (targets > 0).any(axis=0)
        rows: list[tuple[float, ...]] = []  # AP, precision, recall, F1 of each label that counts
        for column, (name, label) in enumerate(measured.labels.items()):
            truth, score, claim = (a[known[:, column], column] for a in (targets, scores, present))
            assert label.positives == truth.sum()
            assert math.isnan(label.AP) == (name in measured.absent) == (not averaged[column])
            if averaged[column]:
                each = reference.precision_recall_fscore_support(
                    truth, claim, average="binary", zero_division=0
                )
                rows.append((reference.average_precision_score(truth, score), *each[:3]))
                assert (label.AP, label.F1) == pytest.approx((rows[-1][0], rows[-1][3]), abs=1e-6)
        assert measured.labels_averaged == len(rows) == averaged.sum()
        AP, CP, CR, macro_F1 = np.mean(rows, axis=0) if rows else [math.nan] * 4
        pooled = reference.precision_recall_fscore_support(
            targets[known], present[known], average="binary", zero_division=0, labels=[0, 1]
        )
        labelled = known.any(axis=1)
        completed = np.where(known, targets, present)[labelled]
        assert measured.summary() == pytest.approx(
            {
                "mAP": AP,
                "CP": CP,
                "CR": CR,
                "CF1": 2 * CP * CR / (CP + CR) if CP + CR != 0 else 0.0,
                "macro_F1": macro_F1,
                "OP": pooled[0],
                "OR": pooled[1],
                "OF1": pooled[2],
                "exact_match": reference.accuracy_score(completed, present[labelled])
                if labelled.any()
                else math.nan,
            },
            abs=1e-6,
            nan_ok=True,
        )


@pytest.mark.train
@pytest.mark.parametrize("block", range(4))
def test_metrics_are_those_of_torchmetrics_on_what_is_known(block: int) -> None:
    import torch
    from torchmetrics.functional import classification as theirs

    for seed in range(50 * block, 50 * block + 50):
        scores, targets, present, spec = random_case(seed)
        measured = evaluate(scores, targets, spec)
        averaged = (targets > 0).any(axis=0)
        if not averaged.any():
            continue
        # Decisions are given as such: torchmetrics would compare with > where edgeml does with >=.
        decisions, truth = torch.from_numpy(present).long(), torch.from_numpy(targets).long()
        labelled = (truth != UNKNOWN).any(dim=1)
        settings = {"num_labels": len(averaged), "ignore_index": UNKNOWN}
        functions = (
            theirs.multilabel_precision, theirs.multilabel_recall, theirs.multilabel_f1_score,
        )  # fmt: skip
        AP = [
            float(theirs.binary_average_precision(p, y, ignore_index=UNKNOWN))
            for p, y, counts in zip(torch.from_numpy(scores).T, truth.T, averaged, strict=True)
            if counts
        ]
        ours = [label.AP for label in measured.labels.values() if label.positives]
        assert ours == pytest.approx(AP, abs=1e-6)
        CP, CR, macro_F1 = (
            float(function(decisions, truth, average="none", **settings)[averaged].mean())
            for function in functions
        )
        OP, OR, OF1 = (
            float(function(decisions, truth, average="micro", **settings)) for function in functions
        )
        exact = theirs.multilabel_exact_match(decisions[labelled], truth[labelled], **settings)
        assert measured.summary() == pytest.approx(
            {
                "mAP": np.mean(AP),
                "CP": CP,
                "CR": CR,
                "CF1": 2 * CP * CR / (CP + CR) if CP + CR else 0.0,
                "macro_F1": macro_F1,
                "OP": OP,
                "OR": OR,
                "OF1": OF1,
                "exact_match": float(exact),
            },
            abs=1e-6,
        )


def test_a_label_without_positives_is_told_and_left_out_of_every_average_over_labels() -> None:
    scores, targets = example()
    targets[:, 4] = 0
    measured = evaluate(scores, targets, SPEC)
    assert math.isnan(measured.labels["hat"].AP)
    fewer = replace(SPEC, labels=LABELS[:4], thresholds=(0.5,) * 4)
    without = evaluate(scores[:, :4], targets[:, :4], fewer)
    for name in ("mAP", "CP", "CR", "CF1", "macro_F1"):
        assert getattr(measured, name) == getattr(without, name), name
    assert measured.OP < without.OP  # hats that were claimed are false alarms all the same
    as_dict = measured.to_dict()
    assert (as_dict["labels_averaged"], as_dict["absent_labels"]) == (4, ["hat"])
    assert as_dict["labels"]["hat"]["AP"] is None


def test_a_label_with_few_positives_counts_less_in_the_weighted_map() -> None:
    targets = np.zeros((100, 3), np.int8)
    targets[:40, 0], targets[40:45, 1] = 1, 1  # 40, 5 and no positives
    scores = np.random.default_rng(0).random((100, 3), np.float32)
    spec = replace(SPEC, labels=LABELS[:3], thresholds=(0.5,) * 3)
    result = evaluate(scores, targets, spec)
    first, second = (
        reference.average_precision_score(targets[:, column], scores[:, column])
        for column in (0, 1)
    )
    assert result.weighted_mAP == pytest.approx((20 * first + 5 * second) / 25)
    assert result.mAP == pytest.approx((first + second) / 2)


def test_unknown_targets_count_neither_for_nor_against() -> None:
    scores = np.array([[0.9, 0.9], [0.8, 0.1], [0.7, 0.9]], np.float32)
    targets = np.array([[1, UNKNOWN], [0, 1], [UNKNOWN, UNKNOWN]], np.int8)
    two = replace(SPEC, labels=("a", "b"), thresholds=(0.5, 0.5))
    measured = evaluate(scores, targets, two)
    # Known: a is found once and claimed falsely once; b is missed once.
    assert (measured.OP, measured.OR) == (0.5, 0.5)
    assert (measured.CP, measured.CR) == (0.25, 0.5)
    assert measured.macro_F1 == pytest.approx((2 / 3 + 0) / 2)
    # The first picture is right as far as is known, the second is not, of the third is nothing.
    assert measured.exact_match == 0.5
    assert measured.images == 3
    assert measured.labels["b"].positives == 1


def test_what_cannot_be_measured_is_no_number_and_none_in_json() -> None:
    for targets in (np.zeros((0, 5), np.int8), np.full((3, 5), UNKNOWN, np.int8)):
        measured = evaluate(np.zeros(targets.shape, np.float32), targets, SPEC)
        as_dict = measured.to_dict()
        assert {name for name, value in as_dict["metrics"].items() if value is None} == {
            "mAP", "CP", "CR", "CF1", "macro_F1", "exact_match",
        }  # fmt: skip
        assert (as_dict["labels_averaged"], as_dict["absent_labels"]) == (0, list(LABELS))
        json.dumps(as_dict, allow_nan=False)


def test_scores_that_do_not_fit_or_are_no_numbers_are_refused() -> None:
    scores, targets = example(n=4)
    with pytest.raises(InputError, match=r"\(N, 5\).*\(4, 5\) and \(3, 5\)"):
        evaluate(scores, targets[:3], SPEC)
    with pytest.raises(InputError, match=r"\(N, 5\)"):
        evaluate(scores[:, :4], targets[:, :4], SPEC)
    scores[1] = np.nan
    with pytest.raises(InputError, match="1 of 4 images"):
        evaluate(scores, targets, SPEC)


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


def _multiclass(labels: int, threshold: float = 0.0) -> ModelSpec:
    return ModelSpec(
        labels=tuple(f"l{i}" for i in range(labels)),
        thresholds=(threshold,) * labels,
        preprocess=Preprocess(size=(8, 8)),
        task="multiclass",
        activation="softmax",
    )


def test_of_a_multiclass_model_the_best_label_is_present_if_it_reaches_its_threshold() -> None:
    scores = np.array([[0.2, 0.5, 0.3], [0.4, 0.3, 0.3]], np.float32)
    assert decide(scores, _multiclass(3)).tolist() == [[False, True, False], [True, False, False]]
    assert decide(scores, _multiclass(3, 0.45)).tolist() == [[False, True, False], [False] * 3]


def test_top1_and_top5_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    scores = rng.dirichlet(np.ones(9), 200).astype(np.float32)
    truth = rng.integers(0, 9, 200)
    found = evaluate(scores, np.eye(9, dtype=np.int8)[truth], _multiclass(9))
    for k, got in ((1, found.top1), (5, found.top5)):
        assert got == pytest.approx(
            reference.top_k_accuracy_score(truth, scores, k=k, labels=range(9))
        )
    assert list(found.to_dict()["metrics"])[:3] == ["top1", "top5", "mAP"]
    assert found.exact_match == pytest.approx(found.top1)


def test_a_multilabel_model_has_no_top1() -> None:
    spec = ModelSpec(labels=("a",), thresholds=(0.5,), preprocess=Preprocess(size=(8, 8)))
    found = evaluate(np.ones((1, 1), np.float32), np.ones((1, 1), np.int8), spec)
    assert "top1" not in found.to_dict()["metrics"]


ONE_OF_THREE = LabelGroup(name="kind", labels=("shirt", "dress", "hat"), rule="one")
READINGS = (
    SPEC,
    replace(SPEC, activation="none"),
    replace(SPEC, groups=(ONE_OF_THREE,), thresholds=(0.2, 0.5, 0.7, 0.9, 0.0)),
    replace(SPEC, groups=(ONE_OF_THREE,), activation="group_softmax"),
    replace(SPEC, task="multiclass", activation="softmax", thresholds=(0.25,) * 5),
)


@pytest.mark.parametrize("spec", READINGS, ids=lambda spec: f"{spec.task} {spec.activation}")
@given(logits=arrays(np.float32, (1, 5), elements=st.floats(-100, 100, width=32)))
def test_one_picture_is_read_in_plain_python_as_many_are_in_numpy(
    spec: ModelSpec, logits: NDArray[np.float32]
) -> None:
    scores, labels = interpret(logits, spec)
    many = probabilities(np.repeat(logits, 2, axis=0), spec)
    np.testing.assert_allclose(scores[0], many[0], rtol=2e-7, atol=1e-38)
    assert list(labels[0]) == [spec.labels[i] for i in np.flatnonzero(decide(scores, spec)[0])]

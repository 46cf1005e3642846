"""The numbers of a training report, against scikit-learn and by hand."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from edgeml.spec.labels import LabelGroup
from edgeml.training.report.files import per_label_csv, report_json
from edgeml.training.report.findings import ScoredSplit, analyse
from tests.training.report_inputs import (
    COLOUR,
    EPOCH,
    LABELS,
    THRESHOLDS,
    decided,
    measured,
    spec_of,
    strict_json,
    training,
)


def test_the_json_holds_what_scikit_learn_measures() -> None:
    inputs = training()
    document = measured(inputs)
    splits = {"val": inputs.val, "test": inputs.test}
    assert set(document["metrics"]) == set(splits)
    for name, split in splits.items():
        assert split
        truth, present = split.targets, decided(split)
        precision, recall, f1, support = sk.precision_recall_fscore_support(
            truth, present, zero_division=0
        )
        AP = sk.average_precision_score(truth, split.scores, average=None)
        for column, label in enumerate(LABELS):
            entry = document["labels"][label]
            assert entry["threshold"] == THRESHOLDS[column]
            assert entry[name] == {
                "AP": pytest.approx(AP[column], rel=1e-5),
                "precision": pytest.approx(precision[column], rel=1e-5),
                "recall": pytest.approx(recall[column], rel=1e-5),
                "F1": pytest.approx(f1[column], rel=1e-5),
                "positives": support[column],
                "known": len(truth),
            }
        summary = document["metrics"][name]
        assert summary["images"] == len(truth)
        assert summary["mAP"] == pytest.approx(AP.mean(), rel=1e-5)
        assert summary["macro_F1"] == pytest.approx(f1.mean(), rel=1e-5)
        assert summary["OF1"] == pytest.approx(sk.f1_score(truth, present, average="micro"))
        assert summary["exact_match"] == pytest.approx(sk.accuracy_score(truth, present))


def test_the_json_holds_confusion_cooccurrence_and_curves_of_the_test_split() -> None:
    inputs = training()
    document = measured(inputs)
    split = inputs.test
    assert split
    assert document["side"] == "test"
    matrix = sk.confusion_matrix(
        split.targets[:, :3].argmax(axis=1), split.scores[:, :3].argmax(axis=1)
    )
    assert document["confusion"] == {
        "colour": {"labels": list(COLOUR.labels), "counts": matrix.tolist()}
    }
    assert document["cooccurrence"]["labels"] == list(LABELS)
    for row in range(6):
        for column in range(6):
            both = sum(t[row] == 1 and t[column] == 1 for t in split.targets)
            assert document["cooccurrence"]["counts"][row][column] == both
    for column, label in enumerate(LABELS):
        entry = document["precision_recall"][label]
        precision, recall, _ = sk.precision_recall_curve(
            split.targets[:, column], split.scores[:, column]
        )
        for point in zip(entry["recall"], entry["precision"], strict=True):
            assert np.isclose(np.c_[recall, precision], point, rtol=1e-5).all(axis=1).any()
        area = (np.diff(entry["recall"], prepend=0) * entry["precision"]).sum()
        assert area == pytest.approx(document["labels"][label]["test"]["AP"], rel=1e-4)
        numbers = document["labels"][label]["test"]
        assert entry["mark"] == [numbers["recall"], numbers["precision"]]
        assert entry["prevalence"] == pytest.approx(numbers["positives"] / 80)


def test_the_json_holds_reliability_before_and_after_the_temperature() -> None:
    inputs = training()
    document = measured(inputs)
    assert document["temperature"] == 1.25
    assert inputs.test is not None
    assert inputs.uncalibrated is not None
    for name, scores, targets in (
        ("val_before", inputs.uncalibrated, inputs.val.targets),
        ("val", inputs.val.scores, inputs.val.targets),
        ("test", inputs.test.scores, inputs.test.targets),
    ):
        entry, gap, total = document["reliability"][name], 0.0, scores.size
        for low in range(15):
            inside = np.minimum(scores.astype(float) * 15 // 1, 14) == low
            assert entry["count"][low] == inside.sum()
            if inside.any():
                assert entry["confidence"][low] == pytest.approx(scores[inside].mean(), rel=1e-4)
                assert entry["frequency"][low] == pytest.approx(targets[inside].mean(), rel=1e-4)
                gap += abs(scores[inside].mean() - targets[inside].mean()) * inside.sum() / total
            else:
                assert entry["confidence"][low] is None
        assert entry["ece"] == pytest.approx(gap, rel=1e-4)
        assert entry["brier"] == pytest.approx(np.square(scores - targets).mean(), rel=1e-4)


def test_the_csv_has_a_row_for_each_label_with_the_numbers_of_the_json() -> None:
    inputs = training()
    document = measured(inputs)
    rows = list(csv.DictReader(per_label_csv(inputs, analyse(inputs)).splitlines()))
    assert [row["label"] for row in rows] == list(LABELS)
    assert [row["group"] for row in rows] == ["colour"] * 3 + [""] * 3
    for row in rows:
        of = document["labels"][row["label"]]
        assert float(row["threshold"]) == of["threshold"]
        for split in ("val", "test"):
            for key, value in of[split].items():
                assert float(row[f"{split}_{key}"]) == value


def test_pairs_that_are_confused_are_counted_within_a_group_and_among_the_rest() -> None:
    targets = np.zeros((5, 6), np.int8)
    targets[:, 0] = 1  # all are red
    targets[:3, 3] = 1  # and three a shirt
    scores = np.full((5, 6), 0.1, np.float32)
    scores[:4, 1] = 0.9  # four are predicted as green
    scores[4, 0] = 0.9
    scores[:2, 4] = 0.9  # two shirts as dresses
    scores[2, 3] = 0.9
    split = ScoredSplit(scores=scores, targets=targets, paths=(Path("a"),) * 5)
    entry = analyse(training(test=split)).confused
    assert [(one.truth, one.predicted, one.count, one.positives) for one in entry] == [
        ("red", "green", 4, 5),
        ("shirt", "dress", 2, 3),
    ]


@pytest.mark.parametrize(
    ("wait", "bottleneck"), [(0.5, "data"), (0.01, "compute"), (math.nan, None)]
)
def test_the_bottleneck_follows_from_the_waiting_time(wait: float, bottleneck: str | None) -> None:
    # The first epoch, which fills caches, does not count.
    history = [
        replace(EPOCH, epoch=1, wait=0.9, images_per_s=10.0),
        replace(EPOCH, epoch=2, wait=wait),
    ]
    speed = measured(training(history=history))["speed"]
    assert speed["bottleneck"] == bottleneck
    assert speed["images_per_s"] == 200.0


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_splits_can_be_measured_and_written(data: st.DataObject) -> None:
    width = data.draw(st.integers(2, 5))
    labels = tuple("abcde"[:width])
    grouped = data.draw(st.integers(0, width))
    groups = (LabelGroup(name="g", labels=labels[:grouped], rule="one"),) if grouped > 1 else ()

    def split() -> ScoredSplit:
        rows = data.draw(st.integers(0, 6))
        cells = st.lists(
            st.tuples(st.sampled_from([-1, 0, 1]), st.floats(0, 1, width=32)),
            min_size=rows * width,
            max_size=rows * width,
        )
        drawn = np.array(data.draw(cells), np.float32).reshape(rows, width, 2)
        return ScoredSplit(
            targets=drawn[:, :, 0].astype(np.int8), scores=drawn[:, :, 1], paths=(Path("x"),) * rows
        )

    inputs = training(spec=spec_of(labels, groups), val=split(), test=split(), uncalibrated=None)
    entry = analyse(inputs)
    document = strict_json(report_json(inputs, entry))
    shown = inputs.test if document["side"] == "test" else inputs.val
    assert shown
    wrong = [one for one in document["worst"] if one["truth"] != one["predicted"]]
    assert len(wrong) == len(document["worst"]) <= len(shown.targets)
    assert len(per_label_csv(inputs, entry).splitlines()) == width + 1

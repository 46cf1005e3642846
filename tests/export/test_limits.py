from __future__ import annotations

import math
from dataclasses import replace

import pytest

from edgeml.errors import DataError
from edgeml.measure.bootstrap import ApLoss, ApLosses
from edgeml.measure.compare import Fidelity
from edgeml.measure.metrics import LabelMetrics, Metrics
from edgeml_export.limits import Limits, judge, limits_for
from tests.notes import Notes

NOTHING = ApLoss(points=0.0, low=0.0, high=0.0)


def metrics(*aps: float, positives: int = 500) -> Metrics:
    labels = {
        f"label {i}": LabelMetrics(AP=ap, F1=0.5, threshold=0.5, positives=positives)
        for i, ap in enumerate(aps)
    }
    names = ("CP", "CR", "CF1", "macro_F1", "OP", "OR", "OF1", "exact_match")
    shares = dict.fromkeys(names, 0.5)
    return Metrics(mAP=sum(aps) / len(aps), images=1000, labels=labels, **shares)


def fidelity(**changes: object) -> Fidelity:
    same = Fidelity(
        images=1000,
        inputs_equal=1000,
        inputs_max_abs=0.0,
        max_abs=1e-6,
        mean_abs=1e-7,
        quantiles={"p50": 1e-7, "p90": 1e-7, "p99": 1e-7, "p99.9": 1e-6},
        probability_mean_abs=1e-8,
        label_flips_per_1000=0.0,
        flips={"label 0": 0, "label 1": 0},
        reference=metrics(0.9, 0.8),
        exported=metrics(0.9, 0.8),
        drops=ApLosses(mAP=NOTHING, labels={"label 0": NOTHING, "label 1": NOTHING}),
    )
    return replace(same, **changes)


def losing(*points: float) -> dict[str, object]:
    """Lose so many points of each label's AP, give or take half a point."""
    each = [ApLoss(points=p, low=p - 0.5, high=p + 0.5) for p in points]
    mean = sum(points) / len(points)
    return {
        "exported": metrics(
            *(before - p / 100 for before, p in zip((0.9, 0.8), points, strict=True))
        ),
        "drops": ApLosses(
            mAP=ApLoss(points=mean, low=mean - 0.4, high=mean + 0.4),
            labels={f"label {i}": drop for i, drop in enumerate(each)},
        ),
    }


def limits(precision: str, **own: float | None) -> Limits:
    return limits_for(precision, **{"max_drop": None, "max_label_drop": None, **own})


def codes(difference: Fidelity, limits: Limits) -> list[str]:
    return [finding.code for finding in judge(difference, limits)]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_equal_outputs_pass(precision: str) -> None:
    assert judge(fidelity(), limits(precision)) == ()


@pytest.mark.parametrize(
    ("precision", "change", "code", "values"),
    [
        ("fp32", {"max_abs": 1.1e-3}, "max-abs", ("0.0011", "0.001")),
        ("fp32", {"label_flips_per_1000": 0.5}, "flips", ("0.50 of 1000", "allowed are 0")),
        ("fp16", {"label_flips_per_1000": 5.5}, "flips", ("5.50 of 1000", "allowed are 5")),
        ("fp16", losing(0.6, 0.6), "drop", ("0.60 points (95 % interval 0.20 to 1.00)",)),
        ("fp16", losing(1.1, -0.2), "label-drop", ("AP of 'label 0' fell by 1.10 points",)),
        ("int8", losing(2.9, 2.1), "drop", ("2.50 points", "allowed are 2 (--max-drop)")),
        ("int8", losing(-1, 4), "label-drop", ("'label 1'", "are 3 (--max-label-drop)")),
        ("int8", {"max_abs": math.inf}, "not-finite", ()),
        ("int8", {"probability_mean_abs": 0.04}, "probabilities", ("0.04", "0.03")),
    ],
)
def test_a_difference_above_its_limit_is_found_with_its_values(
    precision: str, change: dict[str, object], code: str, values: tuple[str, ...]
) -> None:
    (finding,) = judge(fidelity(**change), limits(precision))
    assert finding.code == code
    for value in values:
        assert value in finding.message


@pytest.mark.parametrize(
    ("precision", "change"),
    [
        ("fp16", {"max_abs": 0.5, "label_flips_per_1000": 4.9}),
        ("fp16", losing(0.4, 0.0)),
        ("int8", {"max_abs": 5.0, "label_flips_per_1000": 80.0}),
        ("int8", losing(0.9, 2.9)),
        ("int8", losing(-5.0, -10.0)),
    ],
)
def test_differences_that_the_precision_explains_pass(
    precision: str, change: dict[str, object]
) -> None:
    assert judge(fidelity(**change), limits(precision)) == ()


def test_limits_of_the_user_replace_those_of_the_precision() -> None:
    lost = fidelity(**losing(2.9, 0.1))
    assert codes(lost, limits("int8")) == []
    assert codes(lost, limits("int8", max_drop=1.0)) == ["drop"]
    much = fidelity(**losing(40, 0))
    assert codes(much, limits("int8", max_drop=30.0, max_label_drop=50.0)) == []


def test_a_label_that_really_lost_is_not_hidden_by_the_mean() -> None:
    traded = fidelity(**losing(6, -6))
    assert traded.drops.mAP.points == 0
    (finding,) = judge(traded, limits("int8"))
    assert finding.code == "label-drop"
    assert "'label 0'" in finding.message


@pytest.mark.parametrize("low", [-1.0, 0.0, math.nan])
def test_a_label_whose_loss_may_be_chance_passes_and_is_named(low: float) -> None:
    doubtful = ApLoss(points=12.0, low=low, high=math.nan if math.isnan(low) else 25.0)
    drops = ApLosses(mAP=NOTHING, labels={"label 0": NOTHING, "label 1": doubtful})
    rare = replace(metrics(0.9, 0.8), labels=dict(metrics(0.9, 0.8).labels))
    rare.labels["label 1"] = replace(rare.labels["label 1"], positives=2)
    notes = Notes()
    difference = fidelity(drops=drops, reference=rare)
    assert judge(difference, limits("int8"), progress=notes) == ()
    (line,) = notes.lines
    assert "'label 1' by 12.00 with 2 positives" in line
    assert "3 points allowed" in line
    interval = "too few positives" if math.isnan(low) else f"95 % interval {low:.2f} to 25.00"
    assert interval in line
    assert "label 0" not in line


def test_the_limit_of_the_mean_applies_whatever_its_interval() -> None:
    unsure = ApLoss(points=2.1, low=-3.0, high=7.0)
    drops = ApLosses(mAP=unsure, labels={"label 0": NOTHING, "label 1": NOTHING})
    (finding,) = judge(fidelity(drops=drops), limits("int8"))
    assert "2.10 points (95 % interval -3.00 to 7.00)" in finding.message


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("furthest", [1e-6, 0.3, math.inf])
def test_no_precision_allows_another_input(precision: str, furthest: float) -> None:
    other = fidelity(inputs_equal=988, inputs_max_abs=furthest)
    (finding,) = judge(other, limits(precision))
    assert finding.code == "inputs"
    assert f"inputs of 12 images differ, by up to {furthest:.2g}" in finding.message


def test_all_exceeded_limits_are_found_at_once() -> None:
    broken = fidelity(
        inputs_equal=0,
        inputs_max_abs=2.0,
        max_abs=4.0,
        label_flips_per_1000=300.0,
        **losing(30, 20),
    )
    assert codes(broken, limits("fp32")) == ["inputs", "max-abs", "flips"]
    assert codes(broken, limits("fp16")) == ["inputs", "flips", "drop", "label-drop", "label-drop"]
    assert codes(broken, limits("int8")) == ["inputs", "drop", "label-drop", "label-drop"]


def test_a_label_that_no_image_shows_has_nothing_to_lose() -> None:
    absent = replace(metrics(0.9, math.nan), mAP=0.9)
    nothing = ApLoss(points=math.nan, low=math.nan, high=math.nan)
    drops = ApLosses(mAP=NOTHING, labels={"label 0": NOTHING, "label 1": nothing})
    notes = Notes()
    same = fidelity(reference=absent, exported=absent, drops=drops)
    assert judge(same, limits("int8", max_label_drop=0.0), progress=notes) == ()
    assert notes.lines == []


def test_without_any_label_there_is_no_judgement() -> None:
    nothing = metrics(math.nan, math.nan, positives=0)
    with pytest.raises(DataError, match="No image"):
        judge(fidelity(reference=nothing, exported=nothing), limits("int8"))


def test_a_limit_finer_than_the_images_can_tell_is_noted() -> None:
    notes = Notes()
    few = metrics(0.9, 0.8, positives=10)
    small = fidelity(images=20, reference=few, exported=few)
    judge(small, limits("fp16"), progress=notes)
    # 20 images by 2 labels are 40 decisions: one is 25 of 1000. 20 positives: one is 5 points.
    assert "25.0 per 1000" in notes.lines[0]
    assert "5.0 points" in notes.lines[1]
    notes.lines.clear()
    judge(fidelity(), limits("fp16"), progress=notes)
    assert notes.lines == []

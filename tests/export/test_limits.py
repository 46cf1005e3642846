from __future__ import annotations

import math
from dataclasses import replace

import pytest

from edgeml.bootstrap import Drop, Drops
from edgeml.compare import Fidelity
from edgeml.errors import DataError, FidelityError
from edgeml.metrics import LabelMetrics, Metrics
from edgeml.progress import Progress
from edgeml_export.limits import judge, limits_for

NOTHING = Drop(points=0.0, low=0.0, high=0.0)


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
        drops=Drops(mAP=NOTHING, labels={"label 0": NOTHING, "label 1": NOTHING}),
    )
    return replace(same, **changes)


def limits(precision: str, **own: float | None) -> object:
    return limits_for(precision, **{"max_drop": None, "max_label_drop": None, **own})


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_what_is_equal_passes(precision: str) -> None:
    assert judge(fidelity(), limits(precision), "m.onnx").passed is True


@pytest.mark.parametrize(
    ("precision", "change", "told"),
    [
        ("fp32", {"max_abs": 1.1e-3}, "a logit is off by 0.0011, allowed are 0.001"),
        ("fp32", {"label_flips_per_1000": 0.5}, "0.50 of 1000 labels flip, allowed are 0"),
        ("fp16", {"label_flips_per_1000": 5.5}, "5.50 of 1000 labels flip, allowed are 5"),
        ("fp16", {"exported": metrics(0.88, 0.8)}, "mAP fell by 1.00 points, allowed are 0.5"),
        ("int8", {"exported": metrics(0.85, 0.8)}, "mAP fell by 2.50 points, allowed are 2"),
        ("int8", {"max_abs": math.inf}, "some of its logits are not numbers"),
    ],
)
def test_what_differs_too_much_is_refused_with_its_numbers(
    precision: str, change: dict[str, object], told: str
) -> None:
    with pytest.raises(FidelityError, match=r"m\.onnx disagrees with its source on 1000") as caught:
        judge(fidelity(**change), limits(precision), "m.onnx")
    assert told in str(caught.value)
    assert caught.value.fidelity == replace(fidelity(**change), passed=False)


@pytest.mark.parametrize(
    ("precision", "change"),
    [
        ("fp16", {"max_abs": 0.5, "label_flips_per_1000": 4.9}),
        ("fp16", {"exported": metrics(0.895, 0.8)}),
        ("int8", {"max_abs": 5.0, "label_flips_per_1000": 80.0}),
        ("int8", {"exported": metrics(0.9, 0.765)}),
        ("int8", {"exported": metrics(0.95, 0.9)}),
    ],
)
def test_what_the_precision_explains_passes(precision: str, change: dict[str, object]) -> None:
    assert judge(fidelity(**change), limits(precision), "m.onnx").passed


def test_the_user_s_limits_stand_instead() -> None:
    lost = fidelity(exported=metrics(0.87, 0.8))
    judge(lost, limits("int8"), "m.onnx")
    with pytest.raises(FidelityError, match="--max-drop"):
        judge(lost, limits("int8", max_drop=1.0), "m.onnx")
    judge(fidelity(exported=metrics(0.5, 0.8)), limits("int8", max_drop=30.0), "m.onnx")


def test_one_label_can_be_held_to_a_limit_of_its_own() -> None:
    traded = fidelity(exported=metrics(0.84, 0.86))
    judge(traded, limits("int8"), "m.onnx")
    with pytest.raises(FidelityError, match=r"AP of 'label 0' fell by 6\.00 points"):
        judge(traded, limits("int8", max_label_drop=5.0), "m.onnx")


def test_a_label_that_no_image_shows_has_nothing_to_lose() -> None:
    absent = replace(metrics(0.9, math.nan), mAP=0.9)
    same = fidelity(reference=absent, exported=absent)
    assert judge(same, limits("int8", max_label_drop=0.0), "m.onnx").passed


def test_without_any_label_there_is_no_judgement() -> None:
    nothing = metrics(math.nan, math.nan, positives=0)
    with pytest.raises(DataError, match="No image"):
        judge(fidelity(reference=nothing, exported=nothing), limits("int8"), "m.onnx")


def test_a_limit_finer_than_the_images_can_tell_is_noted() -> None:
    said: list[str] = []

    class Notes(Progress):
        def note(self, text: str) -> None:
            said.append(text)

    few = metrics(0.9, 0.8, positives=10)
    small = fidelity(images=20, reference=few, exported=few)
    judge(small, limits("fp16"), "m.onnx", progress=Notes())
    # 20 images by 2 labels are 40 decisions: one is 25 of 1000. 20 positives: one is 5 points.
    assert "25.0 per 1000" in said[0]
    assert "5.0 points" in said[1]
    said.clear()
    judge(fidelity(), limits("fp16"), "m.onnx", progress=Notes())
    assert said == []

"""How much an exported model may differ from its source, and why that much."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from edgeml.errors import DataError, InputError
from edgeml.measure.bootstrap import ApLoss
from edgeml.measure.compare import Fidelity
from edgeml.progress import SILENT, Progress
from edgeml.spec.model_spec import Precision


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a model: a code for programs, which stays, and a message.

    The message is for people, with the values; a clause without a full stop.
    """

    code: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The largest allowed differences; infinity where the precision implies no limit.

    Attributes:
        inputs: Difference of any value of the normalised input. No precision explains one:
            precision begins behind the input. Frames that a model takes raw are normalised for
            the comparison by the same code, so they cannot differ either.
        max_abs: Difference of any logit.
        probabilities: Mean difference of the probabilities, 0 to 1. An activation that is applied
            twice, or omitted, ranks all images as before, and in a group decides as before.
        flips_per_1000: Flipped labels per 1000 decisions.
        drop: Lost points of mAP (0 to 100) on these images. A limit is a promise about what was
            measured: that a loss may be chance is no excuse.
        label_drop: Points of AP that any single label loses, if its 95 % interval lies above 0:
            with few positives, one image more or less moves a label by more than any useful limit.
    """

    inputs: float = 0.0
    max_abs: float = math.inf
    # INT8 moves them by 0.004 on a real model (MobileNetV2, 21 labels in a softmax group); a
    # second activation by 0.09 there, and by 0.4 where each label has a sigmoid of its own.
    probabilities: float = 0.03
    flips_per_1000: float = math.inf
    drop: float = math.inf
    label_drop: float = math.inf


LIMITS: dict[Precision, Limits] = {
    # The same arithmetic in another order: about 1e-5 is usual; above 1e-3 the network differs.
    "fp32": Limits(max_abs=1e-3, flips_per_1000=0.0),
    # 11 bits of mantissa: logits move by 0.1 to 1.5 % of their spread (a small CNN, MobileNetV2),
    # which flips only labels that were at a threshold already. No ranking changes visibly. All
    # allowed flips could be those of one label, which the mean over labels would hide.
    "fp16": Limits(flips_per_1000=5.0, drop=0.5, label_drop=1.0),
    # 8 bits: flips at the thresholds are expected and mostly even out. What must stay is the
    # ranking, which mAP measures; 2 points are what the project promises. One of 20 labels could
    # lose 40 points within that, so each has its own limit: 3 points, which no label of a real
    # fine-tuned model (MobileNetV2, 21 kinds of clothes) really loses either.
    "int8": Limits(drop=2.0, label_drop=3.0),
}


def limits_for(
    precision: Precision, *, max_drop: float | None, max_label_drop: float | None
) -> Limits:
    """Return the limits of a precision, with those that the user set instead.

    Raises:
        InputError: One that was set is NaN or below 0.
    """
    for name, points in (("--max-drop", max_drop), ("--max-label-drop", max_label_drop)):
        if points is not None and not points >= 0:
            raise InputError(f"{name} is {points:g}: give the points that may be lost, 0 or more.")
    limits = LIMITS[precision]
    if max_drop is not None:
        limits = replace(limits, drop=max_drop)
    if max_label_drop is not None:
        limits = replace(limits, label_drop=max_label_drop)
    return limits


def judge(
    fidelity: Fidelity, limits: Limits, *, progress: Progress = SILENT
) -> tuple[Finding, ...]:
    """Return the limits that are exceeded; note the limits that the images are too few to test.

    Raises:
        DataError: No image shows any label, so there is no mAP to compare.
    """
    if math.isnan(fidelity.reference.mAP):
        raise DataError("No image of the check shows any label: the models cannot be judged.")
    _note_resolution(fidelity, limits, progress)
    _note_doubtful_labels(fidelity, limits, progress)
    return tuple(exceeded(fidelity, limits))


def joined(findings: Iterable[Finding]) -> str:
    """Return the messages as clauses of one sentence."""
    return "; ".join(finding.message for finding in findings)


def exceeded(fidelity: Fidelity, limits: Limits) -> list[Finding]:
    """Return the limits that are exceeded."""
    is_finite, drop = not math.isinf(fidelity.max_abs), fidelity.drops.mAP
    flips = fidelity.label_flips_per_1000
    faults = [
        (
            fidelity.inputs_max_abs > limits.inputs,
            "inputs",
            f"the inputs of {fidelity.images - fidelity.inputs_equal} images differ, by up to "
            f"{fidelity.inputs_max_abs:.2g} after normalisation: the models prepare images in "
            "different ways (mean, deviation, order of colours, size or resize)",
        ),
        (not is_finite, "not-finite", "some of its logits are NaN or infinity"),
        (
            is_finite and fidelity.max_abs > limits.max_abs,
            "max-abs",
            f"a logit is off by {fidelity.max_abs:.2g}, allowed are {limits.max_abs:g}",
        ),
        (
            fidelity.probability_mean_abs > limits.probabilities,
            "probabilities",
            f"probabilities are off by {fidelity.probability_mean_abs:.2g} on average, allowed "
            f"are {limits.probabilities:g}: is an activation applied twice, or not at all?",
        ),
        (
            flips > limits.flips_per_1000,
            "flips",
            f"{flips:.2f} of 1000 labels flip, allowed are {limits.flips_per_1000:g}",
        ),
        (
            drop.points > limits.drop,
            "drop",
            f"mAP fell by {drop.points:.2f} points ({_interval(drop)}), allowed are "
            f"{limits.drop:g} (--max-drop)",
        ),
    ]
    return [Finding(code, message) for is_over, code, message in faults if is_over] + [
        Finding(
            "label-drop",
            f"AP of {label!r} fell by {drop.points:.2f} points ({_interval(drop)}), allowed are "
            f"{limits.label_drop:g} (--max-label-drop)",
        )
        for label, drop in _lossy(fidelity, limits).items()
        if drop.low > 0
    ]


def _lossy(fidelity: Fidelity, limits: Limits) -> dict[str, ApLoss]:
    """Return the labels that lost more than is allowed, by chance or not.

    A label that no image shows has no AP to lose: its points are NaN.
    """
    drops = fidelity.drops.labels
    return {label: drop for label, drop in drops.items() if drop.points > limits.label_drop}


def _interval(drop: ApLoss) -> str:
    if math.isnan(drop.low):
        return "too few positives for an interval"
    return f"95 % interval {drop.low:.2f} to {drop.high:.2f}"


def _note_doubtful_labels(fidelity: Fidelity, limits: Limits, progress: Progress) -> None:
    """Name the labels whose loss exceeds the limit and may be chance."""
    doubtful = [
        f"{label!r} by {drop.points:.2f} with {fidelity.reference.labels[label].positives} "
        f"positives ({_interval(drop)})"
        for label, drop in _lossy(fidelity, limits).items()
        if not drop.low > 0
    ]
    if doubtful:
        progress.note(
            f"AP fell by more than the {limits.label_drop:g} points allowed, but with so few "
            f"images that may be chance: {'; '.join(doubtful)}. Check with more."
        )


def _note_resolution(fidelity: Fidelity, limits: Limits, progress: Progress) -> None:
    """Note when a single image moves a measure by more than its limit."""
    labels = fidelity.reference.labels
    flip = 1000 / (fidelity.images * len(labels))
    if 0 < limits.flips_per_1000 < flip:
        progress.note(
            f"The check has {fidelity.images} images: a single flip counts {flip:.1f} per 1000, "
            f"more than the {limits.flips_per_1000:g} allowed. Check with more."
        )
    # One positive that sinks from the top to the bottom of its label costs 1/positives of AP.
    step = 100 / sum(label.positives for label in labels.values())
    if limits.drop < step:
        progress.note(
            f"The check has {fidelity.images} images: one of them can move mAP by {step:.1f} "
            f"points, more than the {limits.drop:g} allowed. Check with more."
        )

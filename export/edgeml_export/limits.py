"""How much an exported model may differ from its source, and why that much."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from edgeml.errors import DataError, InputError
from edgeml.measure.bootstrap import Drop
from edgeml.measure.compare import Fidelity, FidelityError
from edgeml.progress import SILENT, Progress
from edgeml.spec.model_spec import Precision


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The most that is allowed; infinity where a measure says nothing about the precision.

    Attributes:
        inputs: Difference of any value of the normalised input. No precision explains one:
            precision begins behind the input. Frames that a model takes raw are normalised for
            the comparison by the same code, so that nothing is left to differ there either.
        max_abs: Difference of any logit.
        probabilities: Mean difference of the probabilities, 0 to 1. An activation that is applied
            twice, or left out, ranks all images as before, and in a group decides as before.
        flips_per_1000: Labels that flip, of 1000 decisions.
        drop: Points of mAP (0 to 100) that are lost on the images as they are. A promise is held
            on what was measured; that it could be an accident is no excuse.
        label_drop: Points of AP that any one label loses, if its 95 % interval lies above 0: with
            few positives, one image more or less moves a label by more than any useful limit.
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
    # The same arithmetic in another order: some 1e-5 is usual, above 1e-3 something else is done.
    "fp32": Limits(max_abs=1e-3, flips_per_1000=0.0),
    # 11 bits of mantissa: logits move by 0.1 to 1.5 % of their spread (a small CNN, MobileNetV2),
    # which flips only what lay at a threshold already. No ranking of images changes visibly. All
    # flips that are allowed could be those of one label, which the mean over labels would hide.
    "fp16": Limits(flips_per_1000=5.0, drop=0.5, label_drop=1.0),
    # 8 bits: flips at the thresholds are expected and mostly even out. What must stay is the
    # ranking, of which mAP is the measure; 2 points are what the project promises. Of 20 labels
    # one alone could lose 40 points within that, so each has its own limit: 3 points, which on a
    # real fine-tuned model (MobileNetV2, 21 kinds of clothes) no label may really lose either.
    "int8": Limits(drop=2.0, label_drop=3.0),
}


def limits_for(
    precision: Precision, *, max_drop: float | None, max_label_drop: float | None
) -> Limits:
    """Take the limits of a precision, with those that the user set instead.

    Raises:
        InputError: One that was set is no number, or below 0.
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
    fidelity: Fidelity, limits: Limits, name: str, *, progress: Progress = SILENT
) -> Fidelity:
    """Give the comparison as passed; says which limits the images are too few to test.

    Args:
        fidelity: What was found.
        limits: What is allowed.
        name: Of the model, for the messages.
        progress: Where notes go.

    Raises:
        FidelityError: A limit is exceeded; says which, by how much, and carries the comparison.
        DataError: No image shows any label, so there is no mAP to compare.
    """
    if math.isnan(fidelity.reference.mAP):
        raise DataError("No image of the check shows any label: the models cannot be judged.")
    _note_resolution(fidelity, limits, progress)
    _note_doubtful_labels(fidelity, limits, progress)
    found = exceeded(fidelity, limits)
    if found:
        raise FidelityError(
            f"{name} disagrees with its source on {fidelity.images} images: {'; '.join(found)}. "
            "Nothing was written.",
            replace(fidelity, passed=False),
        )
    return replace(fidelity, passed=True)


def exceeded(fidelity: Fidelity, limits: Limits) -> list[str]:
    """Say in words which limits do not hold; nothing if all do."""
    found = []
    if fidelity.inputs_max_abs > limits.inputs:
        found.append(
            f"the inputs of {fidelity.images - fidelity.inputs_equal} images differ, by up to "
            f"{fidelity.inputs_max_abs:.2g} after normalisation: the models prepare images in "
            "different ways (mean, deviation, order of colours, size or resize)"
        )
    if math.isinf(fidelity.max_abs):
        found.append("some of its logits are not numbers")
    elif fidelity.max_abs > limits.max_abs:
        found.append(f"a logit is off by {fidelity.max_abs:.2g}, allowed are {limits.max_abs:g}")
    if fidelity.probability_mean_abs > limits.probabilities:
        found.append(
            f"probabilities are off by {fidelity.probability_mean_abs:.2g} on average, allowed "
            f"are {limits.probabilities:g}: is an activation applied twice, or not at all?"
        )
    if fidelity.label_flips_per_1000 > limits.flips_per_1000:
        found.append(
            f"{fidelity.label_flips_per_1000:.2f} of 1000 labels flip, "
            f"allowed are {limits.flips_per_1000:g}"
        )
    drop = fidelity.drops.mAP
    if drop.points > limits.drop:
        found.append(
            f"mAP fell by {drop.points:.2f} points ({_interval(drop)}), "
            f"allowed are {limits.drop:g} (--max-drop)"
        )
    for label, drop in _lossy(fidelity, limits).items():
        if drop.low > 0:
            found.append(
                f"AP of {label!r} fell by {drop.points:.2f} points ({_interval(drop)}), "
                f"allowed are {limits.label_drop:g} (--max-label-drop)"
            )
    return found


def _lossy(fidelity: Fidelity, limits: Limits) -> dict[str, Drop]:
    """Give the labels that lost more than is allowed, by accident or not.

    A label that no image shows has no AP to lose: its points are NaN.
    """
    drops = fidelity.drops.labels
    return {label: drop for label, drop in drops.items() if drop.points > limits.label_drop}


def _interval(drop: Drop) -> str:
    if math.isnan(drop.low):
        return "too few positives for an interval"
    return f"95 % interval {drop.low:.2f} to {drop.high:.2f}"


def _note_doubtful_labels(fidelity: Fidelity, limits: Limits, progress: Progress) -> None:
    """Name the labels whose loss is above the limit and may be an accident."""
    doubtful = [
        f"{label!r} by {drop.points:.2f} with {fidelity.reference.labels[label].positives} "
        f"positives ({_interval(drop)})"
        for label, drop in _lossy(fidelity, limits).items()
        if not drop.low > 0
    ]
    if doubtful:
        progress.note(
            f"AP fell by more than the {limits.label_drop:g} points allowed, but by too little "
            f"for so few images to tell it from accident: {'; '.join(doubtful)}. Check with more."
        )


def _note_resolution(fidelity: Fidelity, limits: Limits, progress: Progress) -> None:
    """Say when one image alone moves a measure by more than its limit."""
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

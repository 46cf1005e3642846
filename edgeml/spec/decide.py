"""The one decision: from scores to the labels that are present."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeml.spec.labels import Decisions, Scores
from edgeml.spec.model_spec import ModelSpec


def decide(scores: Scores, spec: ModelSpec) -> Decisions:
    """Turn scores (N, labels) into present labels (N, labels): the only such rule in edgeml.

    A label is present at or above its threshold. In a group with rule `one` exactly the label
    with the highest score is, whatever the thresholds say. In a multiclass model the label with
    the highest score is, if it reaches its threshold, and no other.
    """
    present: Decisions = scores >= spec.limits
    if spec.task == "multiclass":
        best = scores.argmax(axis=1)
        present &= best[:, None] == np.arange(scores.shape[1])
    for columns in spec.exclusive:
        best = scores[:, columns].argmax(axis=1)
        present[:, columns] = best[:, None] == np.arange(len(columns))
    return present


def decide_row(scores: Sequence[float], spec: ModelSpec) -> list[bool]:
    """Do what `decide` does for one picture, without numpy: see `ModelSpec.probabilities_of_row`.

    Args:
        scores: Floats that float32 can hold, as those of thresholds are.
        spec: The model's.
    """
    present = [score >= limit for score, limit in zip(scores, spec.limits_of_row, strict=True)]
    if spec.task == "multiclass":
        best = max(range(len(scores)), key=scores.__getitem__)
        return [here and i == best for i, here in enumerate(present)]
    for columns in spec.exclusive:
        best = max(columns, key=scores.__getitem__)
        for i in columns:
            present[i] = i == best
    return present

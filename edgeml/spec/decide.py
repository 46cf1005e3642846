"""The one decision: from the network's output to probabilities, and to the labels that are present.

A single image with few labels takes a way of its own, in plain Python: right after a network has
run, the processor's caches are cold, each numpy function takes 30 to 60 us, and half a dozen are
needed. `benchmarks/predict/floor.py --only overhead` measures what that saves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import InferenceError
from edgeml.spec.labels import Decisions, Scores
from edgeml.spec.model_spec import ModelSpec

NOT_FINITE = "The model returned a score that is not a finite number."
_MAX_ROW_LABELS = 256
"""Up to here plain Python is faster than numpy for one image."""


def interpret(logits: NDArray[np.float32], spec: ModelSpec) -> tuple[Scores, list[tuple[str, ...]]]:
    """Return the probabilities (N, labels) of logits (N, labels), and the labels of each image.

    Raises:
        InferenceError: A logit is not finite.
    """
    if len(logits) == 1 and logits.size <= _MAX_ROW_LABELS:
        row = logits[0].tolist()
        if not math.isfinite(sum(row)):
            raise InferenceError(NOT_FINITE)
        scores = np.array([_row_probabilities(row, spec)], np.float32)
        return scores, [tuple(compress(spec.labels, _decide_row(scores[0].tolist(), spec)))]
    if not np.isfinite(logits).all():
        raise InferenceError(NOT_FINITE)
    scores = probabilities(logits, spec)
    return scores, [tuple(compress(spec.labels, present)) for present in decide(scores, spec)]


def probabilities(logits: NDArray[np.float32], spec: ModelSpec) -> Scores:
    """Apply the spec's activation to the network's output: (N, labels) to (N, labels)."""
    if spec.activation == "none":
        return logits
    if spec.activation == "softmax":
        return _softmax(logits)
    # exp of a large positive number overflows; a logit below -60 is 0 in float32 anyway.
    scores = (1 / (1 + np.exp(-np.maximum(logits, -60.0, dtype=np.float64)))).astype(np.float32)
    for columns in spec.softmax_groups():
        scores[:, columns] = _softmax(logits[:, columns])
    return scores


def decide(scores: Scores, spec: ModelSpec) -> Decisions:
    """Return which labels are present (N, labels) at these probabilities (N, labels).

    A label is present at or above its threshold. In a group with rule `one`, exactly the label
    with the highest score is, whatever the thresholds are. In a multiclass model the label with
    the highest score is, if it reaches its threshold, and no other.
    """
    present: Decisions = scores >= spec.threshold_array
    if spec.task == "multiclass":
        best = scores.argmax(axis=1)
        present &= best[:, None] == np.arange(scores.shape[1])
    for columns in spec.exclusive_groups:
        best = scores[:, columns].argmax(axis=1)
        present[:, columns] = best[:, None] == np.arange(len(columns))
    return present


def _row_probabilities(logits: Sequence[float], spec: ModelSpec) -> list[float]:
    """Return what `probabilities` does, for one image without numpy."""
    match spec.activation:
        case "none":
            return list(logits)
        case "softmax":
            return _row_softmax(logits)
    scores = [1 / (1 + math.exp(-max(logit, -60.0))) for logit in logits]
    for columns in spec.softmax_groups():
        shares = _row_softmax([logits[i] for i in columns])
        for i, share in zip(columns, shares, strict=True):
            scores[i] = share
    return scores


def _decide_row(scores: Sequence[float], spec: ModelSpec) -> list[bool]:
    """Return what `decide` does, for one image: its scores must be values of float32."""
    pairs = zip(scores, spec.threshold_list, strict=True)
    present = [score >= threshold for score, threshold in pairs]
    if spec.task == "multiclass":
        best = max(range(len(scores)), key=scores.__getitem__)
        return [here and i == best for i, here in enumerate(present)]
    for columns in spec.exclusive_groups:
        best = max(columns, key=scores.__getitem__)
        for i in columns:
            present[i] = i == best
    return present


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    exact = logits.astype(np.float64)
    powers = np.exp(exact - exact.max(axis=1, keepdims=True))
    shares: NDArray[np.float32] = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares


def _row_softmax(logits: Sequence[float]) -> list[float]:
    largest = max(logits)
    powers = [math.exp(logit - largest) for logit in logits]
    total = math.fsum(powers)
    return [power / total for power in powers]

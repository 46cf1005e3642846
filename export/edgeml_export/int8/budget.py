"""Mixed precision: which layers hurt, and the fewest that stay float for a budget to hold.

Nothing here knows a runtime. A layer is a name, and callers say what a model is worth with some
layers kept in float: so one list serves ONNX Runtime, OpenVINO and TensorRT.

A tensor with an outlier channel hurts wherever it is quantised: as the output of the layer that
makes it and as the input of the one that takes it. Keeping one of the two cures nothing. Hence
layers are ranked by the damage of each alone, all others in float, which finds both; with all
others in INT8, neither would seem to matter.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeml.progress import SILENT, Progress
from edgeml.spec.labels import Scores
from edgeml.spec.model_spec import ModelSpec

Clock = Callable[[], float]

# A float32 probability near 1 has steps of 6e-8; nothing smaller can be told from certainty.
_CERTAIN = 1e-7

# A block that does less than this share of the worst layer's damage is not looked into.
_HARMLESS = 0.01


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """How much a layer hurts when it alone is quantised.

    Attributes:
        node: Its name.
        damage: Nats a decision, see `divergence`.
        measured: Whether it was tried alone; else the damage is its share of its block's.
    """

    node: str
    damage: float
    measured: bool


def divergence(reference: Scores, candidate: Scores, spec: ModelSpec) -> float:
    """Say how far the probabilities of decisions moved, in nats a decision; 0 if not at all.

    It is the mean, over images and decisions, of the Kullback-Leibler divergence of the candidate
    from the reference (Kullback and Leibler, On Information and Sufficiency, 1951). A label is a
    decision between two; the labels of a softmax group are together one. Unlike metrics this needs
    no targets, and shows a change that has not yet turned a decision.

    Args:
        reference: (N, labels) probabilities.
        candidate: (N, labels) probabilities; if one is no number, the answer is infinite.
        spec: Of both; says which labels are one choice.
    """
    if not np.isfinite(candidate).all():
        return math.inf
    p = np.clip(reference.astype(np.float64), _CERTAIN, 1 - _CERTAIN)
    q = np.clip(candidate.astype(np.float64), _CERTAIN, 1 - _CERTAIN)
    choices = spec.choices()
    grouped = {column for columns in choices for column in columns}
    alone = [column for column in range(p.shape[1]) if column not in grouped]
    parts = [_relative(p[:, alone], q[:, alone]) + _relative(1 - p[:, alone], 1 - q[:, alone])]
    for columns in choices:
        before, after = (part[:, columns] for part in (p, q))
        before, after = (part / part.sum(axis=1, keepdims=True) for part in (before, after))
        parts.append(_relative(before, after).sum(axis=1, keepdims=True))
    return max(0.0, float(np.concatenate(parts, axis=1).mean()))


def _relative(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    terms: NDArray[np.float64] = p * np.log(p / q)
    return terms


def rank(
    nodes: Sequence[str],
    scores_keeping: Callable[[frozenset[str]], Scores],
    reference: Scores,
    spec: ModelSpec,
    *,
    deadline: float | None = None,
    clock: Clock = time.monotonic,
    progress: Progress = SILENT,
) -> list[Sensitivity]:
    """Order layers by the damage that each does alone, worst first.

    Blocks of neighbours are tried first, about as many as each has layers; then the layers of the
    worst block one by one, then those of the next. So the worst layers of N are found in some
    2 sqrt(N) trials, a search that is cut short knows them, and all is known after N + sqrt(N).
    Blocks that do next to nothing are left as they are.

    Args:
        nodes: Names of the layers, in the order of the graph.
        scores_keeping: Gives the probabilities (N, labels) of the model in INT8 but for the
            layers that it is told to keep in float.
        reference: (N, labels) probabilities of the model in float.
        spec: Of the model.
        deadline: When `clock` shows this, no further trial begins; what was not tried takes its
            share of what is known. None: no limit.
        clock: Tells the time in seconds.
        progress: Where the work shows itself.

    Returns:
        Every node once. Of equal damage, the first in the graph comes first.
    """
    every = frozenset(nodes)
    blocks = _blocks(nodes)
    alone: dict[str, float] = {}
    together: dict[tuple[str, ...], float] = {}
    with progress.task("rank layers", total=len(nodes) + len(blocks), unit="trials") as advance:

        def damage(quantized: Sequence[str]) -> float:
            found = divergence(reference, scores_keeping(every - set(quantized)), spec)
            advance(1)
            return found

        def time_is_left() -> bool:
            return deadline is None or clock() < deadline

        for block in blocks:
            if not time_is_left():
                break
            together[block] = damage(block)
        for block in sorted(together, key=lambda block: -together[block]):
            if together[block] < _HARMLESS * max(alone.values(), default=0.0):
                break
            for node in block:
                if not time_is_left():
                    break
                alone[node] = damage([node])
    shares = _shares(blocks, together, alone)
    ranked = [
        Sensitivity(node=node, damage=alone.get(node, shares[node]), measured=node in alone)
        for node in nodes
    ]
    return sorted(ranked, key=lambda one: -one.damage)


def _blocks(nodes: Sequence[str]) -> list[tuple[str, ...]]:
    """Cut the layers into runs of neighbours, of about the root of their number each."""
    size = max(1, round(math.sqrt(len(nodes))))
    return [tuple(nodes[start : start + size]) for start in range(0, len(nodes), size)]


def _shares(
    blocks: Sequence[tuple[str, ...]],
    together: dict[tuple[str, ...], float],
    alone: dict[str, float],
) -> dict[str, float]:
    """Divide what a block does, and its layers tried so far do not explain, among the others.

    Of a block that was not tried the best guess is the mean of those that were.
    """
    known = sum(len(block) for block in together)
    usual = sum(together.values()) / known if known else 0.0
    shares = {}
    for block in blocks:
        left = [node for node in block if node not in alone]
        share = usual
        if left and block in together:
            explained = sum(alone.get(node, 0.0) for node in block)
            share = max(0.0, together[block] - explained) / len(left)
        shares.update(dict.fromkeys(block, share))
    return shares


def fewest(
    ranked: Sequence[str],
    holds: Callable[[frozenset[str]], bool],
    *,
    deadline: float | None = None,
    clock: Clock = time.monotonic,
    progress: Progress = SILENT,
) -> frozenset[str] | None:
    """Find few layers that must stay in float for the budget to hold.

    First the shortest head of the ranking with which it does, by doubling and bisection, then each
    of these layers is tried in INT8 again, the last in the ranking first. If more layers in float
    never break a budget that held, then none of the result can be spared, and it is no larger than
    the shortest head; of all sets it need not be the smallest, which nobody could find in time.

    Args:
        ranked: Names of the layers, worst first.
        holds: Whether the budget holds with these layers in float. Asked once for each set.
        deadline: When `clock` shows this, no further trial begins and the best so far is given.
        clock: Tells the time in seconds.
        progress: Where the work shows itself.

    Returns:
        The layers, none if the budget holds without; None if it does not hold with all of them in
        float, or the time ran out before it was seen to hold.
    """
    tried: dict[frozenset[str], bool] = {}

    def time_is_left() -> bool:
        return deadline is None or clock() < deadline

    def held(kept: frozenset[str]) -> bool:
        """Whether it was seen to hold; without time left nothing new is seen."""
        if kept not in tried and time_is_left():
            tried[kept] = holds(kept)
        return tried.get(kept, False)

    size = _shortest(ranked, held, progress)
    if size is None:
        if not time_is_left():
            progress.note("The time ran out before any choice of layers in float held the budget.")
        return None
    kept = frozenset(ranked[:size])
    with progress.task("give layers back to INT8", total=size, unit="trials") as advance:
        for node in reversed(ranked[:size]):
            if held(kept - {node}):
                kept -= {node}
            advance(1)
    return kept


def _shortest(
    ranked: Sequence[str], held: Callable[[frozenset[str]], bool], progress: Progress
) -> int | None:
    """Give the length of the shortest head of the ranking that holds, None if none is seen to."""
    most = len(ranked).bit_length()  # so many doublings, and at most as many halvings
    with progress.task("keep layers in float", total=2 * most + 1, unit="trials") as advance:

        def head_holds(size: int) -> bool:
            answer = held(frozenset(ranked[:size]))
            advance(1)
            return answer

        low, high = -1, 0  # `low` does not hold
        while not head_holds(high):
            if high == len(ranked):
                return None
            low, high = high, min(max(1, 2 * high), len(ranked))
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if head_holds(middle) else (middle, high)
        return high

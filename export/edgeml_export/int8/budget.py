"""Mixed precision: which layers hurt in INT8, and the fewest that must stay in float.

Nothing here depends on a runtime. A layer is a name, and callers return the scores of a model with
some layers in float, so one ranking serves ONNX Runtime, OpenVINO and TensorRT.

A tensor with an outlier channel hurts wherever it is quantised: as the output of the layer that
makes it and as the input of the layer that reads it. Keeping only one of the two in float cures
nothing. Hence layers are ranked by the damage of each alone, with all others in float, which finds
both; with all others in INT8, neither would seem to matter.
"""

from __future__ import annotations

import itertools
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

# A block that does less than this share of the worst layer's damage is not examined further.
_HARMLESS = 0.01


@dataclass(frozen=True, kw_only=True)
class RankedNode:
    """How much a layer hurts when it alone is quantised.

    Attributes:
        name: In the ONNX graph.
        damage: In nats a decision, see `divergence`.
        measured: Whether it was tried alone; else the damage is its share of its block's.
        kind: Its operator, for example `Conv`; `rank` leaves it empty.
        in_float: Whether it stays in floating point; `rank` does not decide that.
    """

    name: str
    damage: float
    measured: bool = True
    kind: str = ""
    in_float: bool = False


@dataclass(frozen=True, kw_only=True)
class MixedPrecision:
    """A search for the fewest layers that must stay in floating point.

    Attributes:
        nodes: All layers that can be quantised, the most damaging first.
        steps: (layers in float, points of mAP lost on the fitting images) of each set tried.
        seconds: How long it took, ranking included.
        unit: Of the damage.
    """

    nodes: Sequence[RankedNode]
    steps: Sequence[tuple[int, float]] = ()
    seconds: float | None = None
    unit: str = "nats a decision"

    @property
    def quantizable(self) -> int:
        """The number of layers that can be quantised."""
        return len(self.nodes)

    @property
    def in_float(self) -> frozenset[str]:
        """Names of the layers that stay in floating point."""
        return frozenset(node.name for node in self.nodes if node.in_float)


def divergence(reference: Scores, candidate: Scores, spec: ModelSpec) -> float:
    """Return how far the probabilities of decisions moved, in nats a decision; 0 if not at all.

    It is the mean, over images and decisions, of the Kullback-Leibler divergence of the candidate
    from the reference (Kullback and Leibler, On Information and Sufficiency, 1951). A label is a
    decision between two; the labels of a softmax group are one decision together. Unlike metrics
    this needs no targets, and it shows a change that has not flipped a decision yet.

    Args:
        reference: (N, labels) probabilities.
        candidate: (N, labels) probabilities; with NaN or infinity among them the result is
            infinite.
        spec: Of both; says which labels form a group.
    """
    if not np.isfinite(candidate).all():
        return math.inf
    p = np.clip(reference.astype(np.float64), _CERTAIN, 1 - _CERTAIN)
    q = np.clip(candidate.astype(np.float64), _CERTAIN, 1 - _CERTAIN)
    groups = spec.softmax_groups()
    grouped = {column for columns in groups for column in columns}
    single = [column for column in range(p.shape[1]) if column not in grouped]
    parts = [_relative(p[:, single], q[:, single]) + _relative(1 - p[:, single], 1 - q[:, single])]
    for columns in groups:
        before, after = (part[:, columns] for part in (p, q))
        before, after = (part / part.sum(axis=1, keepdims=True) for part in (before, after))
        parts.append(_relative(before, after).sum(axis=1, keepdims=True))
    return max(0.0, float(np.concatenate(parts, axis=1).mean()))


def _relative(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    terms: NDArray[np.float64] = p * np.log(p / q)
    return terms


def rank(
    nodes: Sequence[str],
    scores_with_float: Callable[[frozenset[str]], Scores],
    reference: Scores,
    spec: ModelSpec,
    *,
    deadline: float | None = None,
    clock: Clock = time.monotonic,
    progress: Progress = SILENT,
) -> list[RankedNode]:
    """Order layers by the damage that each does alone, worst first.

    Blocks of neighbours are tried first, about as many as each has layers; then the layers of the
    worst block one by one, then those of the next. So the worst layers of N are found in about
    2 sqrt(N) trials, even by a search that is cut short, and all are known after N + sqrt(N).
    Layers of blocks that do next to nothing are not tried one by one.

    Args:
        nodes: Names of the layers, in the order of the graph.
        scores_with_float: Returns the probabilities (N, labels) of the model in INT8 with these
            layers in float.
        reference: (N, labels) probabilities of the model in float.
        spec: Of the model.
        deadline: At this reading of `clock` no further trial begins; layers that were not tried
            get their share of what is known. None: no limit.
        clock: Returns the time in seconds.
        progress: Shows the work.

    Returns:
        Every node once. Of equal damage, the first in the graph comes first.
    """
    every = frozenset(nodes)
    blocks = _blocks(nodes)
    alone: dict[str, float] = {}
    together: dict[tuple[str, ...], float] = {}
    with progress.task("rank layers", total=len(nodes) + len(blocks), unit="trials") as advance:

        def damage(quantized: Sequence[str]) -> float:
            scores = scores_with_float(every - set(quantized))
            advance(1)
            return divergence(reference, scores, spec)

        def time_is_left() -> bool:
            return deadline is None or clock() < deadline

        for block in itertools.takewhile(lambda _: time_is_left(), blocks):
            together[block] = damage(block)
        for block in sorted(together, key=lambda block: -together[block]):
            if together[block] < _HARMLESS * max(alone.values(), default=0.0):
                break
            for node in itertools.takewhile(lambda _: time_is_left(), block):
                alone[node] = damage([node])
    shares = _shares(blocks, together, alone)
    ranked = [
        RankedNode(name=node, damage=alone.get(node, shares[node]), measured=node in alone)
        for node in nodes
    ]
    return sorted(ranked, key=lambda node: -node.damage)


def _blocks(nodes: Sequence[str]) -> list[tuple[str, ...]]:
    """Cut the layers into runs of neighbours, each of about the square root of their number."""
    size = max(1, round(math.sqrt(len(nodes))))
    return [tuple(nodes[start : start + size]) for start in range(0, len(nodes), size)]


def _shares(
    blocks: Sequence[tuple[str, ...]],
    together: dict[tuple[str, ...], float],
    alone: dict[str, float],
) -> dict[str, float]:
    """Divide the part of a block's damage that its tried layers do not explain among the others.

    The best guess for a block that was not tried is the mean of those that were.
    """
    known = sum(len(block) for block in together)
    mean = sum(together.values()) / known if known else 0.0
    shares = {}
    for block in blocks:
        untried = [node for node in block if node not in alone]
        share = mean
        if untried and block in together:
            explained = sum(alone.get(node, 0.0) for node in block)
            share = max(0.0, together[block] - explained) / len(untried)
        shares.update(dict.fromkeys(block, share))
    return shares


def smallest_float_set(
    ranked: Sequence[str],
    holds: Callable[[frozenset[str]], bool],
    *,
    deadline: float | None = None,
    clock: Clock = time.monotonic,
    progress: Progress = SILENT,
) -> frozenset[str] | None:
    """Find few layers that must stay in float for the budget to hold.

    First the shortest head of the ranking that holds it, by doubling and bisection; then each of
    these layers is tried in INT8 again, the last in the ranking first. If more layers in float
    never break a budget that held, then no layer of the result can be spared, and the result is no
    larger than the shortest head. It need not be the smallest of all sets, which no search finds in
    reasonable time.

    Args:
        ranked: Names of the layers, worst first.
        holds: Whether the budget holds with these layers in float. Called once for each set.
        deadline: At this reading of `clock` no further trial begins, and the best set so far is
            returned.
        clock: Returns the time in seconds.
        progress: Shows the work.

    Returns:
        The layers, none if the budget holds without; None if it does not hold with all of them in
        float, or the time ran out before a set was seen to hold it.
    """
    tried: dict[frozenset[str], bool] = {}

    def time_is_left() -> bool:
        return deadline is None or clock() < deadline

    def held(in_float: frozenset[str]) -> bool:
        """Whether it was seen to hold; without time left no new set is tried."""
        if in_float not in tried and time_is_left():
            tried[in_float] = holds(in_float)
        return tried.get(in_float, False)

    size = _shortest_head(ranked, held, progress)
    if size is None:
        if not time_is_left():
            progress.note("The time ran out before any choice of layers in float held the budget.")
        return None
    in_float = frozenset(ranked[:size])
    with progress.task("give layers back to INT8", total=size, unit="trials") as advance:
        for node in reversed(ranked[:size]):
            if held(in_float - {node}):
                in_float -= {node}
            advance(1)
    return in_float


def _shortest_head(
    ranked: Sequence[str], held: Callable[[frozenset[str]], bool], progress: Progress
) -> int | None:
    """Return the length of the shortest head of the ranking that holds, None if none does."""
    doublings = len(ranked).bit_length()  # and at most as many bisections
    total = 2 * doublings + 1
    with progress.task("keep layers in float", total=total, unit="trials") as advance:

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

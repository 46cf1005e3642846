"""The search for the layers that must stay float, on simulated networks and brute force."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.special import rel_entr
from scipy.stats import entropy

from edgeml import LabelGroup, ModelSpec, Preprocess
from edgeml.progress import Advance
from edgeml.spec.decide import probabilities
from edgeml_export.int8.budget import RankedNode, divergence, rank, smallest_float_set
from tests.notes import Notes

Scores = NDArray[np.float32]

SPEC = ModelSpec(
    labels=("red", "green", "blue", "hat"),
    thresholds=(0.5,) * 4,
    preprocess=Preprocess(size=(8, 8)),
    groups=(LabelGroup(name="colour", labels=("red", "green", "blue"), rule="one"),),
)
GROUPED = replace(SPEC, activation="group_softmax")


class RecordingProgress(Notes):
    """Records the notes, and the steps done and announced of each task."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: dict[str, list[int]] = {}

    @contextmanager
    def task(self, name: str, total: int, unit: str = "img") -> Iterator[Advance]:
        done = self.tasks[name] = [0, total]

        def advance(count: int) -> None:
            done[0] += count

        yield advance


class Clock:
    """A second passes with each trial."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def logits(seed: int, n: int = 50) -> Scores:
    return np.random.default_rng(seed).normal(0, 2, (n, 4)).astype(np.float32)


def test_divergence_of_single_labels_is_that_of_scipy() -> None:
    p, q = (probabilities(logits(seed), SPEC).astype(np.float64) for seed in (0, 1))
    expected = np.mean([entropy([p, 1 - p], [q, 1 - q], axis=0)])
    assert divergence(p.astype(np.float32), q.astype(np.float32), SPEC) == pytest.approx(expected)


def test_a_softmax_group_is_one_decision() -> None:
    p, q = (probabilities(logits(seed), GROUPED).astype(np.float64) for seed in (0, 1))
    colour = rel_entr(p[:, :3], q[:, :3]).sum(axis=1)
    hat = entropy([p[:, 3], 1 - p[:, 3]], [q[:, 3], 1 - q[:, 3]], axis=0)
    found = divergence(p.astype(np.float32), q.astype(np.float32), GROUPED)
    assert found == pytest.approx((colour.mean() + hat.mean()) / 2, rel=1e-4)


certain = arrays(np.float32, (6, 4), elements=st.sampled_from([0.0, 1e-30, 0.25, 0.5, 1.0]))


@settings(deadline=None)
@given(certain, certain, st.sampled_from([SPEC, GROUPED]))
def test_divergence_is_finite_and_zero_only_where_nothing_moved(
    p: Scores, q: Scores, spec: ModelSpec
) -> None:
    assert divergence(p, p, spec) == 0
    assert 0 <= divergence(p, q, spec) < 40
    if spec is SPEC and np.abs(p - q).max() > 1e-6:
        assert divergence(p, q, spec) > 0


def test_nan_is_infinitely_far_away() -> None:
    scores = probabilities(logits(0), SPEC)
    broken = scores.copy()
    broken[3, 1] = np.nan
    assert divergence(scores, broken, SPEC) == math.inf


class Additive:
    """A model whose layers each add an error of their own to the logits when quantised."""

    def __init__(self, sizes: Sequence[float], clock: Clock | None = None) -> None:
        self.nodes = [f"n{i}" for i in range(len(sizes))]
        rng = np.random.default_rng(0)
        self.errors = {
            node: size * rng.choice([-1, 1], (50, 4))
            for node, size in zip(self.nodes, sizes, strict=True)
        }
        self.trials: list[frozenset[str]] = []
        self.clock = clock

    def scores(self, in_float: frozenset[str] | set[str]) -> Scores:
        moved = sum(error for node, error in self.errors.items() if node not in in_float)
        return probabilities((logits(7) + moved).astype(np.float32), SPEC)

    def scores_with_float(self, in_float: frozenset[str]) -> Scores:
        self.trials.append(in_float)
        if self.clock:
            self.clock.now += 1
        return self.scores(in_float)

    def damage(self, *quantized: str) -> float:
        reference = self.scores(set(self.nodes))
        return divergence(reference, self.scores(set(self.nodes) - set(quantized)), SPEC)

    def ranked(self, **options: object) -> list[RankedNode]:
        return rank(
            self.nodes, self.scores_with_float, self.scores(set(self.nodes)), SPEC, **options
        )


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from([0.3, 0.5, 0.7, 1.0]), max_size=30))
def test_layers_are_ordered_by_what_each_does_alone(sizes: list[float]) -> None:
    model = Additive(sizes)
    found = model.ranked()
    assert sorted(one.name for one in found) == sorted(model.nodes)
    alone = {node: model.damage(node) for node in model.nodes}
    assert [one.name for one in found] == sorted(model.nodes, key=lambda node: -alone[node])
    assert [one.damage for one in found] == sorted(alone.values(), reverse=True)
    assert all(one.measured for one in found)
    assert len(model.trials) <= len(sizes) + math.ceil(math.sqrt(len(sizes))) + 1


def test_layers_of_equal_damage_come_in_the_order_of_the_graph() -> None:
    model = Additive([0.0] * 20)
    assert [one.name for one in model.ranked()] == model.nodes


def planted(count: int = 196, bad: Sequence[int] = (30, 31, 150)) -> list[float]:
    return [2.0 if i in bad else 0.003 for i in range(count)]


def test_the_worst_of_many_layers_are_found_in_few_trials() -> None:
    model = Additive(planted())
    found = model.ranked()
    assert {one.name for one in found[:3]} == {"n30", "n31", "n150"}
    # 14 blocks of 14, of which two hold what hurts.
    assert len(model.trials) == 14 + 2 * 14
    assert not found[-1].measured
    assert found[-1].damage < 1e-3


@pytest.mark.parametrize(("seconds", "sure"), [(28, {"n150"}), (42, {"n30", "n31", "n150"})])
def test_a_search_that_is_cut_short_knows_the_worst(seconds: int, sure: set[str]) -> None:
    clock = Clock()
    sizes = planted()
    sizes[150] = 4.0
    model = Additive(sizes, clock)
    found = model.ranked(deadline=100.0 + seconds, clock=clock)
    assert len(model.trials) == seconds
    assert len(found) == 196
    assert sure == {one.name for one in found[: len(sure)]}
    # What hurts and was not found yet is at least in the block that comes next.
    assert {"n30", "n31"} <= {one.name for one in found[:15]}


def test_layers_that_were_not_tried_take_their_share_of_what_is_known() -> None:
    clock = Clock()
    model = Additive([0.1] * 4 + [1.0] * 4 + [0.5] * 8, clock)
    # Two of four blocks are tried.
    found = {one.name: one for one in model.ranked(deadline=102.0, clock=clock)}
    assert not any(one.measured for one in found.values())
    good, bad = (model.damage(*model.nodes[start : start + 4]) / 4 for start in (0, 4))
    assert found["n0"].damage == pytest.approx(good)
    assert found["n5"].damage == pytest.approx(bad)
    assert found["n9"].damage == pytest.approx((good + bad) / 2)


def test_without_time_the_order_is_that_of_the_graph() -> None:
    model = Additive(planted(20, [3]), Clock())
    found = model.ranked(deadline=100.0, clock=model.clock)
    assert [one.name for one in found] == model.nodes
    assert model.trials == []


def test_a_layer_that_breaks_the_model_is_the_worst() -> None:
    def scores_with_float(in_float: frozenset[str]) -> Scores:
        scores = probabilities(logits(7), SPEC)
        return scores if "n5" in in_float else np.full_like(scores, np.nan)

    found = rank(
        [f"n{i}" for i in range(12)], scores_with_float, probabilities(logits(7), SPEC), SPEC
    )
    assert found[0] == RankedNode(name="n5", damage=math.inf, measured=True)


def test_ranking_shows_how_far_it_is() -> None:
    progress = RecordingProgress()
    Additive([0.5] * 16).ranked(progress=progress)
    assert progress.tasks == {"rank layers": [20, 20]}


class Network:
    """Ten layers of rectified products, computed in 8 bits except for those in float.

    A layer in INT8 rounds its input, its weights (a scale for each output) and its output, each
    tensor with one scale of its least and greatest value.

    Args:
        outlier: Scales a channel between layers 4 and 5 up, and down again, so that in float the
            network is the same.
    """

    def __init__(self, outlier: float = 1.0) -> None:
        rng = np.random.default_rng(1)
        self.weights = [rng.normal(0, 1 / math.sqrt(12), (24, 24)) for _ in range(9)]
        self.weights.append(rng.normal(0, 0.7, (24, 4)))
        self.weights[4][:, 3] *= outlier
        self.weights[5][3, :] /= outlier
        self.nodes = [f"layer {i}" for i in range(10)]
        self.images = np.abs(rng.normal(0, 1, (200, 24)))

    def scores(self, in_float: frozenset[str]) -> Scores:
        x = self.images
        for number, (node, weights) in enumerate(zip(self.nodes, self.weights, strict=True)):
            if node not in in_float:
                x, weights = _rounded(x), _rounded(weights, axis=0)
            x = x @ weights
            if number < 9:
                x = np.maximum(x, 0)
            if node not in in_float:
                x = _rounded(x)
        return probabilities(x.astype(np.float32), SPEC)


def _rounded(x: NDArray[np.float64], axis: int | None = None) -> NDArray[np.float64]:
    low = np.minimum(x.min(axis=axis, keepdims=True), 0)
    step = np.maximum((x.max(axis=axis, keepdims=True) - low) / 255, 1e-12)
    return np.round((x - low) / step) * step + low


def test_both_ends_of_a_tensor_with_an_outlier_are_found_and_kept() -> None:
    plain, broken = Network(), Network(outlier=3000.0)
    every = frozenset(plain.nodes)
    reference = plain.scores(every)
    np.testing.assert_allclose(broken.scores(every), reference, atol=1e-6)
    budget = 2 * divergence(reference, plain.scores(frozenset()), SPEC)

    def holds(in_float: frozenset[str]) -> bool:
        return divergence(reference, broken.scores(in_float), SPEC) <= budget

    ends = {"layer 4", "layer 5"}
    assert not holds(frozenset())
    assert not holds(every - {"layer 4"}), "the layer that takes the tensor alone breaks it"
    assert not holds(every - {"layer 5"}), "the layer that makes the tensor alone breaks it"
    ranked = rank(broken.nodes, broken.scores, reference, SPEC)
    assert {one.name for one in ranked[:2]} == ends
    assert ranked[1].damage > 20 * ranked[2].damage
    assert smallest_float_set([one.name for one in ranked], holds) == ends


def monotone(draw: st.DrawFn) -> tuple[list[str], list[frozenset[str]]]:
    """Draw some layers, and sets of them; one set at least must be in float completely."""
    nodes = [f"n{i}" for i in range(draw(st.integers(0, 7)))]
    some = st.frozensets(st.sampled_from(nodes)) if nodes else st.just(frozenset())
    return nodes, draw(st.lists(some, max_size=4))


@settings(deadline=None, max_examples=300)
@given(st.composite(monotone)())
def test_the_float_set_holds_can_spare_nothing_and_is_no_larger_than_the_shortest_head(
    case: tuple[list[str], list[frozenset[str]]],
) -> None:
    ranked, cures = case
    trials: list[frozenset[str]] = []

    def cured(in_float: frozenset[str]) -> bool:
        return any(cure <= in_float for cure in cures)

    def holds(in_float: frozenset[str]) -> bool:
        trials.append(in_float)
        return cured(in_float)

    in_float = smallest_float_set(ranked, holds)
    heads = [n for n in range(len(ranked) + 1) if cured(frozenset(ranked[:n]))]
    assert (in_float is None) == (not heads)
    if in_float is not None:
        assert cured(in_float)
        assert len(in_float) <= heads[0]
        fewer = [frozenset(c) for n in range(len(in_float)) for c in combinations(in_float, n)]
        assert not any(cured(subset) for subset in fewer)
    assert len(trials) == len(set(trials)), "each set is a trial of seconds"
    assert smallest_float_set(ranked, cured) == in_float


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(0, 20), max_size=9), st.integers(0, 60))
def test_for_damages_that_add_up_no_smaller_set_holds(sizes: list[int], budget: int) -> None:
    sizes = sorted(sizes, reverse=True)
    nodes = [f"n{i}" for i in range(len(sizes))]
    damage = dict(zip(nodes, sizes, strict=True))

    def holds(in_float: frozenset[str]) -> bool:
        return sum(damage[node] for node in nodes if node not in in_float) <= budget

    in_float = smallest_float_set(nodes, holds)
    assert in_float is not None
    smallest = next(
        n
        for n in range(len(nodes) + 1)
        if any(holds(frozenset(choice)) for choice in combinations(nodes, n))
    )
    assert len(in_float) == smallest


def test_many_small_damages_are_cured_in_few_trials() -> None:
    model = Additive([0.2] * 100)
    damage = model.damage(*model.nodes)
    trials: list[frozenset[str]] = []

    def holds(in_float: frozenset[str]) -> bool:
        trials.append(in_float)
        return model.damage(*(set(model.nodes) - in_float)) <= 0.8 * damage

    progress = RecordingProgress()
    in_float = smallest_float_set(model.nodes, holds, progress=progress)
    assert in_float is not None
    # Nine to double, seven at most to halve, and one for each layer of the head that was found.
    _, head = progress.tasks["give layers back to INT8"]
    assert 5 < len(in_float) <= head < 40
    assert len(trials) <= 9 + 7 + head
    assert holds(in_float)


def test_a_model_that_nothing_cures_is_hopeless() -> None:
    progress = RecordingProgress()
    assert (
        smallest_float_set([f"n{i}" for i in range(100)], lambda in_float: False, progress=progress)
        is None
    )
    assert progress.lines == []
    assert progress.tasks["keep layers in float"][0] == 9  # 0, 1, 2, 4, ... 64, 100


def timed(clock: Clock, needed: frozenset[str]) -> Callable[[frozenset[str]], bool]:
    def holds(in_float: frozenset[str]) -> bool:
        clock.now += 1
        return needed <= in_float

    return holds


def test_when_the_time_is_up_the_best_set_so_far_is_returned() -> None:
    nodes = [f"n{i}" for i in range(32)]
    needed = frozenset({"n0", "n9"})
    lengths = []
    for seconds in range(25):
        clock = Clock()
        in_float = smallest_float_set(
            nodes, timed(clock, needed), deadline=100.0 + seconds, clock=clock
        )
        assert clock.now <= 100 + seconds
        assert in_float is None or needed <= in_float
        lengths.append(99 if in_float is None else len(in_float))
    # 0, 1, 2, 4, 8 fail; 16 holds at the sixth; then 12, 10 and 9; then one after the other.
    assert lengths[:6] == [99] * 6
    assert lengths[6:9] == [16, 12, 10]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] == 2


def test_a_note_says_that_time_ran_out_before_any_set_held() -> None:
    progress, clock = RecordingProgress(), Clock()
    holds = timed(clock, frozenset({"n9"}))
    nodes = [f"n{i}" for i in range(32)]
    assert smallest_float_set(nodes, holds, deadline=103.0, clock=clock, progress=progress) is None
    assert "time ran out" in progress.lines[0]


def test_keeping_shows_how_far_it_is() -> None:
    progress = RecordingProgress()
    nodes = [f"n{i}" for i in range(32)]
    in_float = smallest_float_set(
        nodes, lambda in_float: {"n0", "n9"} <= in_float, progress=progress
    )
    assert in_float == {"n0", "n9"}
    assert progress.tasks["give layers back to INT8"] == [10, 10]
    done, total = progress.tasks["keep layers in float"]
    assert 0 < done <= total == 13

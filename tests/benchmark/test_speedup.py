from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import cycle, repeat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from edgeml.benchmark.speedup import Speedup, median_interval, speedup
from edgeml.errors import InputError
from edgeml.runtimes import open_runtime

BATCH = np.zeros((1, 3, 2, 2), np.float32)


class Clock:
    """Time that passes only when a runtime runs or the caller sleeps."""

    def __init__(self) -> None:
        self.ns = 0
        self.log: list[str] = []
        self.load = 1.0

    def __call__(self) -> int:
        return self.ns

    def sleep(self, seconds: float) -> None:
        self.ns += round(1e9 * seconds)
        self.log.append("sleep")


class Timed:
    """A runtime whose calls take a fixed time of an injected clock."""

    input_shape = (None, 3, 2, 2)
    metadata: Mapping[str, str] = {}

    def __init__(self, clock: Clock, name: str, *milliseconds: float) -> None:
        self.name, self._clock = name, clock
        self._milliseconds: Iterator[float] = cycle(milliseconds)

    def run(self, batch: NDArray[np.float32] | NDArray[np.uint8], /) -> NDArray[np.float32]:
        self._clock.ns += round(1e6 * next(self._milliseconds) * self._clock.load)
        self._clock.log.append(self.name)
        return np.zeros((len(batch), 1), np.float32)

    def close(self) -> None:
        pass


def measured(clock: Clock, slow: Timed, fast: Timed, seconds: float = 3.0) -> Speedup:
    return speedup(slow, fast, BATCH, seconds=seconds, clock=clock, sleep=clock.sleep)


def test_steady_runtimes_give_their_ratio_and_their_milliseconds() -> None:
    clock = Clock()
    result = measured(clock, Timed(clock, "slow", 6.0), Timed(clock, "fast", 2.0))
    assert (result.ratio, result.low, result.high) == (3, 3, 3)
    assert (result.slow_ms, result.fast_ms) == (6, 2)
    assert result.verdict == "faster"


def test_a_slower_runtime_is_not_faster() -> None:
    clock = Clock()
    result = measured(clock, Timed(clock, "slow", 2.0), Timed(clock, "fast", 4.0))
    assert result.ratio == 0.5
    assert result.verdict == "not faster"


def test_noise_around_equality_gives_no_verdict() -> None:
    clock = Clock()
    noise = np.random.default_rng(0).normal(30, 3, 2000)
    result = measured(clock, Timed(clock, "a", *noise[:1000]), Timed(clock, "b", *noise[1000:]))
    assert result.low < 1 < result.high
    assert result.verdict == "cannot be told"


def test_a_load_that_comes_and_goes_slows_both_sides_of_a_round() -> None:
    clock = Clock()

    class Loaded(Timed):
        def run(self, batch: NDArray[np.float32] | NDArray[np.uint8], /) -> NDArray[np.float32]:
            clock.load = 1 + clock.ns / 1e9  # everything becomes slower
            return super().run(batch)

    result = measured(clock, Loaded(clock, "slow", 6.0), Loaded(clock, "fast", 2.0), seconds=20)
    assert result.ratio == pytest.approx(3, rel=0.02)
    assert result.slow_ms > 12


def test_a_slow_call_in_five_counts_neither_more_nor_less_than_a_median_lets_it() -> None:
    clock = Clock()
    result = measured(
        clock, Timed(clock, "slow", 4, 4, 4, 4, 90), Timed(clock, "fast", *repeat(1.0, 5))
    )
    assert result.ratio == 4


def test_turns_are_blocks_after_a_pause_in_random_order() -> None:
    clock = Clock()
    result = measured(clock, Timed(clock, "slow", 40.0), Timed(clock, "fast", 10.0))
    turns = " ".join(clock.log).split("sleep ")[1:]
    assert turns[0].split() == ["slow"] * 9  # warm-up, 0.3 s, and one call before
    assert turns[1].split() == ["fast"] * 31
    counted = [turn.split() for turn in turns[2:]]
    assert len(counted) == 2 * result.rounds
    assert {(turn[0], len(turn)) for turn in counted} == {("slow", 4), ("fast", 11)}
    assert all(len(set(turn)) == 1 for turn in counted)
    first = [a[0] for a, b in zip(counted[::2], counted[1::2], strict=True) if a[0] != b[0]]
    assert len(first) == result.rounds
    assert set(first) == {"slow", "fast"}


def test_rounds_last_until_the_time_is_over_and_are_at_least_six() -> None:
    clock = Clock()
    patient = measured(clock, Timed(clock, "slow", 10.0), Timed(clock, "fast", 10.0), seconds=2.6)
    assert patient.rounds == 10  # 2 * (0.03 + 0.11) s each, and the last one is finished
    hurried = measured(clock, Timed(clock, "slow", 500.0), Timed(clock, "fast", 100.0), seconds=0.1)
    assert hurried.rounds == 6
    assert (hurried.low, hurried.high) == (5, 5)


@pytest.mark.parametrize("n", [6, 7, 11, 12, 20, 50])
def test_the_interval_is_the_narrowest_by_order_that_holds_the_median_in_95_percent(n: int) -> None:
    low, high = median_interval(list(range(1, n + 1)))
    k = int(low)
    assert high == n + 1 - k
    assert stats.binom.cdf(k - 1, n, 0.5) <= 0.025 < stats.binom.cdf(k, n, 0.5)


@given(st.lists(st.floats(-1e6, 1e6), max_size=40))
def test_the_interval_holds_the_median_and_is_unbounded_below_six(values: list[float]) -> None:
    low, high = median_interval(values)
    if len(values) < 6:
        assert (low, high) == (-math.inf, math.inf)
    else:
        assert low <= np.median(values) <= high
        assert {low, high} <= set(values)


def test_the_interval_holds_the_true_median_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    enclosed = [
        low <= 1 <= high for low, high in map(median_interval, rng.lognormal(0, 1, (4000, 12)))
    ]
    assert 0.95 <= np.mean(enclosed) <= 0.975  # exactly 0.961 for 12 values


def figures(ratio: float, low: float, high: float) -> Speedup:
    return Speedup(ratio=ratio, low=low, high=high, slow_ms=17.04, fast_ms=6.1, rounds=11)


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        (
            figures(2.806, 2.75, 2.9),
            "INT8 is 2.81 times as fast as FP32 here (2.75 to 2.90; 6.10 and 17.04 ms).",
        ),
        (
            figures(0.6, 0.5, 0.7),
            "INT8 is not faster than FP32 here: it has 0.60 times its speed "
            "(0.50 to 0.70; 6.10 and 17.04 ms).",
        ),
        (
            figures(1.1, 0.9, 1.3),
            "It is unclear whether INT8 is faster than FP32 here: it has 1.10 times its speed "
            "(0.90 to 1.30; 6.10 and 17.04 ms).",
        ),
    ],
)
def test_the_verdict_is_a_sentence(result: Speedup, sentence: str) -> None:
    assert result.sentence("INT8", "FP32") == sentence
    assert result.to_dict()["verdict"] == result.verdict


@pytest.mark.parametrize("seconds", [0, -1, math.inf, math.nan])
def test_a_time_that_is_not_positive_and_finite_is_refused(seconds: float) -> None:
    clock = Clock()
    with pytest.raises(InputError, match="seconds"):
        measured(clock, Timed(clock, "a", 1.0), Timed(clock, "b", 1.0), seconds=seconds)


@pytest.mark.runtime
def test_a_real_model_takes_turns_with_itself(tiny_onnx: Path) -> None:
    first, second = open_runtime(tiny_onnx), open_runtime(tiny_onnx)
    batch = np.zeros((1, *first.input_shape[1:]), np.float32)
    result = speedup(first, second, batch, seconds=0.1, block_s=0.01, warmup_s=0.01, pause_s=0.001)
    assert result.rounds >= 6
    assert 0 < result.low <= result.ratio <= result.high < math.inf
    assert 0 < result.slow_ms < 1000

"""Which of two runtimes is faster on this machine, in this process, and how sure that is."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter_ns
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import InputError
from edgeml.runtimes import Runtime

Batch = NDArray[np.float32] | NDArray[np.uint8]

Verdict = Literal["faster", "not faster", "cannot be told"]

_CONFIDENCE = 0.95

_MIN_ROUNDS = 6
"""Of fewer rounds, smallest and largest value enclose the median in less than 95 % of cases."""

_MIN_CALLS = 3
"""Calls in a block, after the one that does not count."""


@dataclass(frozen=True, kw_only=True)
class Speedup:
    """How many times as fast one runtime is as another.

    Attributes:
        ratio: The median over rounds of the slow block's median time over the fast block's.
        low, high: A 95 % interval of that median, see `median_interval`.
        slow_ms, fast_ms: The median over rounds of a call's time, in milliseconds.
        rounds: The number of rounds, in which both have a turn.
    """

    ratio: float
    low: float
    high: float
    slow_ms: float
    fast_ms: float
    rounds: int

    @property
    def verdict(self) -> Verdict:
        """`faster` or `not faster` if the interval is on one side of 1."""
        if self.low > 1:
            return "faster"
        return "not faster" if self.high < 1 else "cannot be told"

    def sentence(self, fast: str, slow: str) -> str:
        """Return a sentence: `INT8 is 2.81 times as fast as FP32 here (2.75 to 2.88; ...)`."""
        times = f"{self.fast_ms:.2f} and {self.slow_ms:.2f} ms"
        figures = f"({self.low:.2f} to {self.high:.2f}; {times})"
        if self.verdict == "faster":
            return f"{fast} is {self.ratio:.2f} times as fast as {slow} here {figures}."
        finding = f"It is unclear whether {fast} is faster than {slow} here"
        if self.verdict == "not faster":
            finding = f"{fast} is not faster than {slow} here"
        return f"{finding}: it has {self.ratio:.2f} times its speed {figures}."

    def to_dict(self) -> dict[str, Any]:
        """Return the figures and the verdict as JSON values."""
        return {**asdict(self), "verdict": self.verdict}


def speedup(
    slow: Runtime,
    fast: Runtime,
    batch: Batch,
    *,
    seconds: float = 3.0,
    block_s: float = 0.1,
    pause_s: float = 0.03,
    warmup_s: float = 0.3,
    clock: Callable[[], int] = perf_counter_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> Speedup:
    """Run two runtimes in turns on the same batch and compare their times round by round.

    A turn is a block of calls after a pause, since runtimes that alternate call by call measure
    each other's spinning threads. Which one begins a round is random. Other work slows both turns
    of a round, so the ratio stays. No outlier is removed.

    Args:
        slow: The runtime to compare with.
        fast: The runtime that should be faster.
        batch: The input of every call.
        seconds: Time for both, including pauses; there are at least 6 rounds.
        block_s: Length of a turn; at least three calls, after one that does not count.
        pause_s: Pause before each turn.
        warmup_s: Time that each runs before anything counts.
        clock: Returns nanoseconds.
        sleep: Waits for a number of seconds.

    Raises:
        InputError: A time that is not positive and finite.
        InferenceError: A runtime failed.
    """
    if not 0 < seconds < math.inf:
        raise InputError(f"seconds is {seconds}; it must be above 0, and finite.")

    def block(runtime: Runtime, length_s: float = block_s) -> float:
        sleep(pause_s)
        runtime.run(batch)  # refills the caches after the other runtime
        return statistics.median(_time_calls(runtime, batch, length_s, clock))

    block(slow, warmup_s)
    block(fast, warmup_s)
    rng = random.Random(0)
    rounds: list[tuple[float, float]] = []
    start = clock()
    while len(rounds) < _MIN_ROUNDS or clock() - start < 1e9 * seconds:
        if rng.random() < 0.5:
            slow_ns, fast_ns = block(slow), block(fast)
        else:
            fast_ns, slow_ns = block(fast), block(slow)
        rounds.append((slow_ns, fast_ns))
    return _comparison(rounds)


def _comparison(rounds: Sequence[tuple[float, float]]) -> Speedup:
    """Compare the times of each round: the slow runtime's and the fast one's, in nanoseconds."""
    ratios = [slow_ns / fast_ns for slow_ns, fast_ns in rounds]
    low, high = median_interval(ratios)
    return Speedup(
        ratio=statistics.median(ratios),
        low=low,
        high=high,
        slow_ms=statistics.median(slow_ns for slow_ns, _ in rounds) / 1e6,
        fast_ms=statistics.median(fast_ns for _, fast_ns in rounds) / 1e6,
        rounds=len(rounds),
    )


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return a 95 % interval of the median of the distribution that the values come from.

    It extends from the k-th smallest to the k-th largest value, with the largest k that encloses
    the median with a probability of 0.95 or more: the number of n values below the median is
    binomial (n, 1/2) for any distribution (David and Nagaraja, Order Statistics, 2003, section
    7.1). For fewer than 6 values it is infinite.
    """
    n, k, below = len(values), 0, 0.0
    while (below := below + math.comb(n, k) / 2**n) <= (1 - _CONFIDENCE) / 2:
        k += 1
    if not k:
        return -math.inf, math.inf
    ordered = sorted(values)
    return ordered[k - 1], ordered[n - k]


def _time_calls(
    runtime: Runtime, batch: Batch, seconds: float, clock: Callable[[], int]
) -> list[int]:
    """Time calls one by one, in nanoseconds, until the time is over and there are enough."""
    durations: list[int] = []
    end = clock() + 1e9 * seconds
    while len(durations) < _MIN_CALLS or clock() < end:
        start = clock()
        runtime.run(batch)
        durations.append(clock() - start)
    return durations

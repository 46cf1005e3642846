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

_FEWEST = 6
"""Rounds: of fewer, least and greatest together leave out the median in more than 5 % of cases."""

_CALLS = 3
"""In a block, besides the one that does not count."""


@dataclass(frozen=True, kw_only=True)
class Speedup:
    """How many times as fast one runtime is as another.

    Attributes:
        ratio: The median over rounds of slow's time by fast's, each the median of its block.
        low, high: A 95 % interval of that median, see `median_interval`.
        slow_ms, fast_ms: The median over rounds of a call's time, in milliseconds.
        rounds: In how many both had their turn.
    """

    ratio: float
    low: float
    high: float
    slow_ms: float
    fast_ms: float
    rounds: int

    @property
    def verdict(self) -> Verdict:
        """`faster` or `not faster` where the interval lies on one side of 1."""
        if self.low > 1:
            return "faster"
        return "not faster" if self.high < 1 else "cannot be told"

    def sentence(self, fast: str, slow: str) -> str:
        """Say it with names: `INT8 is 2.81 times as fast as FP32 here (2.75 to 2.88; ...)`."""
        figures = (
            f"({self.low:.2f} to {self.high:.2f}; {self.fast_ms:.2f} and {self.slow_ms:.2f} ms)"
        )
        match self.verdict:
            case "faster":
                return f"{fast} is {self.ratio:.2f} times as fast as {slow} here {figures}."
            case "not faster":
                return (
                    f"{fast} is not faster than {slow} here: "
                    f"it has {self.ratio:.2f} times its speed {figures}."
                )
            case "cannot be told":
                return (
                    f"Whether {fast} is faster than {slow} here cannot be told: "
                    f"it has {self.ratio:.2f} times its speed {figures}."
                )

    def to_dict(self) -> dict[str, Any]:
        """Give the figures and the verdict as JSON values."""
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
    """Let two runtimes take turns on the same batch and compare their times round by round.

    A turn is a block of calls, after a pause: two runtimes that alternate call by call measure
    each other's spinning threads. Who begins a round is drawn by lot. What slows the machine for
    a while slows both sides of a round, and leaves the ratio alone. Nothing is removed.

    Args:
        slow: What it is compared with.
        fast: What is hoped to be faster.
        batch: The input of every call.
        seconds: How long both are measured together, pauses included; at least 6 rounds are.
        block_s: A turn; at least three calls, and one before them that does not count.
        pause_s: Before each turn.
        warmup_s: How long each runs before anything counts.
        clock: Gives nanoseconds.
        sleep: Waits for a number of seconds.

    Raises:
        InputError: A time that is not positive and finite.
        InferenceError: A runtime failed.
    """
    if not 0 < seconds < math.inf:
        raise InputError(f"seconds is {seconds}; it must be above 0, and finite.")

    def block(runtime: Runtime, length_s: float) -> float:
        sleep(pause_s)
        runtime.run(batch)  # the other one has had the processor's caches since
        return statistics.median(_time_calls(runtime, batch, length_s, clock))

    for runtime in (slow, fast):
        block(runtime, warmup_s)
    rng = random.Random(0)
    rounds: list[tuple[float, float]] = []
    start = clock()
    while len(rounds) < _FEWEST or clock() - start < 1e9 * seconds:
        if rng.random() < 0.5:
            theirs, ours = block(slow, block_s), block(fast, block_s)
        else:
            ours, theirs = block(fast, block_s), block(slow, block_s)
        rounds.append((theirs, ours))
    ratios = [theirs / ours for theirs, ours in rounds]
    low, high = median_interval(ratios)
    return Speedup(
        ratio=statistics.median(ratios),
        low=low,
        high=high,
        slow_ms=statistics.median(theirs for theirs, _ in rounds) / 1e6,
        fast_ms=statistics.median(ours for _, ours in rounds) / 1e6,
        rounds=len(rounds),
    )


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Give a 95 % interval of the median of what the values were drawn from.

    It runs from the k-th least to the k-th greatest value, with the largest k that holds the
    median with a probability of 0.95 or more: how many of n values lie below it is binomial
    (n, 1/2), whatever they are distributed like (David and Nagaraja, Order Statistics, 2003,
    section 7.1). Of fewer than 6 values it is infinite.
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
    taken: list[int] = []
    end = clock() + 1e9 * seconds
    while len(taken) < _CALLS or clock() < end:
        start = clock()
        runtime.run(batch)
        taken.append(clock() - start)
    return taken

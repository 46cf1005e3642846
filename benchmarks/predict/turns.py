"""Ways to do one thing take turns in blocks; what comes out are medians, ratios and differences.

A block is preceded by a pause, since the threads of one runtime that still spin slow the next, and
by a call that does not count. Who begins a round is drawn by lot. Nothing is removed. Ratios and
differences are taken round by round: what slows the machine for a while slows all ways of a round.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter, perf_counter_ns, process_time_ns, thread_time_ns
from typing import Any

import numpy as np

from edgeml.benchmark.speedup import median_interval
from edgeml.benchmark.statistics import summarize

FEWEST_CALLS = 3
FEWEST_ROUNDS = 6


@dataclass(frozen=True, kw_only=True)
class Block:
    """One turn of one way.

    Attributes:
        wall_ns: Of each call, in order.
        thread_ms: Processor time a call of the thread that called.
        process_ms: Processor time a call of all threads, spinning ones included.
    """

    wall_ns: list[int]
    thread_ms: float
    process_ms: float


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How long a measurement takes: rounds of blocks, for every way."""

    rounds: int = 20
    block_s: float = 0.25
    pause_s: float = 0.03
    warmup_s: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A median over rounds and its 95 % interval by order statistics."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> Estimate:
        """Give it in another unit."""
        return Estimate(value=factor * self.value, low=factor * self.low, high=factor * self.high)


Way = Callable[[float], Block]
"""Runs a block of so many seconds, here or in another process."""


def time_block(call: Callable[[], object], seconds: float) -> Block:
    """Time single calls until the time is over and there are enough; the first does not count."""
    call()
    taken: list[int] = []
    thread, process, end = thread_time_ns(), process_time_ns(), perf_counter() + seconds
    while len(taken) < FEWEST_CALLS or perf_counter() < end:
        start = perf_counter_ns()
        call()
        taken.append(perf_counter_ns() - start)
    thread, process = thread_time_ns() - thread, process_time_ns() - process
    return Block(
        wall_ns=taken,
        thread_ms=thread / len(taken) / 1e6,
        process_ms=process / len(taken) / 1e6,
    )


def here(call: Callable[[], object]) -> Way:
    """Make a way of a function of this process."""
    return lambda seconds: time_block(call, seconds)


def take_turns(ways: Mapping[str, Way], pace: Pace) -> dict[str, list[Block]]:
    """Let the ways take turns; gives a block of each for every round, in the order of rounds."""
    for way in ways.values():
        time.sleep(pace.pause_s)
        way(pace.warmup_s)
    lot, blocks = random.Random(0), {name: [] for name in ways}  # type: ignore[var-annotated]
    for _ in range(max(pace.rounds, FEWEST_ROUNDS)):
        for name in lot.sample(sorted(ways), len(ways)):
            time.sleep(pace.pause_s)
            blocks[name].append(ways[name](pace.block_s))
    return blocks


def wall_ms(blocks: Sequence[Block]) -> list[float]:
    """Give the median of each block, in milliseconds."""
    return [statistics.median(block.wall_ns) / 1e6 for block in blocks]


def cpu_ms(blocks: Sequence[Block]) -> list[float]:
    """Give the processor time a call of each block, of all threads, in milliseconds."""
    return [block.process_ms for block in blocks]


def figures(blocks: Sequence[Block]) -> dict[str, Any]:
    """Return the medians over rounds, and percentiles over all calls, of one way."""
    samples = np.concatenate([np.asarray(block.wall_ns, np.int64) for block in blocks])
    return {
        "ms": statistics.median(wall_ms(blocks)),
        "cpu_ms": statistics.median(cpu_ms(blocks)),
        "thread_ms": statistics.median(block.thread_ms for block in blocks),
        **asdict(summarize(samples)),
    }


def ratio(above: Sequence[float], below: Sequence[float]) -> Estimate:
    """Give the median of the rounds' ratios."""
    return estimate([a / b for a, b in zip(above, below, strict=True)])


def difference(minuend: Sequence[float], subtrahend: Sequence[float]) -> Estimate:
    """Give the median of the rounds' differences."""
    return estimate([a - b for a, b in zip(minuend, subtrahend, strict=True)])


def estimate(values: Sequence[float]) -> Estimate:
    """Give the median of what came out in each round."""
    low, high = median_interval(values)
    return Estimate(value=statistics.median(values), low=low, high=high)

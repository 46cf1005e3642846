"""The clock: the only file that times calls. It runs in the worker, and knows no processes."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, perf_counter_ns

from edgeml.benchmark.plan import BenchPlan
from edgeml.predict.predictor import Predictor

STAGES = ("decode", "preprocess", "infer", "postprocess", "total")

Latencies = dict[str, list[int]]
"""By stage, nanoseconds in the order of the calls."""

Turn = tuple[Path, bool]
"""An image, and whether to time its stages one by one, or the complete call."""


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """The calls before anything counts."""

    calls: int
    seconds: float
    change: float  # share by which the medians of the last two windows differ; NaN for fewer
    settled: bool  # whether that is within the plan's tolerance


def turns(images: Sequence[Path]) -> Iterator[Turn]:
    """Yield calls without end, in rounds in which every image is timed in both ways.

    The order is random, and the same in every process: strictly alternating calls fell into step
    with the scheduler of a busy machine, so that its pauses hit only one kind of call.
    """
    rng = random.Random(0)
    calls = [(image, staged) for image in images for staged in (True, False)]
    while True:
        rng.shuffle(calls)
        yield from calls


def time_call(predictor: Predictor, image: Path) -> int:
    """Time `predict` as a caller sees it, in nanoseconds."""
    start = perf_counter_ns()
    predictor.predict(image)
    return perf_counter_ns() - start


def time_stages(predictor: Predictor, image: Path) -> tuple[int, int, int, int]:
    """Time the four steps that `predict` consists of, in nanoseconds."""
    start = perf_counter_ns()
    frame = predictor.read(image)
    decoded = perf_counter_ns()
    batch = predictor.prepare([frame])
    prepared = perf_counter_ns()
    logits = predictor.infer(batch)
    inferred = perf_counter_ns()
    predictor.interpret(logits)
    interpreted = perf_counter_ns()
    return decoded - start, prepared - decoded, inferred - prepared, interpreted - inferred


def warm_up(predictor: Predictor, images: Sequence[Path], plan: BenchPlan) -> WarmUp:
    """Call `predict` until the medians of two windows agree, or the plan's time is over.

    Each window uses the same images, so that a difference comes from speed and not from content.
    """
    start = perf_counter()
    window: list[int] = []
    calls, before, change = 0, math.nan, math.nan
    while perf_counter() - start < plan.warmup_max_s:
        window.append(time_call(predictor, images[len(window) % len(images)]))
        calls += 1
        if len(window) < plan.warmup_window:
            continue
        median = statistics.median(window)
        change = abs(median / before - 1)
        if change < plan.warmup_tolerance:
            break
        before, window = median, []
    return WarmUp(
        calls=calls,
        seconds=perf_counter() - start,
        change=change,
        settled=change < plan.warmup_tolerance,
    )


def time_block(predictor: Predictor, calls: Iterator[Turn], seconds: float) -> Latencies:
    """Time calls for `seconds`, and at least one of each kind.

    One call before them is not counted: it refills the caches after other models.
    """
    latencies: Latencies = {stage: [] for stage in STAGES}
    predictor.predict(next(calls)[0])
    deadline = perf_counter() + seconds
    while perf_counter() < deadline or not (latencies["infer"] and latencies["total"]):
        image, staged = next(calls)
        if staged:
            for stage, duration in zip(STAGES, time_stages(predictor, image), strict=False):
                latencies[stage].append(duration)
        else:
            latencies["total"].append(time_call(predictor, image))
    return latencies

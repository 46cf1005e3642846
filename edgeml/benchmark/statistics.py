"""Statistics of latencies, from raw samples. No outlier is ever removed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.int64]
"""(n,) latencies in nanoseconds, in the order in which they were measured."""

_CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The percentiles of one stage; None where there are too few samples."""

    n: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


def summarize(samples: Samples) -> Summary:
    """Return count and percentiles of latencies in nanoseconds."""
    return Summary(
        n=len(samples),
        p50_ms=percentile_ms(samples, 50),
        p95_ms=percentile_ms(samples, 95),
        p99_ms=percentile_ms(samples, 99),
    )


def percentile_ms(samples: Samples, percent: float) -> float | None:
    """Return a percentile in milliseconds, or None below `fewest_calls(percent)` samples.

    It is the smallest sample that at least `percent` % of all do not exceed: a latency that
    occurred, not one interpolated between two.
    """
    if len(samples) < fewest_calls(percent):
        return None
    return float(np.percentile(samples, percent, method="inverted_cdf")) / 1e6


@cache
def fewest_calls(percent: float) -> int:
    """Return the smallest number of samples that supports a percentile.

    LoadGen's early-stopping rule with one sample to spare: if a call were slower than the bound
    with a probability above 1 - percent/100, at most one of this number of calls would be slower
    with a probability of 5 % or less. The results are 8, 46, 93, 473 for 50, 90, 95, 99 %.
    """
    slow = 1 - percent / 100
    n = 2
    while (1 - slow) ** n + n * slow * (1 - slow) ** (n - 1) > 1 - _CONFIDENCE:
        n += 1
    return n


def spread(samples: Samples) -> float:
    """Return the interquartile range over the median, as a share of 1; NaN for fewer than 4."""
    if len(samples) < 4:
        return math.nan
    low, middle, high = np.percentile(samples, (25, 50, 75))
    return float((high - low) / middle)


def drift(samples: Samples) -> float:
    """Return the share by which the last third's median exceeds the first's; NaN for under 9.

    Positive: it became slower while it was measured, as a hot machine does.
    """
    third = len(samples) // 3
    if third < 3:
        return math.nan
    first = float(np.median(samples[:third]))
    return float(np.median(samples[-third:])) / first - 1


def per_second(samples: Samples) -> float:
    """Return calls per second, one after the other: the inverse of the mean, with its tail."""
    return 1e9 / float(np.mean(samples))

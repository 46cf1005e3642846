"""What is said of latencies, in numpy; raw samples in, numbers out. No outlier is ever removed."""

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
    """One stage. A percentile that so few samples cannot support is None."""

    n: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


def summarize(samples: Samples) -> Summary:
    """Give count and percentiles of latencies in nanoseconds."""
    return Summary(
        n=len(samples),
        p50_ms=percentile_ms(samples, 50),
        p95_ms=percentile_ms(samples, 95),
        p99_ms=percentile_ms(samples, 99),
    )


def percentile_ms(samples: Samples, percent: float) -> float | None:
    """Give a percentile in milliseconds, or None below `fewest_calls(percent)` samples.

    The smallest sample that at least `percent` % of all do not exceed: a latency that occurred,
    not one interpolated between two.
    """
    if len(samples) < fewest_calls(percent):
        return None
    return float(np.percentile(samples, percent, method="inverted_cdf")) / 1e6


@cache
def fewest_calls(percent: float) -> int:
    """Give the least number of samples from which a percentile may be told.

    LoadGen's early-stopping rule with one sample to spare: were a call slower than the bound
    with a probability above 1 - percent/100, then of so many calls at most one would be so with
    a probability of 5 % or less. Gives 8, 46, 93, 473 for the percentiles 50, 90, 95, 99.
    """
    slow = 1 - percent / 100
    n = 2
    while (1 - slow) ** n + n * slow * (1 - slow) ** (n - 1) > 1 - _CONFIDENCE:
        n += 1
    return n


def spread(samples: Samples) -> float:
    """Give the interquartile range over the median, as a share of 1; NaN of fewer than 4."""
    if len(samples) < 4:
        return math.nan
    low, middle, high = np.percentile(samples, (25, 50, 75))
    return float((high - low) / middle)


def drift(samples: Samples) -> float:
    """Give by what share the median of the last third exceeds that of the first; NaN of under 9.

    Positive: it became slower while it was measured, as a machine does that gets hot.
    """
    third = len(samples) // 3
    if third < 3:
        return math.nan
    first = float(np.median(samples[:third]))
    return float(np.median(samples[-third:])) / first - 1


def per_second(samples: Samples) -> float:
    """Give calls a second, one after the other: the inverse of the mean, tail included."""
    return 1e9 / float(np.mean(samples))

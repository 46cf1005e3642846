from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edgeml.benchmark.statistics import (
    drift,
    fewest_calls,
    per_second,
    percentile_ms,
    spread,
    summarize,
)

nanoseconds = st.lists(st.integers(1, 10**12), min_size=1, max_size=700)


@pytest.mark.parametrize(
    ("percent", "calls"), [(50, 8), (90, 46), (95, 93), (97, 157), (99, 473), (99.9, 4742)]
)
def test_fewest_calls_are_those_of_loadgen_at_95_percent(percent: float, calls: int) -> None:
    assert fewest_calls(percent) == calls


@pytest.mark.parametrize("percent", [50, 75, 90, 95, 99])
def test_fewest_calls_are_the_first_where_the_binomial_tail_is_below_5_percent(
    percent: float,
) -> None:
    calls = fewest_calls(percent)
    assert stats.binom.cdf(1, calls, 1 - percent / 100) <= 0.05
    assert stats.binom.cdf(1, calls - 1, 1 - percent / 100) > 0.05


@pytest.mark.parametrize(("percent", "calls"), [(50, 8), (95, 93), (99, 473)])
def test_a_percentile_needs_its_minimum_count(percent: float, calls: int) -> None:
    assert percentile_ms(np.arange(1, calls), percent) is None
    assert percentile_ms(np.arange(1, calls + 1), percent) is not None


@given(nanoseconds)
def test_a_percentile_is_the_smallest_sample_that_enough_others_do_not_exceed(
    samples: list[int],
) -> None:
    for percent in (50, 95, 99):
        value = percentile_ms(np.asarray(samples), percent)
        if value is not None:
            by_hand = sorted(samples)[math.ceil(percent * len(samples) / 100) - 1]
            assert value == by_hand / 1e6


def test_summarize_converts_nanoseconds_to_milliseconds() -> None:
    samples = np.arange(1, 1001) * 1_000_000
    summary = summarize(samples)
    assert (summary.n, summary.p50_ms, summary.p95_ms, summary.p99_ms) == (1000, 500, 950, 990)


def test_summarize_keeps_an_outlier() -> None:
    samples = np.full(473, 1_000_000)
    samples[:6] = 900_000_000  # just over 1 %
    assert summarize(samples).p99_ms == 900


@given(nanoseconds.filter(lambda samples: len(samples) >= 4))
def test_spread_is_scipys_interquartile_range_over_the_median(samples: list[int]) -> None:
    expected = stats.iqr(samples) / np.median(samples)
    assert spread(np.asarray(samples)) == pytest.approx(expected)


def test_spread_of_three_samples_is_unknown() -> None:
    assert math.isnan(spread(np.asarray([1, 2, 3])))


def test_drift_compares_the_last_third_with_the_first() -> None:
    samples = np.asarray([100, 100, 100, 500, 500, 500, 110, 110, 110])
    assert drift(samples) == pytest.approx(0.10)
    assert drift(samples[::-1]) == pytest.approx(100 / 110 - 1)


def test_drift_of_eight_samples_is_unknown() -> None:
    assert math.isnan(drift(np.arange(1, 9)))


def test_throughput_counts_the_slow_calls_too() -> None:
    assert per_second(np.asarray([1_000_000, 3_000_000])) == pytest.approx(500)

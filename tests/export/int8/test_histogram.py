"""Histograms against numpy, and the cut by entropy against its definition."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.stats import entropy

from edgeml.errors import CalibrationError
from edgeml_export.int8.histogram import PERCENTILE, Histogram, entropy_cut

# Odd multiples of 1/512 are never at the end of a bin, and are never a power of two.

odd = st.integers(1, 2000).map(lambda n: (2 * n + 1) / 512)
signed = st.builds(lambda value, sign: value * sign, odd, st.sampled_from([-1.0, 0.0, 1.0]))


@settings(deadline=None, max_examples=25)
@given(st.lists(arrays(np.float32, st.integers(1, 30), elements=signed), min_size=1, max_size=5))
def test_a_histogram_that_widens_equals_one_of_all_values_at_once(
    batches: list[NDArray[np.float32]],
) -> None:
    widened, direct = Histogram(), Histogram()
    batches = [np.zeros(3, np.float32), *batches]
    for batch in batches:
        widened.add("t", batch)
    direct.add("t", np.concatenate(batches))
    assert widened.ranges() == direct.ranges()
    np.testing.assert_array_equal(widened._counts, direct._counts)
    assert widened._counts.sum() == sum(map(len, batches))


@settings(deadline=None, max_examples=40)
@given(
    arrays(
        np.float32,
        st.integers(1, 200),
        elements=st.floats(-(2.0**127), 2.0**127, width=32),
    )
)
def test_any_finite_values_have_ranges(values: NDArray[np.float32]) -> None:
    histogram = Histogram()
    histogram.add("t", values)
    ranges = histogram.ranges()
    assert ranges["minmax"] == (min(0.0, float(values.min())), max(0.0, float(values.max())))
    for low, high in ranges.values():
        assert ranges["minmax"][0] <= low <= 0 <= high <= ranges["minmax"][1]


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1.0, 7.0, 1e-3]))
def test_percentiles_of_random_values_are_numpys_within_a_bin(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    values = (scale * rng.standard_t(3, 40000)).astype(np.float32)
    histogram = Histogram()
    histogram.add("t", values)
    tail = (100 - PERCENTILE) / 2
    expected = np.percentile(values, [tail, 100 - tail], method="inverted_cdf")
    bin_width = 2.0 ** math.ceil(math.log2(np.abs(values).max())) / 2048
    np.testing.assert_allclose(histogram.ranges()["percentile"], expected, atol=1.01 * bin_width)


def test_a_large_tensor_is_sampled_and_its_limits_are_exact() -> None:
    values = np.random.default_rng(0).normal(0, 1, 300_000).astype(np.float32)
    values[123_457] = 50
    histogram = Histogram()
    histogram.add("t", values.reshape(3, 100, 1000))
    assert histogram.high == 50
    assert 40_000 < histogram._counts.sum() < 70_000
    expected = np.percentile(values, PERCENTILE)
    assert histogram.ranges()["percentile"][1] == pytest.approx(expected, rel=0.15)


def literal_entropy_cut(counts: NDArray[np.int64], levels: int, cuts: list[int]) -> list[float]:
    """Return the divergence at each cut as on Migacz's slides, element by element.

    It is infinite where everything is beyond the cut: nothing would be left to quantise.
    """
    counts = counts.astype(np.float64)
    counts[0] = counts[1]
    divergences = []
    for cut in cuts:
        p = [float(count) for count in counts[:cut]]
        p[-1] += float(sum(counts[cut:]))
        edges = [math.ceil(level * cut / levels) for level in range(levels + 1)]
        q: list[float] = []
        for low, high in itertools.pairwise(edges):
            full = [count > 0 for count in counts[low:high]]
            share = sum(counts[low:high]) / max(1, sum(full))
            q += [share if some else 0.0 for some in full]
        q = [1e-4 if mass > 0 and not share else share for mass, share in zip(p, q, strict=True)]
        divergences.append(float(entropy(p, q)) if any(counts[:cut]) else math.inf)
    return divergences


@settings(deadline=None, max_examples=25)
@example(8, np.array([0] * 200 + [1, 2] + [0] * 60 + [1]))  # many cuts before the first value
@given(
    st.sampled_from([8, 16, 128]),
    arrays(np.int64, st.integers(10, 320), elements=st.integers(0, 40)),
)
def test_no_cut_loses_less_information_than_the_one_chosen(
    levels: int, counts: NDArray[np.int64]
) -> None:
    filled = np.flatnonzero(counts)
    last = int(filled[-1]) + 1 if len(filled) else 0
    chosen = entropy_cut(counts, levels)
    if last <= levels:
        assert chosen == last
        return
    cuts = [*range(levels, last, max(1, (last - levels) // 128)), last]
    divergences = literal_entropy_cut(counts, levels, cuts)
    assert chosen in cuts
    assert divergences[cuts.index(chosen)] <= min(divergences) + 1e-9


def test_the_cut_by_entropy_is_about_where_onnx_runtime_cuts() -> None:
    """Its `get_entropy_threshold` wants an odd number of bins around 0, and 2n + 1 levels."""
    calibrate = pytest.importorskip("onnxruntime.quantization.calibrate")
    rng = np.random.default_rng(0)
    for values in (rng.laplace(0, 1, 100_000), rng.standard_t(3, 100_000)):
        reach = float(np.abs(values).max())
        counts = np.histogram(np.abs(values), bins=512, range=(0, reach))[0]
        ours = entropy_cut(counts) * reach / 512
        both = np.concatenate([values, -values]).astype(np.float32)
        histogram, edges = np.histogram(both, bins=1025, range=(-reach, reach))
        collector = calibrate.HistogramCollector("entropy", True, 1025, 255, 99.99, "")
        statistics = histogram, edges, np.float32(-reach), np.float32(reach), np.float32(reach)
        theirs = float(collector.get_entropy_threshold(statistics, 255)[1])
        # Theirs puts the remainder of bins that do not divide evenly into the last level.
        assert theirs / 1.5 < ours < theirs * 1.5


def test_a_constant_is_not_cut() -> None:
    counts = np.zeros(2048, np.int64)
    counts[1500] = 7
    assert entropy_cut(counts) > 1500


def test_values_too_small_to_divide_by_count_as_zero() -> None:
    for value in (1e-45, -1e-38, 1e-35):
        histogram = Histogram()
        histogram.add("t", np.array([value], np.float32))
        histogram.add("t", np.array([1, 0, 0.5], np.float32))
        assert histogram._counts[2048] == 2
        assert histogram._counts.sum() == 4


def test_values_that_fit_into_the_levels_are_not_cut() -> None:
    assert entropy_cut(np.zeros(2048, np.int64)) == 0
    assert entropy_cut(np.array([5, 4, 3] + [0] * 500)) == 3
    assert entropy_cut(np.r_[np.ones(128, np.int64), np.zeros(99, np.int64)]) == 128


def test_nan_and_infinity_are_refused() -> None:
    for value in (np.inf, -np.inf, np.nan):
        with pytest.raises(CalibrationError, match="'t' is not finite"):
            Histogram().add("t", np.array([1, value, -1], np.float32))

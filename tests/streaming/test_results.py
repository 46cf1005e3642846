from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.streaming import StreamSummary
from edgeml.streaming.results import Latencies


@given(st.lists(st.floats(0.01, 1e5), min_size=1, max_size=300), st.floats(0.01, 1))
def test_percentiles_equal_numpys_within_one_percent(times: list[float], share: float) -> None:
    latencies = Latencies()
    for time in times:
        latencies.add(time)
    expected = float(np.percentile(times, 100 * share, method="inverted_cdf"))
    assert latencies.percentile(share) == pytest.approx(expected, rel=0.0101)


def test_percentiles_of_nothing_are_none() -> None:
    assert Latencies().percentile(0.5) is None


def test_a_month_of_latencies_needs_no_more_memory_than_a_minute() -> None:
    latencies = Latencies()
    for time in np.random.default_rng(0).lognormal(2, 1, 100_000):
        latencies.add(time)
    assert len(latencies._counts) < 600


def summary(**changes: object) -> StreamSummary:
    fields: dict[str, object] = {
        "source": "clip.mp4", "kind": "video", "frames_in": 10, "frames_done": 8, "dropped": 1,
        "errors": 1, "seconds": 2.0, "p50_ms": 1.23456, "p95_ms": 2.0, "p99_ms": 3.0,
        "ended": "eof",
    }  # fmt: skip
    return StreamSummary(**{**fields, **changes})  # type: ignore[arg-type]


def test_the_summary_has_the_keys_of_the_contract() -> None:
    data = json.loads(json.dumps(summary().to_dict()))
    assert data == {
        "source": "clip.mp4", "kind": "video", "frames_in": 10, "frames_done": 8, "dropped": 1,
        "errors": 1, "seconds": 2.0, "fps": 4.0,
        "latency_ms": {"p50": 1.235, "p95": 2.0, "p99": 3.0}, "ended": "eof",
    }  # fmt: skip


def test_the_summary_fits_a_line_even_without_frames() -> None:
    assert "8 frames in 2.0 s (4.0/s), 1 dropped, 1 errors" in summary().line()
    none = summary(frames_done=0, seconds=0.0, p50_ms=None, p95_ms=None, p99_ms=None)
    assert "latency" not in none.line()
    assert none.fps == 0

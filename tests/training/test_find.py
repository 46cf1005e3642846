"""The searches before training: for a learning rate, and for the fastest batch size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeml.data import Dataset
from edgeml.errors import EdgemlError
from edgeml.training import find
from edgeml.training.config import TrainConfig

pytestmark = pytest.mark.train

TINY = TrainConfig(size=32, batch=8, threads=1, cache=False)


def test_the_suggested_rate_is_plausible(shapes: Dataset, tmp_path: Path) -> None:
    result = find.find_lr(shapes, TINY, tmp_path / "run")
    assert 1e-5 < result.lr < 0.3
    assert f"--lr {result.lr:.2g}" in result.summary_line()
    page = (tmp_path / "run" / find.LR_REPORT).read_text(encoding="utf-8")
    assert "<svg" in page
    assert {path.name for path in (tmp_path / "run").iterdir()} == {find.LR_REPORT}


def test_the_steepest_descent_of_a_known_curve_is_found() -> None:
    rates = np.geomspace(1e-6, 1, 200)
    # A sigmoid over log(rate) falls fastest at its middle.
    curve = 1 / (1 + np.exp(3 * (np.log10(rates) + 2.5)))
    assert find._steepest(rates, curve) == pytest.approx(10**-2.5, rel=0.1)
    diverged = np.append(curve[:-3], [np.inf, np.nan, np.nan])
    assert find._steepest(rates, diverged) == pytest.approx(10**-2.5, rel=0.1)


def test_the_smallest_of_the_fastest_batches_is_chosen(
    shapes: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds = {2: 100.0, 4: 180.0, 8: 300.0, 16: 305.0, 32: 200.0}
    monkeypatch.setattr(find, "_speed", lambda learner, split: speeds[learner.batch])
    result = find.find_batch(shapes, TINY, tmp_path / "run")
    assert result.batch == 8
    assert result.images_per_s == speeds
    assert "--batch 8" in result.summary_line()


def test_the_search_ends_when_memory_runs_out(
    shapes: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def speed(learner: find.Learner, split: object) -> float:
        if learner.batch > 8:
            raise MemoryError
        return float(learner.batch)

    monkeypatch.setattr(find, "_speed", speed)
    assert find.find_batch(shapes, TINY, tmp_path / "run").batch == 8

    def nothing_fits(learner: find.Learner, split: object) -> float:
        raise MemoryError

    monkeypatch.setattr(find, "_speed", nothing_fits)
    with pytest.raises(EdgemlError, match="Not even 2 images"):
        find.find_batch(shapes, TINY, tmp_path / "run")


def test_speed_is_measured_on_real_steps(
    shapes: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find, "_SECONDS_PER_BATCH_SIZE", 0.05)
    result = find.find_batch(shapes, replace(TINY, augment="none"), tmp_path / "run")
    assert set(result.images_per_s) <= {2, 4, 8, 16, 32}
    assert all(speed > 1 for speed in result.images_per_s.values())

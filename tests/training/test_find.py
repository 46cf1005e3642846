"""The searches before training: a rate at which the loss falls, and the fastest batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeml.data import Dataset
from edgeml.training import find
from edgeml.training.config import TrainConfig
from tests.training.shapes import draw_shapes

pytestmark = pytest.mark.train

TINY = TrainConfig(size=32, batch=8, threads=1, cache=False)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return draw_shapes(tmp_path_factory.mktemp("shapes"))


def test_the_rate_that_is_found_is_one_that_learns(shapes: Dataset, tmp_path: Path) -> None:
    found = find.find_lr(shapes, TINY, tmp_path / "run")
    assert 1e-5 < found.lr < 0.3
    assert f"--lr {found.lr:.2g}" in found.summary_line()
    page = (tmp_path / "run" / find.LR_REPORT).read_text(encoding="utf-8")
    assert "<svg" in page
    assert {path.name for path in (tmp_path / "run").iterdir()} == {find.LR_REPORT}


def test_the_steepest_descent_is_found_on_a_curve_that_is_known() -> None:
    rates = np.geomspace(1e-6, 1, 200)
    # A sigmoid over log(rate) falls fastest at its middle.
    curve = 1 / (1 + np.exp(3 * (np.log10(rates) + 2.5)))
    assert find._steepest(rates, curve) == pytest.approx(10**-2.5, rel=0.1)
    diverged = np.append(curve[:-3], [np.inf, np.nan, np.nan])
    assert find._steepest(rates, diverged) == pytest.approx(10**-2.5, rel=0.1)


def test_the_smallest_batch_is_taken_that_is_as_fast_as_any(
    shapes: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds = {2: 100.0, 4: 180.0, 8: 300.0, 16: 305.0, 32: 200.0}
    monkeypatch.setattr(find, "_speed", lambda learner, side: speeds[learner.batch])
    found = find.find_batch(shapes, TINY, tmp_path / "run")
    assert found.batch == 8
    assert found.images_per_s == speeds
    assert "--batch 8" in found.summary_line()


def test_the_search_ends_where_memory_does(
    shapes: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def speed(learner: find.Learner, side: object) -> float:
        if learner.batch > 8:
            raise MemoryError
        return float(learner.batch)

    monkeypatch.setattr(find, "_speed", speed)
    assert find.find_batch(shapes, TINY, tmp_path / "run").batch == 8


def test_speed_is_measured_on_real_steps(
    shapes: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find, "_SECONDS_PER_BATCH_SIZE", 0.05)
    found = find.find_batch(shapes, replace(TINY, augment="none"), tmp_path / "run")
    assert set(found.images_per_s) <= {2, 4, 8, 16, 32}
    assert all(speed > 1 for speed in found.images_per_s.values())

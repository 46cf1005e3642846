"""The clock without processes: its results for calls that take a known time."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgeml import Predictor
from edgeml.benchmark import stages
from edgeml.benchmark.plan import BenchPlan
from edgeml.benchmark.stages import STAGES, time_block, time_call, time_stages, turns, warm_up
from edgeml.errors import ImageError, InferenceError
from tests.tiny import TinyRuntime


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "grey.png"
    cv2.imwrite(str(path), np.full((48, 48, 3), 128, np.uint8))
    return path


def test_a_slow_runtime_shows_in_infer_and_in_total(image: Path) -> None:
    predictor = Predictor(TinyRuntime(seconds=0.02))
    times = np.median([time_stages(predictor, image) for _ in range(5)], axis=0)
    decode, preprocess, infer, postprocess = times
    assert 20e6 <= infer < 60e6
    assert max(decode, preprocess, postprocess) < 20e6
    assert time_call(predictor, image) >= 20e6


def test_a_slow_reader_shows_only_in_decode(image: Path, monkeypatch: Any) -> None:
    predictor = Predictor(TinyRuntime())
    read = predictor.read

    def slowly(path: Any) -> Any:
        time.sleep(0.02)
        return read(path)

    monkeypatch.setattr(predictor, "read", slowly)
    decode, *others = np.median([time_stages(predictor, image) for _ in range(5)], axis=0)
    assert decode >= 20e6
    assert max(others) < 20e6


def test_stages_add_up_to_the_total(image: Path) -> None:
    predictor = Predictor(TinyRuntime(seconds=0.01))
    block = time_block(predictor, turns([image]), 0.6)
    parts = sum(min(block[stage]) for stage in STAGES[:-1])
    assert parts == pytest.approx(min(block["total"]), rel=0.2)


def test_a_block_lasts_its_time_and_has_both_kinds_of_calls(image: Path) -> None:
    start = time.perf_counter()
    block = time_block(Predictor(TinyRuntime(seconds=0.002)), turns([image]), 0.2)
    assert 0.2 <= time.perf_counter() - start < 2
    assert set(block) == set(STAGES)
    assert min(len(block[stage]) for stage in STAGES) > 5


def test_a_block_shorter_than_a_call_still_has_one_of_each(image: Path) -> None:
    runtime = TinyRuntime(seconds=0.02)
    block = time_block(Predictor(runtime), turns([image]), 1e-6)
    assert min(len(block[stage]) for stage in STAGES) == 1
    assert runtime.runs == len(block["infer"]) + len(block["total"]) + 1  # one does not count


def test_in_every_round_each_image_is_timed_both_ways_in_another_order() -> None:
    images = [Path(str(i)) for i in range(8)]
    calls = turns(images)
    first, second = list(itertools.islice(calls, 16)), list(itertools.islice(calls, 16))
    assert sorted(first) == sorted(second)
    assert sorted(first) == sorted((image, kind) for image in images for kind in (False, True))
    assert first != second
    assert list(itertools.islice(turns(images), 16)) == first


def clock(latencies: list[int]) -> Any:
    """Replace `time_call`: return these values, then the last one forever."""
    left: Iterator[int] = iter(latencies)
    return lambda predictor, image: next(left, latencies[-1])


def test_warm_up_ends_when_two_windows_agree(image: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(stages, "time_call", clock([900] * 10 + [500] * 10 + [505] * 10))
    done = warm_up(Predictor(TinyRuntime()), [image], BenchPlan(warmup_window=10))
    assert (done.calls, done.settled) == (30, True)
    assert done.change == pytest.approx(0.01)


def test_warm_up_that_never_settles_ends_with_its_time(image: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(stages, "time_call", clock([2**i for i in range(60)] * 100_000))
    plan = BenchPlan(warmup_window=1, warmup_max_s=0.05)
    done = warm_up(Predictor(TinyRuntime()), [image], plan)
    assert not done.settled
    assert 0.05 <= done.seconds < 2


def test_warm_up_too_short_for_two_windows_is_not_settled(image: Path) -> None:
    done = warm_up(Predictor(TinyRuntime(seconds=0.02)), [image], BenchPlan(warmup_max_s=0.05))
    assert not done.settled
    assert math.isnan(done.change)


def test_warm_up_takes_the_same_images_in_every_window(monkeypatch: Any) -> None:
    seen: list[Path] = []

    def note(predictor: Predictor, image: Path) -> int:
        seen.append(image)
        return 1000

    monkeypatch.setattr(stages, "time_call", note)
    images = [Path(name) for name in "abc"]
    warm_up(Predictor(TinyRuntime()), images, BenchPlan(warmup_window=4))
    assert "".join(map(str, seen)) == "abcaabca"


def test_errors_pass_through_the_clock(image: Path) -> None:
    with pytest.raises(InferenceError):
        time_stages(Predictor(TinyRuntime(failing=[0])), image)
    with pytest.raises(ImageError, match=r"gone\.png"):
        time_call(Predictor(TinyRuntime()), Path("gone.png"))

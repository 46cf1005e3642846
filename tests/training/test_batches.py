"""Prefetched batches come in order, and the time waiting for them is measured."""

from __future__ import annotations

import threading
import time

import pytest

from edgeml.training.augment import Prefetcher

pytestmark = pytest.mark.train


def test_batches_come_in_order() -> None:
    def make(index: int) -> int:
        time.sleep(0.01 if index % 3 else 0.0)
        return index * index

    assert list(Prefetcher(make, 2, 30, workers=4)) == [index * index for index in range(2, 30)]


def test_at_most_one_batch_more_than_workers_is_ahead() -> None:
    made = []
    batches = iter(Prefetcher(lambda index: made.append(index), 0, 100, workers=2))
    next(batches)
    time.sleep(0.1)
    assert len(made) <= 4
    batches.close()  # type: ignore[attr-defined]
    assert len(made) <= 5


def test_only_waiting_is_counted() -> None:
    slow = Prefetcher(lambda index: time.sleep(0.03), 0, 6, workers=1)
    list(slow)
    assert slow.waited_s > 0.1
    quick = Prefetcher(lambda index: index, 0, 6, workers=1)
    for _ in quick:
        time.sleep(0.03)
    assert quick.waited_s < 0.05


def test_an_error_reaches_the_consumer_and_ends_the_threads() -> None:
    def make(index: int) -> int:
        if index == 3:
            raise ValueError("third")
        return index

    with pytest.raises(ValueError, match="third"):
        list(Prefetcher(make, 0, 10, workers=2))
    assert not [thread for thread in threading.enumerate() if "edgeml-batch" in thread.name]


def test_an_empty_range_has_no_batches() -> None:
    assert list(Prefetcher(lambda index: index, 5, 5, workers=2)) == []

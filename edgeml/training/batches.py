"""Batches prepared ahead of use by threads, and how long training waited for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from edgeml.ordered import ordered_map

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """Yield `make(first)` to `make(stop - 1)` in order; threads prepare them ahead of use.

    Attributes:
        waited_s: Seconds that the consumer has waited so far.
    """

    def __init__(self, make: Callable[[int], T], first: int, stop: int, *, workers: int) -> None:
        """Use `workers` threads, which stay at most `workers` + 1 results ahead."""
        self._make, self._indices, self._workers = make, range(first, stop), workers
        self.waited_s = 0.0

    def __iter__(self) -> Iterator[T]:
        workers, started = self._workers, time.perf_counter()
        for batch in ordered_map(
            # One of these is the batch that the consumer is working on.
            self._make, self._indices, workers=workers, ahead=workers + 2, name="edgeml-batch"
        ):  # fmt: skip
            self.waited_s += time.perf_counter() - started
            yield batch
            started = time.perf_counter()

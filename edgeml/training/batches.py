"""Batches made ahead by threads, and how long training had to wait for them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """Give `make(0)`, `make(1)`, ... in order, made by threads before they are asked for.

    Attributes:
        waited_s: Seconds that the one who asked had to wait so far.
    """

    def __init__(self, make: Callable[[int], T], first: int, stop: int, *, workers: int) -> None:
        """Prepare what `make` gives for `first` to `stop` - 1; `workers` threads, as many ahead."""
        self._make, self._first, self._stop, self._workers = make, first, stop, workers
        self.waited_s = 0.0

    def __iter__(self) -> Iterator[T]:
        with ThreadPoolExecutor(self._workers, thread_name_prefix="edgeml-batch") as pool:
            pending: deque[Future[T]] = deque()
            upcoming = iter(range(self._first, self._stop))
            try:
                for index in upcoming:
                    pending.append(pool.submit(self._make, index))
                    if len(pending) > self._workers:
                        break
                while pending:
                    began = time.perf_counter()
                    batch = pending.popleft().result()
                    self.waited_s += time.perf_counter() - began
                    for index in upcoming:
                        pending.append(pool.submit(self._make, index))
                        break
                    yield batch
            finally:
                for future in pending:
                    future.cancel()

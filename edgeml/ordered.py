"""An ordered map over threads in bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int,
    ahead: int | None = None,
    name: str = "edgeml",
) -> Iterator[Result]:
    """Map items in `workers` threads and yield the results in the order of the items.

    Args:
        function: Called in the threads. An exception is raised in place of its result; the items
            after it are then dropped.
        items: May be endless.
        workers: Threads, 1 or more.
        ahead: The most items taken before their results are consumed, so that a slow consumer
            holds everything back. None is 2 x `workers`.
        name: Of the threads.
    """
    # Imported here, since `import edgeml` must be quick.
    from concurrent.futures import ThreadPoolExecutor

    items = iter(items)
    limit = 2 * workers if ahead is None else ahead
    pool = ThreadPoolExecutor(workers, thread_name_prefix=name)
    pending: deque[Future[Result]] = deque()
    try:
        while True:
            taken = list(islice(items, limit - len(pending)))
            pending.extend(pool.submit(function, item) for item in taken)
            if not pending:
                return
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def usable_cpus() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

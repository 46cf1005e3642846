"""Stop calls that take too long: one thread watches all of them."""

from __future__ import annotations

import heapq
import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from time import monotonic


class Alarm:
    """An action for a point in time, None once it is not needed; `expired` is true if it ran."""

    __slots__ = ("expired", "stop")

    def __init__(self, stop: Callable[[], None]) -> None:
        self.stop: Callable[[], None] | None = stop
        self.expired = False


class _Watchdog:
    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._alarms: list[tuple[float, int, Alarm]] = []
        self._numbers = count()
        self._wakes = math.inf
        threading.Thread(target=self._watch, name="edgeml-watchdog", daemon=True).start()

    def set(self, seconds: float, alarm: Alarm) -> None:
        due = monotonic() + seconds
        with self._changed:
            self._drop_past()
            heapq.heappush(self._alarms, (due, next(self._numbers), alarm))
            # If all calls have the same timeout, the thread nearly always wakes early enough.
            if due < self._wakes:
                self._changed.notify()

    def _drop_past(self) -> None:
        while self._alarms and self._alarms[0][2].stop is None:
            heapq.heappop(self._alarms)

    def _watch(self) -> None:
        while True:
            with self._changed:
                self._drop_past()
                self._wakes = self._alarms[0][0] if self._alarms else math.inf
                wait = self._wakes - monotonic()
                if wait > 0:
                    self._changed.wait(min(wait, threading.TIMEOUT_MAX))
                    continue
                alarm = heapq.heappop(self._alarms)[2]
            if stop := alarm.stop:
                alarm.expired = True
                stop()


_watchdog: _Watchdog | None = None
_creating = threading.Lock()


@contextmanager
def deadline(seconds: float, stop: Callable[[], None]) -> Iterator[Alarm]:
    """Call `stop` from another thread if the block takes longer than `seconds`.

    It may be called just as the block ends, so it must be harmless then.
    """
    global _watchdog
    with _creating:
        _watchdog = watchdog = _watchdog or _Watchdog()
    alarm = Alarm(stop)
    watchdog.set(seconds, alarm)
    try:
        yield alarm
    finally:
        alarm.stop = None


def _reset() -> None:
    """Drop the thread, which a forked process does not have: it gets its own when needed."""
    global _watchdog, _creating
    _watchdog, _creating = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset)

"""Stop what takes too long: one thread for all that is watched, none for a call."""

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
    """What is to be done at a time, or None once it need not be; `expired` says that it was."""

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
        deadline = monotonic() + seconds
        with self._changed:
            self._drop_past()
            heapq.heappush(self._alarms, (deadline, next(self._numbers), alarm))
            # With one timeout for all calls it is awake early enough nearly always.
            if deadline < self._wakes:
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


_dog: _Watchdog | None = None
_making = threading.Lock()


@contextmanager
def stopped_after(seconds: float, stop: Callable[[], None]) -> Iterator[Alarm]:
    """Call `stop` from another thread if the block takes longer than `seconds`.

    It may be called just as the block ends, so it must be harmless then.
    """
    alarm = Alarm(stop)
    _watchdog().set(seconds, alarm)
    try:
        yield alarm
    finally:
        alarm.stop = None


def _watchdog() -> _Watchdog:
    global _dog
    dog = _dog
    if dog is None:
        with _making:
            dog = _dog = _dog or _Watchdog()
    return dog


def _forget() -> None:
    """A thread does not come along into a forked process: a new one is made when needed."""
    global _dog, _making
    _dog, _making = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)

"""Progress and cancellation of a build, for TensorRT's IProgressMonitor."""

from __future__ import annotations

import threading
from typing import Any

from edgeml.progress import Advance


def monitor_of(trt: Any, cancelled: threading.Event, advance: Advance) -> Any:
    """Return a monitor that advances in percent, and stops the build once `cancelled` is set."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)  # pybind11 requires it by name
            self.steps = _Steps()
            self.shown = 0
            self.lock = threading.Lock()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps.start(phase_name, parent_phase, num_steps)

        def phase_finish(self, phase_name: str) -> None:
            self.steps.finish(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            # An exception must not leave this method: it would pass through TensorRT's frames.
            try:
                self.steps.complete(phase_name, step)
                with self.lock:
                    percent = int(100 * self.steps.share())
                    if percent > self.shown:
                        advance(percent - self.shown)
                        self.shown = percent
            except Exception:
                cancelled.set()
            return not cancelled.is_set()

    return Monitor()


class _Steps:
    """The share of a build that is done: phases have steps, in which other phases may be open."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[str | None, int, int]] = {}
        self._lock = threading.Lock()  # TensorRT's threads report phases concurrently

    def start(self, name: str, parent: str | None, steps: int) -> None:
        with self._lock:
            self._open[name] = parent or None, max(1, steps), 0

    def complete(self, name: str, step: int) -> None:
        with self._lock:
            if name in self._open:
                parent, steps, _ = self._open[name]
                self._open[name] = parent, steps, min(steps, step + 1)

    def finish(self, name: str) -> None:
        with self._lock:
            self._open.pop(name, None)

    def share(self) -> float:
        """Return the share, 0 to 1, of the first phase that was started and is still open."""
        with self._lock:
            root = next((n for n, (parent, *_) in self._open.items() if parent is None), None)
            return 0.0 if root is None else self._share(root)

    def _share(self, name: str) -> float:
        _, steps, done = self._open[name]
        inside = [self._share(n) for n, (parent, *_) in self._open.items() if parent == name]
        return min(1.0, (done + max(inside, default=0.0)) / steps)

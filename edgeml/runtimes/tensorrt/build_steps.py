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
            self.shown = 0
            self.phases: dict[str, tuple[str | None, int, int]] = {}
            self.lock = threading.Lock()  # TensorRT's threads report phases concurrently

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self.lock:
                self.phases[phase_name] = parent_phase or None, max(1, num_steps), 0

        def phase_finish(self, phase_name: str) -> None:
            with self.lock:
                self.phases.pop(phase_name, None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            # An exception must not leave this method: it would pass through TensorRT's frames.
            try:
                with self.lock:
                    if phase_name in self.phases:
                        parent, steps, _ = self.phases[phase_name]
                        self.phases[phase_name] = parent, steps, min(steps, step + 1)
                    percent = int(100 * _share(self.phases))
                    if percent > self.shown:
                        advance(percent - self.shown)
                        self.shown = percent
            except Exception:
                cancelled.set()
            return not cancelled.is_set()

    return Monitor()


def _share(phases: dict[str, tuple[str | None, int, int]]) -> float:
    """Return the share, 0 to 1, of the first open phase; phases are open inside its steps."""

    def done(name: str) -> float:
        _, steps, complete = phases[name]
        inside = [done(other) for other, (parent, *_) in phases.items() if parent == name]
        return min(1.0, (complete + max(inside, default=0.0)) / steps)

    return next((done(name) for name, (parent, *_) in phases.items() if parent is None), 0.0)

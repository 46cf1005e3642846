"""How a benchmark is run. Part of its report: results of different plans are not comparable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgeml.errors import InputError
from edgeml.runtimes.protocol import Exactness


@dataclass(frozen=True, kw_only=True)
class BenchPlan:
    """One image at a time, each as soon as the last one is done, with models taking turns.

    Attributes:
        scenario: How calls arrive; `single` is a closed loop with one image per call.
        min_s: Shortest time to measure a model, in seconds.
        min_calls: Fewest calls of `predict`, and fewest calls whose stages are timed one by one.
            The 99th percentile needs 473; see `fewest_calls`.
        max_s: Longest time to measure a model, in seconds, but never less than `min_s`. Too few
            calls are then flagged: a slow model would take an hour for its 99th percentile.
        warmup_window: Calls per window. Warm-up ends when the medians of two consecutive windows
            differ by less than `warmup_tolerance`.
        warmup_tolerance: The tolerance, as a share of 1.
        warmup_max_s: Longest warm-up, in seconds; reaching it is flagged.
        block_s: Length of a model's turn, in seconds.
        pause_s: Pause between turns, in seconds: the next model would otherwise be slowed by
            threads that still spin.
        threads: CPU threads of the runtime and of OpenCV; None leaves the choice to them.
        runtime, device, precision: As for `Predictor`, the same for every model.
    """

    scenario: Literal["single"] = "single"
    min_s: float = 3.0
    min_calls: int = 480
    max_s: float = 60.0
    warmup_window: int = 10
    warmup_tolerance: float = 0.02
    warmup_max_s: float = 5.0
    block_s: float = 0.5
    pause_s: float = 0.03
    threads: int | None = None
    runtime: str = "auto"
    device: str = "auto"
    precision: Exactness = "exact"

    def __post_init__(self) -> None:
        if self.scenario != "single":
            raise InputError(f"There is no scenario {self.scenario!r} yet; the only one is single.")
        for name in ("min_s", "max_s", "pause_s", "warmup_max_s"):
            if not 0 <= getattr(self, name) < 86400:
                raise InputError(f"{name} is {getattr(self, name)}; it must be 0 to 86400 seconds.")
        if not 0 < self.block_s <= 60:
            raise InputError(f"block_s is {self.block_s}; it must be above 0, at most 60 seconds.")
        if self.min_calls < 1 or self.warmup_window < 1:
            raise InputError(
                f"min_calls is {self.min_calls}, warmup_window {self.warmup_window}; "
                "both must be 1 or more."
            )
        if self.warmup_tolerance <= 0:
            raise InputError(f"warmup_tolerance is {self.warmup_tolerance}; it must be above 0.")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads is {self.threads}; it must be 1 or more.")

    @property
    def longest_s(self) -> float:
        """The time after which a model is done, even with too few calls."""
        return max(self.min_s, self.max_s)

"""Look for a good learning rate, or the fastest batch, before training."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgeml.data import Dataset
from edgeml.errors import EdgemlError
from edgeml.progress import SILENT, Progress
from edgeml.training.config import TrainConfig
from edgeml.training.learner import Learner
from edgeml.training.loop import batch_maker
from edgeml.training.ready import made_ready
from edgeml.training.report.page import write_lr_report
from edgeml.training.sides import Side
from edgeml.training.start import check_out

LR_REPORT = "lr_finder.html"

_RATES = (1e-6, 1.0)
_LR_STEPS = 100
_SMOOTHING = 0.9
# The search ends when the smoothed loss is so many times its least.
_DIVERGED = 4.0

# Each step at its own rate, which is constant for the head alone: let all epochs be such.
_FLAT: dict[str, Any] = {"head_epochs": 1_000_000, "epochs": 1_000_000, "accumulate": 1}

_LARGEST_BATCH = 1024
_SECONDS_A_BATCH = 2.0
# Larger batches that are no faster than this share of the best are not worth their memory.
_FASTER = 1.03


@dataclass(frozen=True, kw_only=True)
class FoundRate:
    """A learning rate, and the page that shows why."""

    lr: float
    report: str

    def told(self) -> str:
        """Say it as a line."""
        return f"--lr {self.lr:.2g}   (the loss falls fastest there: {self.report})"

    def to_dict(self) -> dict[str, Any]:
        """Give what `--json` prints."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class FoundBatch:
    """The fastest batch, and pictures per second of all that were tried."""

    batch: int
    images_per_s: dict[int, float]

    def told(self) -> str:
        """Say it as a line."""
        tried = ", ".join(f"{size}: {speed:.0f}" for size, speed in self.images_per_s.items())
        return f"--batch {self.batch}   (images a second by batch: {tried})"

    def to_dict(self) -> dict[str, Any]:
        """Give what `--json` prints."""
        return asdict(self)


def find_lr(
    dataset: Dataset, config: TrainConfig, out: Path, *, progress: Progress = SILENT
) -> FoundRate:
    """Raise the learning rate with every step and see where the loss falls fastest.

    The range test of Smith, "Cyclical Learning Rates for Training Neural Networks" (WACV 2017):
    rates from 1e-6 to 1, as a geometric series; the suggestion is where the smoothed loss has its
    steepest descent over log(rate). Writes lr_finder.html into `out` and nothing else.

    Raises:
        EdgemlError: The loss was not finite from the start.
        DataError, InputError, ModelLoadError: As `train`.
    """
    check_out(out, overwrite=True)
    rates = np.geomspace(*_RATES, _LR_STEPS)
    losses: list[float] = []
    smooth: list[float] = []
    with (
        made_ready(dataset, config, progress) as ready,
        progress.task("find lr", total=_LR_STEPS, unit="steps") as advance,
    ):
        learner, side = ready.learner, ready.sides["train"]
        learner.model.train()
        for step, rate in enumerate(rates):
            # Any head start would be in the suggestion: the rate is all that moves the weights.
            fixed = replace(learner, lr=float(rate), config=replace(learner.config, **_FLAT))
            losses.append(_step(fixed, side, step))
            smooth.append(_smoothed(losses))
            advance(1)
            if not math.isfinite(losses[-1]) or smooth[-1] > _DIVERGED * min(smooth):
                break
    if len(losses) < 10:
        raise EdgemlError(f"The loss is {losses[-1]} after {len(losses)} steps: no rate helps.")
    tried = rates[: len(losses)]
    suggested = _steepest(tried, np.array(smooth))
    write_lr_report(tried.tolist(), losses, suggested, out / LR_REPORT)
    return FoundRate(lr=suggested, report=str(out / LR_REPORT))


def find_batch(
    dataset: Dataset, config: TrainConfig, out: Path, *, progress: Progress = SILENT
) -> FoundBatch:
    """Double the batch until memory ends or it is no faster; the pictures are augmented too.

    Raises:
        DataError, InputError, ModelLoadError: As `train`, and if two pictures do not fit.
    """
    speeds: dict[int, float] = {}
    with made_ready(dataset, config, progress) as ready:
        learner, side = ready.learner, ready.sides["train"]
        learner.model.train()
        size = 2
        while size <= min(_LARGEST_BATCH, len(side)):
            sized = replace(learner, batch=size, batches_per_epoch=len(side) // size)
            try:
                speeds[size] = _speed(sized, side)
            except (torch.OutOfMemoryError, MemoryError):
                progress.note(f"{size} pictures do not fit into memory")
                break
            progress.note(f"batch {size}: {speeds[size]:.0f} images a second")
            if size >= 8 and max(speeds, key=lambda known: speeds[known]) <= size // 4:
                break
            size *= 2
    best = max(speeds.values())
    smallest = min(size for size, speed in speeds.items() if speed * _FASTER >= best)
    return FoundBatch(batch=smallest, images_per_s={k: round(v, 1) for k, v in speeds.items()})


def _step(learner: Learner, side: Side, step: int) -> float:
    """Take one step; give its loss."""
    epoch, index = divmod(step, learner.batches_per_epoch)
    pictures, targets = batch_maker(side, epoch, learner)(index)
    loss = learner.backward(pictures, targets, learner.place(epoch, index))
    learner.step(step)
    return float(loss)


def _speed(learner: Learner, side: Side) -> float:
    """Measure pictures per second of whole steps, the first one apart."""
    _step(learner, side, 0)
    began, steps = time.perf_counter(), 0
    while steps < 2 or time.perf_counter() - began < _SECONDS_A_BATCH:
        steps += 1
        _step(learner, side, steps)
    if learner.device.type == "cuda":
        torch.cuda.synchronize()
    return steps * learner.batch / (time.perf_counter() - began)


def _smoothed(losses: list[float]) -> float:
    """Give the exponential average of the losses so far, its start corrected for."""
    weights = (1 - _SMOOTHING) * _SMOOTHING ** np.arange(len(losses))[::-1]
    return float(weights @ losses / weights.sum())


def _steepest(rates: NDArray[np.float64], smooth: NDArray[np.float64]) -> float:
    """Give the rate at the steepest descent of the smoothed loss over log(rate)."""
    finite = np.isfinite(smooth)
    slopes = np.gradient(smooth[finite], np.log(rates[finite]))
    return float(f"{rates[finite][int(slopes.argmin())]:.2g}")

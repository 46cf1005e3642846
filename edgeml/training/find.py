"""Search for a good learning rate, or for the fastest batch size, before training."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
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
from edgeml.training.report.page import write_lr_report
from edgeml.training.report.plots import smoothed
from edgeml.training.setup import check_output, training_setup
from edgeml.training.splits import SplitFrames

LR_REPORT = "lr_finder.html"
_RATES = (1e-6, 1.0)
_LR_STEPS = 100
# The search ends when the smoothed loss exceeds its minimum by this factor.
_DIVERGED = 4.0
# The search sets the rate of each step itself: the rate of head epochs follows no schedule.
_NO_SCHEDULE: dict[str, Any] = {"head_epochs": 1_000_000, "epochs": 1_000_000, "accumulate": 1}
_LARGEST_BATCH = 1024
_SECONDS_PER_BATCH_SIZE = 2.0
# A larger batch has to be this much faster to be worth its memory.
_MIN_GAIN = 1.03


@dataclass(frozen=True, kw_only=True)
class FoundRate:
    """A learning rate, and the path of the report that shows how it was chosen."""

    lr: float
    report: str

    def summary_line(self) -> str:
        """Return the result as one line of text."""
        return f"--lr {self.lr:.2g}   (the loss falls fastest there: {self.report})"


@dataclass(frozen=True, kw_only=True)
class FoundBatch:
    """The fastest batch size, and the images per second of each size that was tried."""

    batch: int
    images_per_s: dict[int, float]

    def summary_line(self) -> str:
        """Return the result as one line of text."""
        tried = ", ".join(f"{size}: {speed:.0f}" for size, speed in self.images_per_s.items())
        return f"--batch {self.batch}   (images per second by batch size: {tried})"


def find_lr(
    dataset: Dataset, config: TrainConfig, out: Path, *, progress: Progress = SILENT
) -> FoundRate:
    """Raise the learning rate with every step and find where the loss falls fastest.

    The range test of Smith, "Cyclical Learning Rates for Training Neural Networks" (WACV 2017):
    rates from 1e-6 to 1 in a geometric series; the suggested rate is where the smoothed loss falls
    most steeply over log(rate). Writes lr_finder.html into `out` and nothing else.

    Raises:
        EdgemlError: The loss diverged within the first steps.
        DataError, InputError, ModelLoadError: As `train`.
    """
    check_output(out, overwrite=True)
    rates = np.geomspace(*_RATES, _LR_STEPS)
    losses: list[float] = []
    with (
        training_setup(dataset, config, progress) as setup,
        progress.task("find lr", total=_LR_STEPS, unit="steps") as advance,
    ):
        learner, split = setup.learner, setup.frames["train"]
        learner.model.train()
        for step, rate in enumerate(rates):
            # The suggestion must reflect the rate alone, without a schedule or a head-only phase.
            fixed = replace(learner, lr=float(rate), config=replace(learner.config, **_NO_SCHEDULE))
            losses.append(_step(fixed, split, step))
            smooth = smoothed(np.array(losses))
            advance(1)
            if not math.isfinite(losses[-1]) or smooth[-1] > _DIVERGED * smooth.min():
                break
    if len(losses) < 10:
        raise EdgemlError(
            f"The loss is {losses[-1]} after {len(losses)} steps, even at a tiny learning rate. "
            "Check the data and the initial weights."
        )
    tried = rates[: len(losses)]
    suggested = _steepest(tried, smoothed(np.array(losses)))
    write_lr_report(tried.tolist(), losses, suggested, out / LR_REPORT)
    return FoundRate(lr=suggested, report=str(out / LR_REPORT))


def find_batch(
    dataset: Dataset, config: TrainConfig, out: Path, *, progress: Progress = SILENT
) -> FoundBatch:
    """Double the batch size until memory runs out or speed no longer rises.

    Images are augmented as in training.

    Raises:
        EdgemlError: Not even two images fit into memory.
        DataError, InputError, ModelLoadError: As `train`.
    """
    speeds: dict[int, float] = {}
    with training_setup(dataset, config, progress) as setup:
        learner, split = setup.learner, setup.frames["train"]
        learner.model.train()
        size = 2
        while size <= min(_LARGEST_BATCH, len(split)):
            sized = replace(learner, batch=size, batches_per_epoch=len(split) // size)
            try:
                speeds[size] = _speed(sized, split)
            except (torch.OutOfMemoryError, MemoryError):
                progress.note(f"a batch of {size} images does not fit into memory")
                break
            progress.note(f"batch {size}: {speeds[size]:.0f} images per second")
            if size >= 8 and max(speeds, key=lambda tried: speeds[tried]) <= size // 4:
                break
            size *= 2
    if not speeds:
        raise EdgemlError("Not even 2 images fit into memory. Lower --size or change --model.")
    best = max(speeds.values())
    smallest = min(size for size, speed in speeds.items() if speed * _MIN_GAIN >= best)
    return FoundBatch(batch=smallest, images_per_s={k: round(v, 1) for k, v in speeds.items()})


def _step(learner: Learner, split: SplitFrames, step: int) -> float:
    """Take one step and return its loss."""
    epoch, index = divmod(step, learner.batches_per_epoch)
    images, targets = batch_maker(split, epoch, learner)(index)
    loss = learner.backward(images, targets, learner.position(epoch, index))
    learner.step(step)
    return float(loss)


def _speed(learner: Learner, split: SplitFrames) -> float:
    """Return images per second over complete steps, after one to warm up."""
    _step(learner, split, 0)
    started, steps = time.perf_counter(), 0
    while steps < 2 or time.perf_counter() - started < _SECONDS_PER_BATCH_SIZE:
        steps += 1
        _step(learner, split, steps)
    if learner.device.type == "cuda":
        torch.cuda.synchronize()
    return steps * learner.batch / (time.perf_counter() - started)


def _steepest(rates: NDArray[np.float64], smooth: NDArray[np.float64]) -> float:
    """Return the rate at the steepest descent of the smoothed loss over log(rate)."""
    finite = np.isfinite(smooth)
    slopes = np.gradient(smooth[finite], np.log(rates[finite]))
    return float(f"{rates[finite][int(slopes.argmin())]:.2g}")

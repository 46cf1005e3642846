"""The training loop, to be read from top to bottom."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgeml.data import Dataset, write_split
from edgeml.errors import EdgemlError
from edgeml.files import write_text
from edgeml.measure.metrics import evaluate
from edgeml.measure.thresholds import fit_thresholds
from edgeml.network.checkpoint import save_checkpoint
from edgeml.network.weights import WEIGHTS_FILE
from edgeml.progress import SILENT, Advance, Progress
from edgeml.spec.model_spec import ModelSpec
from edgeml.training import augment
from edgeml.training.batches import Ahead
from edgeml.training.config import TrainConfig
from edgeml.training.finish import TrainResult, finish, known_metrics
from edgeml.training.history import Epoch, history_csv
from edgeml.training.learner import Learner
from edgeml.training.optim import freeze_backbone, freeze_batch_norm, training_mode
from edgeml.training.ready import made_ready
from edgeml.training.sides import Side, predict_logits
from edgeml.training.start import check_out
from edgeml.training.state import (
    STATE_FILE,
    Course,
    identity_of,
    load_state,
    remove_leftovers,
    restore,
    save_state,
)


def train(
    dataset: Dataset,
    config: TrainConfig,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> TrainResult:
    """Train a model and keep the weights that are best on the validation side.

    The run folder gets model.safetensors (anew whenever the weights are the best so far),
    history.csv, split.csv, config.yaml, state.safetensors while it runs, and a report at the end;
    each file is absent or whole. A run that was killed, at any instant, goes on with `resume` and
    ends with the very weights that it would have ended with.

    Args:
        dataset: Pictures and labels; one without a split is divided as `config` says.
        config: How to train.
        out: The run folder; made if need be.
        resume: Go on from the state in `out`.
        overwrite: Replace the model that is in `out`.
        progress: Told what goes on.

    Raises:
        DataError: Unreadable pictures, too few of them, or fewer than two labels.
        InputError: `out` cannot be used, there is no such device, or nothing to go on from.
        ModelLoadError: No such model, or weights that do not fit it.
        EdgemlError: The loss is no longer finite.
    """
    check_out(out, overwrite=overwrite or resume)
    state = load_state(out / STATE_FILE) if resume else None
    with made_ready(dataset, config, progress) as ready:
        begin, parts, learner = ready.begin, ready.parts, ready.learner
        course = Course(identity=identity_of(begin.config, parts.whole))
        if state is None:
            _begin_folder(out, parts.whole, begin.config)
        else:
            course = course.at(state)
            remove_leftovers(out)
            restore(state, learner.model, learner.ema, learner.optimizer)
            learner.scaler.load_state_dict(course.scaler)
            progress.note(f"resumed in epoch {min(course.epoch + 1, begin.config.epochs)}")
        try:
            _fit(learner, course, ready.sides, out, progress)
        except KeyboardInterrupt:
            if (out / STATE_FILE).exists():
                progress.note(f"interrupted: go on with --resume --out {str(out)!r}")
            raise
        return finish(begin, parts, ready.sides, course.history, out, progress=progress)


def _begin_folder(out: Path, dataset: Dataset, config: TrainConfig) -> None:
    """Write what a run starts from; a model that is replaced must not stand beside it."""
    out.mkdir(exist_ok=True)
    remove_leftovers(out)
    for name in (WEIGHTS_FILE, STATE_FILE):
        (out / name).unlink(missing_ok=True)
    write_split(dataset, out / "split.csv")
    write_text(out / "config.yaml", config.to_yaml())


def _fit(
    learner: Learner,
    course: Course,
    sides: Mapping[str, Side],
    out: Path,
    progress: Progress,
) -> None:
    """Run the epochs that are left; write the best averaged weights, and the state, as it goes."""
    config, per_epoch = learner.config, learner.batches_per_epoch
    left = (config.epochs - course.epoch) * per_epoch - course.batch
    with ExitStack() as stack:
        advance = stack.enter_context(progress.task("train", total=left * learner.batch))
        record = stack.enter_context(_board(config, out, course.epoch + 1))
        while course.epoch < config.epochs and not _is_stale(course, config):
            _train_epoch(learner, course, sides["train"], out, advance)
            row, fitted = _validate(learner, course, sides["val"])
            if course.takes(row):
                save_checkpoint(
                    out / WEIGHTS_FILE,
                    learner.ema.model,
                    fitted,
                    name=config.model,
                    args=config.model_args,
                )
            write_text(out / "history.csv", history_csv(course.history))
            _save(learner, course, out)
            progress.note(row.told(config.epochs))
            record(row)
    if course.epoch < config.epochs:
        progress.note(f"stopped early: {config.patience} epochs without a better one")


def _train_epoch(learner: Learner, course: Course, side: Side, out: Path, advance: Advance) -> None:
    """Take the steps of one epoch, or what is left of it; write the state every so often."""
    config = learner.config
    make = batch_maker(side, course.epoch, learner)
    _set_training(learner, head_alone=course.epoch < config.head_epochs)
    ahead = Ahead(make, course.batch, learner.batches_per_epoch, workers=_workers(config))
    began, saved = time.perf_counter(), time.perf_counter()
    seconds, waited = course.seconds, course.waited_s
    for pictures, targets in ahead:
        place = learner.place(course.epoch, course.batch)
        # All chance within a batch, dropout say, follows from its place.
        torch.manual_seed(_seed(config.seed, place.step, place.batch))
        loss = learner.backward(pictures, targets, place)
        course.losses.append(loss)
        course.batch += 1
        advance(learner.batch)
        if not place.ends_step:
            continue
        learner.step(place.step)
        now = time.perf_counter()
        course.seconds, course.waited_s = seconds + now - began, waited + ahead.waited_s
        if now - saved >= config.save_every:
            _save(learner, course, out)
            saved = time.perf_counter()


def batch_maker(side: Side, epoch: int, learner: Learner) -> Callable[[int], tuple[Tensor, Tensor]]:
    """Give the function that makes one batch of an epoch; threads may call it in any order."""
    config, size, preprocess = learner.config, learner.batch, learner.spec.preprocess
    order = augment.order(len(side), seed=config.seed, epoch=epoch)

    def make(index: int) -> tuple[Tensor, Tensor]:
        rows = order[index * size : (index + 1) * size]
        pictures = augment.training_batch(
            side.frames[rows], rows, preprocess, config.augment, seed=config.seed, epoch=epoch
        )
        return (
            torch.from_numpy(pictures).contiguous(memory_format=learner.layout),
            side.float_targets(rows),
        )

    return make


def _set_training(learner: Learner, *, head_alone: bool) -> None:
    """Let the right layers learn; statistics of frozen layers stay as they are, too."""
    freeze_backbone(learner.model, head_alone)
    if learner.config.freeze_bn:
        freeze_batch_norm(learner.model)
    training_mode(learner.model)


def _validate(learner: Learner, course: Course, side: Side) -> tuple[Epoch, ModelSpec]:
    """Measure the averaged weights on the validation side; give the spec with their thresholds."""
    spec = learner.spec
    train_loss = float(torch.stack(course.losses).mean())
    logits = predict_logits(learner.ema.model, side.frames, spec.preprocess)
    targets = side.float_targets().to(learner.device)
    val_loss = float(learner.loss(logits.to(learner.device), targets))
    if not (math.isfinite(train_loss) and math.isfinite(val_loss)):
        raise EdgemlError(
            f"The loss became {train_loss:g}, and {val_loss:g} on the validation side, in epoch "
            f"{course.epoch + 1}: lower --lr."
        )
    scores = spec.probabilities(logits.numpy())
    spec = replace(spec, thresholds=fit_thresholds(scores, side.targets, learner.config.objective))
    metrics = evaluate(scores, side.targets, spec)
    row = Epoch(
        epoch=course.epoch + 1,
        lr=learner.rate((course.epoch + 1) * learner.steps_per_epoch - 1),
        train_loss=train_loss,
        val_loss=val_loss,
        **metrics.summary(),
        seconds=course.seconds,
        images_per_s=len(course.losses) * learner.batch / course.seconds,
        wait=course.waited_s / course.seconds,
    )
    return row, replace(spec, metrics=known_metrics("val", metrics))


def _save(learner: Learner, course: Course, out: Path) -> None:
    course.scaler = learner.scaler.state_dict()
    losses = torch.stack(course.losses) if course.losses else torch.empty(0)
    save_state(
        out / STATE_FILE, learner.model, learner.ema, learner.optimizer, losses, course.told()
    )


def _is_stale(course: Course, config: TrainConfig) -> bool:
    return bool(config.patience) and course.stale >= config.patience


@contextmanager
def _board(config: TrainConfig, out: Path, first_epoch: int) -> Iterator[Callable[[Epoch], None]]:
    """Open TensorBoard's log where it was asked for; give what takes an epoch."""
    if not config.tensorboard:
        yield lambda row: None
        return
    from edgeml.training.tensorboard import board

    with board(out / "tensorboard", first_epoch=first_epoch) as record:
        yield record


def _workers(config: TrainConfig) -> int:
    return config.workers or min(8, os.cpu_count() or 1)


def _seed(*numbers: int) -> int:
    """Give a seed of 64 bits for some numbers; near ones give unlike seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])

"""The training loop; read it from top to bottom."""

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
from edgeml.spec.decide import probabilities
from edgeml.spec.model_spec import ModelSpec
from edgeml.training import augment
from edgeml.training.augment import Prefetcher
from edgeml.training.config import TrainConfig
from edgeml.training.finish import TrainResult, finish, finite_metrics
from edgeml.training.history import Epoch, history_csv
from edgeml.training.learner import Learner
from edgeml.training.optim import freeze_backbone, freeze_batch_norm, training_mode
from edgeml.training.setup import check_output, training_setup
from edgeml.training.splits import SplitFrames, predict_logits
from edgeml.training.state import (
    STATE_FILE,
    RunState,
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
    """Train a model and save the weights that are best on the validation split.

    The run folder `out` receives model.safetensors (rewritten whenever the weights are the best so
    far), history.csv, split.csv, config.yaml, state.safetensors during the run, and a report at the
    end; each file is absent or complete. A run that was killed at any moment continues with
    `resume`, and ends with exactly the weights of an uninterrupted run. `overwrite` replaces the
    model in `out`. A data set without a split is split according to `config`.

    Raises:
        DataError: Unreadable images, too few images, or fewer than two labels.
        InputError: `out` cannot be used, the device does not exist, or there is no state to
            resume from.
        ModelLoadError: The model does not exist, or the weights do not fit it.
        EdgemlError: The loss is no longer finite.
    """
    check_output(out, overwrite=overwrite or resume)
    state = load_state(out / STATE_FILE) if resume else None
    with training_setup(dataset, config, progress) as setup:
        learner, config = setup.learner, setup.learner.config
        run = RunState(identity=identity_of(config, setup.splits.dataset))
        if state is None:
            _start_folder(out, setup.splits.dataset, config)
        else:
            run = run.restored(state)
            remove_leftovers(out)
            restore(state, learner.model, learner.ema, learner.optimizer)
            learner.scaler.load_state_dict(run.scaler)
            progress.note(f"resumed in epoch {min(run.epoch + 1, config.epochs)}")
        try:
            _fit(learner, run, setup.frames, out, progress)
        except KeyboardInterrupt:
            if (out / STATE_FILE).exists():
                progress.note(f"interrupted: continue with --resume --out {str(out)!r}")
            raise
        return finish(setup, run.history, out, progress=progress)


def _start_folder(out: Path, dataset: Dataset, config: TrainConfig) -> None:
    """Write the split and the settings; remove the model and the state of an earlier run."""
    out.mkdir(exist_ok=True)
    remove_leftovers(out)
    for name in (WEIGHTS_FILE, STATE_FILE):
        (out / name).unlink(missing_ok=True)
    write_split(dataset, out / "split.csv")
    write_text(out / "config.yaml", config.to_yaml())


def _fit(
    learner: Learner,
    run: RunState,
    frames: Mapping[str, SplitFrames],
    out: Path,
    progress: Progress,
) -> None:
    """Run the remaining epochs; write the best averaged weights, and the state, during the run."""
    config, per_epoch = learner.config, learner.batches_per_epoch
    remaining = (config.epochs - run.epoch) * per_epoch - run.batch
    with ExitStack() as stack:
        advance = stack.enter_context(progress.task("train", total=remaining * learner.batch))
        log_row = stack.enter_context(_tensorboard(config, out, run.epoch + 1))
        while run.epoch < config.epochs and not (config.patience and run.stale >= config.patience):
            _train_epoch(learner, run, frames["train"], out, advance)
            row, fitted = _validate(learner, run, frames["val"])
            if run.end_epoch(row):
                save_checkpoint(
                    out / WEIGHTS_FILE,
                    learner.ema.model,
                    fitted,
                    name=config.model,
                    args=config.model_args,
                )
            write_text(out / "history.csv", history_csv(run.history))
            _save(learner, run, out)
            progress.note(row.summary_line(config.epochs))
            log_row(row)
    if run.epoch < config.epochs:
        progress.note(f"stopped early: no improvement for {config.patience} epochs")


def _train_epoch(
    learner: Learner, run: RunState, split: SplitFrames, out: Path, advance: Advance
) -> None:
    """Take the remaining steps of one epoch; write the state every `save_every` seconds."""
    config = learner.config
    make = batch_maker(split, run.epoch, learner)
    freeze_backbone(learner.model, frozen=run.epoch < config.head_epochs)
    if config.freeze_bn:
        freeze_batch_norm(learner.model)
    training_mode(learner.model)
    workers = config.workers or min(8, os.cpu_count() or 1)
    batches = Prefetcher(make, run.batch, learner.batches_per_epoch, workers=workers)
    started, saved = time.perf_counter(), time.perf_counter()
    seconds, waited = run.seconds, run.waited_s
    for images, targets in batches:
        position = learner.position(run.epoch, run.batch)
        # Everything random within a batch, such as dropout, depends on its position only.
        seeds = np.random.SeedSequence((config.seed, position.step, position.batch))
        torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0]))
        loss = learner.backward(images, targets, position)
        run.losses.append(loss)
        run.batch += 1
        advance(learner.batch)
        if position.batch + 1 < position.count:
            continue
        learner.step(position.step)
        now = time.perf_counter()
        run.seconds, run.waited_s = seconds + now - started, waited + batches.waited_s
        if now - saved >= config.save_every:
            _save(learner, run, out)
            saved = time.perf_counter()


def batch_maker(
    split: SplitFrames, epoch: int, learner: Learner
) -> Callable[[int], tuple[Tensor, Tensor]]:
    """Return a function that makes one batch of an epoch; threads may call it in any order."""
    config, size, preprocess = learner.config, learner.batch, learner.spec.preprocess
    order = augment.order(len(split), seed=config.seed, epoch=epoch)

    def make(index: int) -> tuple[Tensor, Tensor]:
        rows = order[index * size : (index + 1) * size]
        images = augment.training_batch(
            split.frames[rows], rows, preprocess, config.augment, seed=config.seed, epoch=epoch
        )
        return (
            torch.from_numpy(images).contiguous(memory_format=learner.layout),
            split.float_targets(rows),
        )

    return make


def _validate(learner: Learner, run: RunState, split: SplitFrames) -> tuple[Epoch, ModelSpec]:
    """Measure the averaged weights on the validation split; return the spec with thresholds."""
    spec = learner.spec
    train_loss = float(torch.stack(run.losses).mean())
    logits = predict_logits(learner.ema.model, split.frames, spec.preprocess)
    targets = split.float_targets().to(learner.device)
    val_loss = float(learner.loss(logits.to(learner.device), targets))
    if not (math.isfinite(train_loss) and math.isfinite(val_loss)):
        raise EdgemlError(
            f"The loss became {train_loss:g}, and {val_loss:g} on the validation split, in epoch "
            f"{run.epoch + 1}. Lower --lr."
        )
    scores = probabilities(logits.numpy(), spec)
    spec = replace(spec, thresholds=fit_thresholds(scores, split.targets, learner.config.objective))
    metrics = evaluate(scores, split.targets, spec)
    row = Epoch(
        epoch=run.epoch + 1,
        lr=learner.rate((run.epoch + 1) * learner.steps_per_epoch - 1),
        train_loss=train_loss,
        val_loss=val_loss,
        weighted_mAP=metrics.weighted_mAP,
        **metrics.summary(),
        seconds=run.seconds,
        images_per_s=len(run.losses) * learner.batch / run.seconds,
        wait=run.waited_s / run.seconds,
    )
    return row, replace(spec, metrics=finite_metrics("val", metrics))


def _save(learner: Learner, run: RunState, out: Path) -> None:
    run.scaler = learner.scaler.state_dict()
    losses = torch.stack(run.losses) if run.losses else torch.empty(0)
    save_state(
        out / STATE_FILE, learner.model, learner.ema, learner.optimizer, losses, run.to_dict()
    )


@contextmanager
def _tensorboard(
    config: TrainConfig, out: Path, first_epoch: int
) -> Iterator[Callable[[Epoch], None]]:
    """Open a TensorBoard log if the settings ask for one; yield the function that logs a row."""
    if not config.tensorboard:
        yield lambda row: None
        return
    from edgeml.training.tensorboard import open_log

    with open_log(out / "tensorboard", first_epoch=first_epoch) as log_row:
        yield log_row

"""The training loop, to be read from top to bottom."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from edgeml.data import Dataset, split_dataset, write_split
from edgeml.data.frames import Frames, decoded_frames
from edgeml.errors import EdgemlError, InputError
from edgeml.files import write_text
from edgeml.metrics import Metrics, Targets, evaluate
from edgeml.preprocess import Preprocess
from edgeml.progress import SILENT, Progress
from edgeml.spec import ModelSpec
from edgeml.thresholds import fit_thresholds
from edgeml.train import augment
from edgeml.train.checkpoint import load_checkpoint, save_checkpoint
from edgeml.train.config import TrainConfig
from edgeml.train.history import Epoch, history_csv
from edgeml.train.optim import Ema, learning_rate, parameter_groups
from edgeml.train.start import Parts, Start, check_out, follows_plan, parts_of, start
from edgeml.train.weights import WEIGHTS_FILE

# Longer gradients are cut to this norm: one odd batch must not undo an epoch.
_CLIP_NORM = 1.0

_EVAL_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a run leaves: its folder, the spec in it, and how it came to be.

    Attributes:
        path: The run folder.
        spec: With thresholds fitted on the validation side, and the metrics of both sides.
        metrics: Of the kept weights on the test side, which nothing was chosen by; on the
            validation side if there is no test side.
        history: One row an epoch.
    """

    path: Path
    spec: ModelSpec
    metrics: Metrics
    history: tuple[Epoch, ...]


@dataclass(frozen=True)
class _Side:
    """Decoded frames (N, H, W, 3) uint8 BGR and targets (N, labels) int8."""

    frames: Frames
    targets: Targets


def train(
    dataset: Dataset, config: TrainConfig, out: Path, *, progress: Progress = SILENT
) -> TrainResult:
    """Train a model and keep the weights that are best on the validation side.

    The run folder gets model.safetensors (anew whenever the weights are the best so far),
    history.csv, split.csv and config.json; each file is absent or whole. An interrupted run
    leaves the best weights so far.

    Args:
        dataset: Pictures and labels; one without a split is divided by `config.split`.
        config: How to train.
        out: The run folder; made if need be.
        progress: Told what goes on.

    Raises:
        DataError: Unreadable pictures, too few of them, or fewer than two labels.
        InputError: `out` cannot be used, or there is no such device.
        ModelLoadError: No such model, or weights that do not fit it.
        EdgemlError: The loss is no longer finite.
    """
    check_out(out, overwrite=config.overwrite)
    device = _device(config.device)
    planned = dataset.split is None or follows_plan(dataset, config.split)
    dataset = split_dataset(dataset, config.split)
    parts = parts_of(dataset, progress)
    with _seeded(config, device), ExitStack() as stack:
        begin = start(config, dataset, parts.train, planned=planned, progress=progress)
        sides = stack.enter_context(_decoded(parts, begin.spec.preprocess, config, progress))
        out.mkdir(exist_ok=True)
        # A model that is replaced must not stand beside the new split, not even for an epoch.
        (out / WEIGHTS_FILE).unlink(missing_ok=True)
        write_split(dataset, out / "split.csv")
        write_text(out / "config.json", _settings(config, begin, device))
        try:
            history = _fit(begin, sides, config, out, device=device, progress=progress)
        except KeyboardInterrupt:
            if (out / WEIGHTS_FILE).exists():
                progress.note(f"interrupted: {str(out)!r} holds the best weights so far")
            raise
        return _finish(begin, sides, history, out, config=config, progress=progress)


def _fit(
    begin: Start,
    sides: dict[str, _Side],
    config: TrainConfig,
    out: Path,
    *,
    device: torch.device,
    progress: Progress,
) -> list[Epoch]:
    """Run all epochs; write the best averaged weights, and the history, as it goes."""
    model = begin.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = Ema(model, config.ema)
    optimizer = torch.optim.AdamW(parameter_groups(model, config.weight_decay), lr=begin.lr)
    count = len(sides["train"].targets)
    batch = min(config.batch, count)
    per_epoch = count // batch  # an incomplete last batch waits for another epoch's order
    steps = config.epochs * per_epoch
    best, step = (-math.inf, -math.inf), 0
    history: list[Epoch] = []

    with progress.task("train", total=steps * batch) as advance:
        for epoch in range(config.epochs):
            began, losses = time.perf_counter(), []
            order = augment.order(count, seed=config.seed, epoch=epoch)
            model.train()
            for indices in order[: per_epoch * batch].reshape(per_epoch, batch):
                lr = learning_rate(step, steps, peak=begin.lr, warmup=config.warmup)
                for group in optimizer.param_groups:
                    group["lr"] = lr
                pictures = _pictures(sides["train"], indices, epoch, config, begin, device)
                targets = torch.from_numpy(sides["train"].targets[indices]).to(device).float()
                loss = functional.binary_cross_entropy_with_logits(model(pictures), targets)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(model.parameters(), _CLIP_NORM)
                optimizer.step()
                ema.update(model)
                losses.append(loss.detach())
                step += 1
                advance(batch)
            train_loss = float(torch.stack(losses).mean())
            seconds = time.perf_counter() - began
            if not math.isfinite(train_loss):
                raise EdgemlError(f"The loss became {train_loss} in epoch {epoch + 1}: lower --lr.")

            spec, metrics, val_loss = _validate(ema.model, sides["val"], begin.spec)
            row = Epoch(
                epoch=epoch + 1,
                lr=lr,
                train_loss=train_loss,
                val_loss=val_loss,
                **metrics.summary(),
                seconds=seconds,
                images_per_s=per_epoch * batch / seconds,
            )
            history.append(row)
            if (row.mAP, -row.val_loss) > best:
                best = (row.mAP, -row.val_loss)
                save_checkpoint(
                    out / WEIGHTS_FILE, ema.model, spec, name=config.model, args=begin.args
                )
            write_text(out / "history.csv", history_csv(history))
            progress.note(row.told(config.epochs))
    return history


def _pictures(
    side: _Side,
    indices: NDArray[np.int64],
    epoch: int,
    config: TrainConfig,
    begin: Start,
    device: torch.device,
) -> Tensor:
    """Give one batch for training, (N, 3, H, W) float32 on the device."""
    preprocess = begin.spec.preprocess
    if config.augment == "none":
        pictures = torch.from_numpy(preprocess.normalize(list(side.frames[indices])))
        return pictures.to(device, memory_format=torch.channels_last)
    # Only CUDA has every operation that augmentation needs; elsewhere the CPU does it.
    where = device if device.type == "cuda" else torch.device("cpu")
    draws = torch.from_numpy(augment.draw(indices, seed=config.seed, epoch=epoch))
    frames = torch.from_numpy(side.frames[indices])
    pictures = augment.colour_safe(frames.to(where), draws.to(where), preprocess)
    return pictures.to(device, memory_format=torch.channels_last)


def _validate(model: nn.Module, side: _Side, spec: ModelSpec) -> tuple[ModelSpec, Metrics, float]:
    """Fit thresholds on the validation side; give the spec with them, metrics and the loss."""
    logits = predict_logits(model, side.frames, spec.preprocess)
    scores = logits.sigmoid().numpy()
    loss = functional.binary_cross_entropy_with_logits(
        logits, torch.from_numpy(side.targets).float()
    )
    spec = replace(spec, thresholds=fit_thresholds(scores, side.targets))
    metrics = evaluate(scores, side.targets, spec)
    return replace(spec, metrics=_known("val", metrics)), metrics, float(loss)


def predict_logits(model: nn.Module, frames: Frames, preprocess: Preprocess) -> Tensor:
    """Run a model in evaluation mode over frames (N, *size, 3) uint8; give (N, labels) float32."""
    device = next(model.parameters()).device
    logits = []
    with torch.inference_mode():
        for first in range(0, len(frames), _EVAL_BATCH):
            batch = preprocess.normalize(list(frames[first : first + _EVAL_BATCH]))
            pictures = torch.from_numpy(batch).to(device, memory_format=torch.channels_last)
            logits.append(model(pictures).float().cpu())
    return torch.cat(logits)


def _finish(
    begin: Start,
    sides: dict[str, _Side],
    history: Sequence[Epoch],
    out: Path,
    *,
    config: TrainConfig,
    progress: Progress,
) -> TrainResult:
    """Read the test side, once, with the checkpoint as it was written, and add it to the spec."""
    model, spec = load_checkpoint(out)
    side = sides["test"] if len(sides["test"].targets) else sides["val"]
    scores = predict_logits(model, side.frames, spec.preprocess).sigmoid().numpy()
    metrics = evaluate(scores, side.targets, spec)
    if side is sides["test"]:
        spec = replace(spec, metrics={**spec.metrics, **_known("test", metrics)})
        save_checkpoint(out / WEIGHTS_FILE, model, spec, name=config.model, args=begin.args)
        told = ", ".join(f"{name} {value:.3f}" for name, value in metrics.summary().items())
        progress.note(f"test side, {metrics.images} pictures: {told}")
    else:
        progress.note("note: the split has no test side; the metrics are those of validation")
    return TrainResult(path=out, spec=spec, metrics=metrics, history=tuple(history))


@contextmanager
def _decoded(
    parts: Parts, preprocess: Preprocess, config: TrainConfig, progress: Progress
) -> Iterator[dict[str, _Side]]:
    """Decode all pictures before the first step, so that a bad one is told at once."""
    larger = preprocess
    if config.augment != "none":
        height, width = (math.ceil(augment.OVERSIZE * side) for side in preprocess.size)
        larger = replace(preprocess, size=(height, width))
    named = {"train": parts.train, "val": parts.val, "test": parts.test}
    fits = [(part.paths, larger if name == "train" else preprocess) for name, part in named.items()]
    with ExitStack() as stack:
        with progress.task("decode", total=sum(len(part) for part in named.values())) as advance:
            frames = stack.enter_context(
                decoded_frames(fits, threads=config.threads, advance=advance)
            )
        yield {
            name: _Side(stored, part.targets)
            for (name, part), stored in zip(named.items(), frames, strict=True)
        }


@contextmanager
def _seeded(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Set PyTorch's seed and threads for one run, and leave them as they were."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        try:
            torch.set_num_threads(config.threads or threads)
            yield
        finally:
            torch.set_num_threads(threads)


def _device(name: str) -> torch.device:
    if name == "auto":
        mps = torch.backends.mps.is_available()
        name = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as err:
        raise InputError(f"PyTorch has no device {name!r} here; take auto or cpu.") from err
    return device


def _known(side: str, metrics: Metrics) -> dict[str, float]:
    """Name metrics by the side they are of; what is not a number is left out of the spec."""
    return {
        f"{side}_{name}": round(value, 6)
        for name, value in metrics.summary().items()
        if math.isfinite(value)
    }


def _settings(config: TrainConfig, begin: Start, device: torch.device) -> str:
    """Write the configuration as it was resolved."""
    chosen = {
        "model_args": dict(begin.args),
        "size": begin.spec.preprocess.size[0],
        "lr": begin.lr,
        "device": str(device),
        "preprocess": asdict(begin.spec.preprocess),
    }
    return json.dumps({**config.to_dict(), **chosen}, indent=2) + "\n"

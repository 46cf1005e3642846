"""Learner: what a step of training works with, and the step itself."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeml.errors import InputError
from edgeml.network.model import checkpoint_gradients, is_convolutional
from edgeml.spec.model_spec import ModelSpec
from edgeml.training.config import TrainConfig
from edgeml.training.losses import Loss, Prior, build_loss, distillation, log_odds
from edgeml.training.mixing import mix
from edgeml.training.optim import Ema, learning_rate, parameter_groups
from edgeml.training.sides import Side
from edgeml.training.start import Start
from edgeml.training.teacher import Teacher, load_teacher


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a batch stands: in which step of the run, as which of its `count` batches."""

    step: int
    batch: int
    count: int

    @property
    def ends_step(self) -> bool:
        """Whether the weights move after it."""
        return self.batch + 1 == self.count


@dataclass(frozen=True, kw_only=True)
class Learner:
    """What a step of training works with.

    Attributes:
        model: On its device; `forward` is the same, perhaps compiled.
        spec: Of the model; its groups are learned as choices if it says so.
        lr: Peak learning rate.
    """

    model: nn.Module
    forward: Callable[[Tensor], Tensor]
    ema: Ema
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    loss: Loss
    teacher: Teacher | None
    spec: ModelSpec
    config: TrainConfig
    device: torch.device
    half: torch.dtype | None
    layout: torch.memory_format
    batch: int
    batches_per_epoch: int
    lr: float

    @property
    def steps_per_epoch(self) -> int:
        """Steps of the optimizer in an epoch; the last may have fewer batches."""
        return math.ceil(self.batches_per_epoch / self.config.accumulate)

    def rate(self, step: int) -> float:
        """Give the learning rate of a step: constant for the head alone, then its own course."""
        alone = self.config.head_epochs * self.steps_per_epoch
        steps = self.config.epochs * self.steps_per_epoch - alone
        if step < alone:
            return self.lr
        return learning_rate(step - alone, steps, peak=self.lr, warmup=self.config.warmup)

    def place(self, epoch: int, batch: int) -> Place:
        """Say where the batch with this number in an epoch stands among the steps."""
        each = self.config.accumulate
        number, within = divmod(batch, each)
        count = min(each, self.batches_per_epoch - number * each)
        return Place(step=epoch * self.steps_per_epoch + number, batch=within, count=count)

    def backward(self, pictures: Tensor, targets: Tensor, place: Place) -> Tensor:
        """Add the gradients of one batch, on whatever device it is; give its loss."""
        config = self.config
        pictures, targets = mix(
            pictures.to(self.device, non_blocking=True),
            targets.to(self.device, non_blocking=True),
            mixup=config.mixup,
            cutmix=config.cutmix,
            key=(config.seed, place.step, place.batch),
        )
        with self.autocast():
            logits = self.forward(pictures)
        loss = self.loss(logits.float(), targets)
        if self.teacher is not None:
            told = self.teacher.logits(pictures, self.spec.preprocess)
            taught = distillation(
                log_odds(logits.float(), self.spec.choices()), told, config.distill_temperature
            )
            loss = torch.lerp(loss, taught, config.distill)
        self.scaler.scale(loss / place.count).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def step(self, number: int) -> None:
        """Move the weights along the gradients, and their average after them."""
        rate = self.rate(number)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        self.scaler.unscale_(self.optimizer)
        if self.config.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.ema.update(self.model)

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Compute in half precision where that was asked for; losses are not."""
        if self.half is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.half)


def build_learner(begin: Start, side: Side, device: torch.device) -> Learner:
    """Put a model, its optimizer and its loss together, on a device.

    Args:
        begin: The model with its first weights, and the resolved settings.
        side: The training side.
        device: Where to train.

    Raises:
        InputError: The device has no use for the precision that was asked for, or the model
            cannot save memory as was asked for.
        ModelLoadError: The teacher cannot be used.
    """
    config, model = begin.config, begin.model
    layout = _layout(model, config)
    model.to(device, memory_format=layout)  # type: ignore[call-overload]
    half = half_precision(config, device)
    if config.grad_checkpointing:
        checkpoint_gradients(model, config.model)
    batch = min(config.batch, len(side))
    assert config.lr is not None, "start resolved it"
    return Learner(
        model=model,
        forward=torch.compile(model) if config.compile else model,
        ema=Ema(model, config.ema),
        optimizer=torch.optim.AdamW(
            parameter_groups(model, config.weight_decay, layer_decay=config.layer_decay),
            lr=config.lr,
        ),
        scaler=torch.amp.GradScaler(device.type, enabled=half == torch.float16),
        loss=build_loss(config, Prior.of(side.targets), begin.spec.choices(), device=device),
        teacher=_teacher(begin, device),
        spec=begin.spec,
        config=config,
        device=device,
        half=half,
        layout=layout,
        batch=batch,
        # An incomplete last batch waits for another epoch's order.
        batches_per_epoch=len(side) // batch,
        lr=config.lr,
    )


def half_precision(config: TrainConfig, device: torch.device) -> torch.dtype | None:
    """Choose the type that the network computes in; None is float32.

    Raises:
        InputError: fp16 on a device that has no use for it.
    """
    match config.amp:
        case "auto":
            fit = device.type == "cuda" and torch.cuda.is_bf16_supported()
            return torch.bfloat16 if fit else None
        case "bf16":
            return torch.bfloat16
        case "fp16":
            if device.type != "cuda":
                raise InputError(f"amp is fp16, which {device.type!r} has no use for; take bf16.")
            return torch.float16
        case _:
            return None


def _layout(model: nn.Module, config: TrainConfig) -> torch.memory_format:
    wanted = config.channels_last and is_convolutional(model)
    return torch.channels_last if wanted else torch.contiguous_format


def _teacher(begin: Start, device: torch.device) -> Teacher | None:
    if begin.config.teacher is None:
        return None
    teacher = load_teacher(begin.config.teacher, begin.spec.labels)
    teacher.model.to(device)
    return teacher

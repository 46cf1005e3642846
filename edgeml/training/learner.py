"""The learner: the objects that a training step uses, and the step itself."""

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
from edgeml.training.initial import InitialModel
from edgeml.training.losses import LabelCounts, Loss, build_loss, distillation, log_odds
from edgeml.training.mixing import mix
from edgeml.training.optim import Ema, learning_rate, parameter_groups
from edgeml.training.splits import SplitFrames
from edgeml.training.teacher import Teacher, load_teacher


@dataclass(frozen=True, kw_only=True)
class BatchPosition:
    """The position of a batch: the step of the run, and its number among the step's batches."""

    step: int
    batch: int
    count: int

    @property
    def ends_step(self) -> bool:
        """Whether the optimizer takes a step after this batch."""
        return self.batch + 1 == self.count


@dataclass(frozen=True, kw_only=True)
class Learner:
    """The objects that a training step uses.

    Attributes:
        model: The network on its device.
        forward: The same network, compiled if the settings ask for it.
        spec: The model's spec; with `group_softmax` its groups are learned as single choices.
        config: The settings, with every default resolved.
        half: The type of mixed precision; None computes in float32.
        batch: Images per batch.
        lr: The peak learning rate.
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
        """Optimizer steps per epoch; the last step may have fewer batches."""
        return math.ceil(self.batches_per_epoch / self.config.accumulate)

    def rate(self, step: int) -> float:
        """Return the learning rate of a step: constant for the head alone, then scheduled."""
        head_steps = self.config.head_epochs * self.steps_per_epoch
        steps = self.config.epochs * self.steps_per_epoch - head_steps
        if step < head_steps:
            return self.lr
        return learning_rate(step - head_steps, steps, peak=self.lr, warmup=self.config.warmup)

    def position(self, epoch: int, batch: int) -> BatchPosition:
        """Return the step to which a batch of an epoch belongs, and its number in that step."""
        per_step = self.config.accumulate
        step, number = divmod(batch, per_step)
        count = min(per_step, self.batches_per_epoch - step * per_step)
        return BatchPosition(step=epoch * self.steps_per_epoch + step, batch=number, count=count)

    def backward(self, images: Tensor, targets: Tensor, position: BatchPosition) -> Tensor:
        """Add the gradients of one batch, which may be on any device; return its loss."""
        config = self.config
        images, targets = mix(
            images.to(self.device, non_blocking=True),
            targets.to(self.device, non_blocking=True),
            mixup=config.mixup,
            cutmix=config.cutmix,
            key=(config.seed, position.step, position.batch),
        )
        with self.autocast():
            logits = self.forward(images)
        loss = self.loss(logits.float(), targets)
        if self.teacher is not None:
            from_teacher = distillation(
                log_odds(logits.float(), self.spec.softmax_groups()),
                self.teacher.logits(images, self.spec.preprocess),
                config.distill_temperature,
            )
            loss = torch.lerp(loss, from_teacher, config.distill)
        self.scaler.scale(loss / position.count).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def step(self, number: int) -> None:
        """Update the weights from the gradients, then their moving average."""
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
        """Return a context that computes in half precision if configured; losses stay float32."""
        if self.half is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.half)


def build_learner(initial: InitialModel, split: SplitFrames, device: torch.device) -> Learner:
    """Move a model to a device and build its optimizer and its loss.

    Args:
        initial: The model with its first weights, and the resolved settings.
        split: The training split.
        device: The device to train on.

    Raises:
        InputError: The device does not support the configured precision, or the model does not
            support gradient checkpointing.
        ModelLoadError: The teacher cannot be used.
    """
    config, model = initial.config, initial.model
    layout = _layout(model, config)
    model.to(device, memory_format=layout)  # type: ignore[call-overload]
    half = half_precision(config, device)
    if config.grad_checkpointing:
        checkpoint_gradients(model, config.model)
    batch = min(config.batch, len(split))
    assert config.lr is not None, "initial_model resolves it"
    return Learner(
        model=model,
        forward=torch.compile(model) if config.compile else model,
        ema=Ema(model, config.ema),
        optimizer=torch.optim.AdamW(
            parameter_groups(model, config.weight_decay, layer_decay=config.layer_decay),
            lr=config.lr,
        ),
        scaler=torch.amp.GradScaler(device.type, enabled=half == torch.float16),
        loss=build_loss(
            config, LabelCounts.of(split.targets), initial.spec.softmax_groups(), device=device
        ),
        teacher=_teacher(initial, device),
        spec=initial.spec,
        config=config,
        device=device,
        half=half,
        layout=layout,
        batch=batch,
        # Images of an incomplete last batch have their turn in another epoch's order.
        batches_per_epoch=len(split) // batch,
        lr=config.lr,
    )


def half_precision(config: TrainConfig, device: torch.device) -> torch.dtype | None:
    """Return the type for mixed precision; None means float32.

    Raises:
        InputError: fp16 on a device that does not support it.
    """
    match config.amp:
        case "auto":
            supported = device.type == "cuda" and torch.cuda.is_bf16_supported()
            return torch.bfloat16 if supported else None
        case "bf16":
            return torch.bfloat16
        case "fp16":
            if device.type != "cuda":
                raise InputError(f"amp is fp16, which {device.type!r} does not support; use bf16.")
            return torch.float16
        case _:
            return None


def _layout(model: nn.Module, config: TrainConfig) -> torch.memory_format:
    channels_last = config.channels_last and is_convolutional(model)
    return torch.channels_last if channels_last else torch.contiguous_format


def _teacher(initial: InitialModel, device: torch.device) -> Teacher | None:
    if initial.config.teacher is None:
        return None
    teacher = load_teacher(initial.config.teacher, initial.spec.labels)
    teacher.model.to(device)
    return teacher

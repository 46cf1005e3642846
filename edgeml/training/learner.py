"""The learner: a training step, and what it uses: mixed images, a teacher to distil from."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeml.errors import InputError, ModelLoadError
from edgeml.image.preprocess import Preprocess
from edgeml.network.checkpoint import load_checkpoint
from edgeml.network.model import checkpoint_gradients, trains_in_channels_last
from edgeml.spec.model_spec import ModelSpec, quoted_names
from edgeml.training.config import TrainConfig
from edgeml.training.initial import InitialModel
from edgeml.training.losses import LabelCounts, Loss, build_loss, distillation, log_odds
from edgeml.training.optim import Ema, has_batch_norm, learning_rate, parameter_groups
from edgeml.training.splits import SplitFrames

_MIXING = 3  # the key of its random stream


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A trained model from which a student learns; it has all labels of the student.

    It sees exactly the same images as the student, augmentation included (Beyer et al.,
    Knowledge distillation: A good teacher is patient and consistent, CVPR 2022).

    Attributes:
        model: In evaluation mode, without gradients.
        spec: The teacher's spec; it may have more labels than the student, in another order.
        column_order: For each label of the student, the column of the teacher's output.
    """

    model: nn.Module
    spec: ModelSpec
    column_order: tuple[int, ...]

    def logits(self, images: Tensor, preprocess: Preprocess) -> Tensor:
        """Return log-odds (N, student's labels) float32 for the images that the student sees.

        The images (N, 3, H, W), normalised by the student's `preprocess`, on the teacher's device,
        are converted to the size, colour order and normalisation of the teacher.
        """
        with torch.no_grad():
            prepared = _converted(images.float(), preprocess, self.spec.preprocess)
            logits = log_odds(self.model(prepared).float(), self.spec.softmax_groups())
        return logits[:, list(self.column_order)]


def load_teacher(path: Path, labels: Sequence[str]) -> Teacher:
    """Load a run folder, or its .safetensors file, as a teacher of a student with these labels.

    Raises:
        ModelLoadError: The file cannot be used, or the teacher lacks labels; names them.
        SpecError: The file is not an edgeml checkpoint.
    """
    model, spec = load_checkpoint(path)
    missing = [label for label in labels if label not in spec.labels]
    if missing:
        raise ModelLoadError(
            f"The teacher {str(path)!r} does not have the labels {quoted_names(missing)}. "
            "A teacher needs every label that its student learns."
        )
    order = tuple(spec.labels.index(label) for label in labels)
    return Teacher(model=model.requires_grad_(False), spec=spec, column_order=order)


def _converted(images: Tensor, student: Preprocess, teacher: Preprocess) -> Tensor:
    """Convert normalised images (N, 3, H, W) from one preprocessing to another."""

    def column(values: tuple[float, ...]) -> Tensor:
        return torch.tensor(values, device=images.device).view(1, 3, 1, 1)

    if student.channels == teacher.channels and (student.mean, student.std) == (
        teacher.mean,
        teacher.std,
    ):
        prepared = images
    else:
        raw = images * column(student.std) + column(student.mean)
        if student.channels != teacher.channels:
            raw = raw.flip(1)
        prepared = (raw - column(teacher.mean)) / column(teacher.std)
    if tuple(prepared.shape[2:]) == teacher.size:
        return prepared
    return functional.interpolate(prepared, teacher.size, mode="bilinear", antialias=True)


@dataclass(frozen=True, kw_only=True)
class BatchPosition:
    """The position of a batch: the step of the run, and its number among the step's batches."""

    step: int
    batch: int
    count: int


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

    Raises:
        InputError: The device does not support the configured precision, or the model does not
            support gradient checkpointing.
        ModelLoadError: The teacher cannot be used.
    """
    config, model = initial.config, initial.model
    channels_last = config.channels_last and trains_in_channels_last(model, device)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model.to(device, memory_format=layout)  # type: ignore[call-overload]
    half = half_precision(config, device)
    if config.freeze_bn and not has_batch_norm(model):
        raise InputError(f"The model {config.model!r} has no batch normalisation to freeze.")
    if config.grad_checkpointing:
        checkpoint_gradients(model, config.model)
    teacher = load_teacher(config.teacher, initial.spec.labels) if config.teacher else None
    if teacher is not None:
        teacher.model.to(device)
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
        teacher=teacher,
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


def mix(
    images: Tensor, targets: Tensor, *, mixup: float, cutmix: float, key: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Mix the first image of a batch with the last one, and so on, by mixup or by CutMix.

    Mixup (Zhang et al., 2018) blends images; CutMix (Yun et al., 2019) pastes a rectangle and
    blends targets by its share. `mixup` and `cutmix` are parameters of symmetric Beta
    distributions; 0 turns one off. If both are on, each batch uses one of them at random. A label
    that is unknown (NaN) in one of two images is unknown in their mixture. Images are
    (N, 3, H, W), targets (N, L) in [0, 1] or NaN; `key` seeds the randomness: seed of the run,
    step, batch.
    """
    active = [kind for kind, alpha in (("mixup", mixup), ("cutmix", cutmix)) if alpha > 0]
    if not active:
        return images, targets
    rng = np.random.default_rng((_MIXING, *key))
    kind = active[rng.integers(len(active))]
    alpha = mixup if kind == "mixup" else cutmix
    share = float(rng.beta(alpha, alpha))
    others = images.flip(0)
    if kind == "mixup":
        mixed = others.lerp(images, share)
    else:
        mixed = images.clone()
        rows, columns = _rectangle(1 - share, images.shape[2:], rng)
        mixed[:, :, rows, columns] = others[:, :, rows, columns]
        pasted = (rows.stop - rows.start) * (columns.stop - columns.start)
        share = 1 - pasted / math.prod(images.shape[2:])
    return mixed, torch.lerp(targets.flip(0), targets, share)


def _rectangle(share: float, size: torch.Size, rng: np.random.Generator) -> tuple[slice, slice]:
    """Return a random rectangle with this share of the area, clipped to the image."""
    sides = []
    for count in size:
        half, centre = math.sqrt(share) * count / 2, rng.random() * count
        first, last = round(max(0, centre - half)), round(min(count, centre + half))
        sides.append(slice(first, last))
    return sides[0], sides[1]

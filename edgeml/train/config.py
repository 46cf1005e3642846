"""TrainConfig: all that decides a training run, besides the pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgeml.data import SplitPlan
from edgeml.errors import InputError
from edgeml.preprocess import Interpolation, Resize

ModelArg = str | int | float | bool
Augment = Literal["none", "colour_safe"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All that decides a training run, besides the pictures: equal ones give equal weights.

    Attributes:
        model: `cnn`, our own small network, or any name that timm knows.
        model_args: Arguments of timm's constructor, for example `{"pad_type": "same"}`.
        weights: A .safetensors file or a run folder to start from.
        pretrained: Start from timm's published weights, which are downloaded once.
        size: Side of the square input in pixels; None takes the model's own.
        epochs: Passes over the training pictures.
        batch: Pictures a step.
        lr: Peak learning rate; None takes what suits the kind of model.
        weight_decay: Decoupled decay (AdamW) of weights, never of biases and norms.
        warmup: Share of the steps in which the learning rate rises.
        ema: Decay of the averaged weights, the ones that are kept; fewer steps average less.
        loss: `bce`: binary cross-entropy, the mean over pictures and labels.
        augment: `colour_safe` moves, turns, lights and covers, and leaves hues as they are.
        seed: Decides the order, the augmentation and the first weights.
        split: How a data set without a split is divided.
        resize, interpolation, mean, std: Of the preprocessing; None takes the model's own.
        device: `auto` takes a GPU if there is one; or a name that PyTorch knows.
        threads: Of PyTorch and of decoding; None leaves the choice to them.
        overwrite: Replace the model that is in the output folder.
    """

    model: str = "cnn"
    model_args: Mapping[str, ModelArg] = field(default_factory=dict)
    weights: Path | None = None
    pretrained: bool = False
    size: int | None = None
    epochs: int = 12
    batch: int = 32
    lr: float | None = None
    weight_decay: float = 0.05
    warmup: float = 0.05
    ema: float = 0.9998
    loss: Literal["bce"] = "bce"
    augment: Augment = "colour_safe"
    seed: int = 0
    split: SplitPlan = field(default_factory=SplitPlan)
    resize: Resize = "squash"
    interpolation: Interpolation | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    device: str = "auto"
    threads: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.weights is not None and self.pretrained:
            raise InputError("Both weights and pretrained are given; start from one of them.")
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                bounds = f"{low:g} to {high:g}" if math.isfinite(high) else f"{low:g} or more"
                raise InputError(f"{name} is {value}; it must be {bounds}.")
        if self.loss != "bce":
            raise InputError(f"loss is {self.loss!r}; known is 'bce'.")
        if self.augment not in ("none", "colour_safe"):
            raise InputError(f"augment is {self.augment!r}; known are 'none' and 'colour_safe'.")

    def to_dict(self) -> dict[str, Any]:
        """Give the settings as JSON can hold them."""
        weights = None if self.weights is None else str(self.weights)
        return {**asdict(self), "weights": weights}


_RANGES: tuple[tuple[str, float, float], ...] = (
    ("size", 8, 4096),
    ("epochs", 1, math.inf),
    ("batch", 2, math.inf),  # batch normalisation has no variance over one picture
    ("lr", 0, 10),
    ("weight_decay", 0, 10),
    ("warmup", 0, 0.9),
    ("ema", 0, 0.999999),
    ("seed", 0, math.inf),
    ("threads", 1, 1024),
)

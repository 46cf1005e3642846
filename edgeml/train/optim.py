"""How weights move: what decays, the learning rate over time, the average that is kept."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from edgeml.train.model import SmallCnn, is_convolutional


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Split parameters for AdamW: matrices and kernels decay; biases, norms and embeddings do not.

    Decaying the head's bias pulls every label towards probability 0.5.
    """
    exempt = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()  # type: ignore[operator]
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (kept if parameter.ndim <= 1 or name in exempt else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]


def default_lr(model: nn.Module, *, pretrained: bool) -> float:
    """Give the peak learning rate for AdamW that suits a family of models."""
    if isinstance(model, SmallCnn) and not pretrained:
        return 5e-3
    if is_convolutional(model):
        return 1e-3 if pretrained else 2e-3
    return 1e-4 if pretrained else 5e-4


def learning_rate(step: int, steps: int, *, peak: float, warmup: float) -> float:
    """Rise linearly to `peak` over the first `warmup` share of `steps`, then fall as a cosine to 0.

    SGDR without restarts (Loshchilov and Hutter, 2017). `step` counts from 0.
    """
    rising = round(steps * warmup)
    if step < rising:
        return peak * (step + 1) / rising
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps - rising)))


class Ema:
    """A moving average of a model's weights and batch statistics.

    The decay warms up as min(decay, (1 + step) / (10 + step)), as in TensorFlow's
    ExponentialMovingAverage: the average spans the last tenth of the steps so far, and the random
    first weights are soon forgotten.

    Attributes:
        model: A copy of the model, in evaluation mode, that holds the average.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._decay = decay
        self._step = 0

    def update(self, model: nn.Module) -> None:
        """Take in the weights after one more step."""
        decay = min(self._decay, (1 + self._step) / (10 + self._step))
        self._step += 1
        with torch.no_grad():
            for kept, new in zip(
                self.model.state_dict().values(), model.state_dict().values(), strict=True
            ):
                if kept.is_floating_point():
                    kept.lerp_(new, 1 - decay)
                else:
                    kept.copy_(new)

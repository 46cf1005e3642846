"""Optimization: weight decay, learning rates, frozen layers, and the average of the weights."""

from __future__ import annotations

import copy
import fnmatch
import math
import re

import torch
from timm.models import group_parameters
from torch import nn

from edgeml.errors import InputError
from edgeml.network.heads import head_modules
from edgeml.network.model import SmallCnn, is_convolutional

# Learned tokens and positions do not decay, whatever their shape. timm's own list lacks those of
# attention pooling.
_EMBEDDING = re.compile(r"(^|[._])(pos_embed|(cls|dist|reg)_token|latent)$")
# From this many features on, a transformer counts as wide, such as ViT-B and SigLIP.
_WIDE = 768


def parameter_groups(
    model: nn.Module, weight_decay: float, *, layer_decay: float | None = None
) -> list[dict[str, object]]:
    """Group parameters for AdamW: matrices and kernels decay; biases, norms and embeddings do not.

    Decaying the head's bias would pull every label towards probability 0.5. Each group has an
    `lr_scale`: `layer_decay` in (0, 1] is the factor from each layer to the one before it, the head
    has 1 (Clark et al., ELECTRA, 2020; Bao et al., BEiT, 2021); None treats all layers alike.
    Frozen parameters are included: without a gradient the optimizer does not change them.

    Raises:
        InputError: timm does not know the order of the layers.
    """
    scales = {} if layer_decay is None else _layer_scales(model, layer_decay)
    exempt = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()  # type: ignore[operator]
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        exempted = (
            parameter.ndim <= 1
            or name.endswith(".bias")
            or _EMBEDDING.search(name) is not None
            or any(fnmatch.fnmatch(name, pattern) for pattern in exempt)
        )
        groups.setdefault((scales.get(name, 1.0), exempted), []).append(parameter)
    return [
        {"params": params, "weight_decay": 0.0 if exempted else weight_decay, "lr_scale": scale}
        for (scale, exempted), params in sorted(groups.items(), key=lambda group: group[0])
    ]


def _layer_scales(model: nn.Module, layer_decay: float) -> dict[str, float]:
    """Return the learning rate factor of each parameter, by name."""
    if not hasattr(model, "group_matcher"):
        raise InputError(
            f"The layers of this {type(model).__name__} have no known order: omit --layer-decay."
        )
    layers = group_parameters(model, model.group_matcher(coarse=False), reverse=True)  # type: ignore[operator]
    last = max(layers.values())
    return {name: layer_decay ** (last - layer) for name, layer in layers.items()}


def default_lr(model: nn.Module, *, pretrained: bool) -> float:
    """Return the default peak learning rate for AdamW of a family of models."""
    if isinstance(model, SmallCnn) and not pretrained:
        return 5e-3
    if is_convolutional(model):
        return 1e-3 if pretrained else 2e-3
    if not pretrained:
        return 5e-4
    return 5e-5 if _is_wide(model) else 1e-4


def default_layer_decay(model: nn.Module, *, pretrained: bool) -> float | None:
    """Return the default layer decay of a family of models: only pretrained transformers have one.

    The wider a transformer is, the more of its pretrained features are worth preserving.
    """
    if not pretrained or is_convolutional(model) or not hasattr(model, "group_matcher"):
        return None
    return 0.7 if _is_wide(model) else 0.75


def _is_wide(model: nn.Module) -> bool:
    return int(getattr(model, "num_features", 0)) >= _WIDE


def freeze_backbone(model: nn.Module, *, frozen: bool) -> None:
    """Freeze or unfreeze all layers but the head.

    Unfreezing includes batch normalisation: call `freeze_batch_norm` afterwards to freeze it again.
    Set training mode with `training_mode`, otherwise frozen statistics change too.
    """
    head = {id(parameter) for part in head_modules(model) for parameter in part.parameters()}
    for parameter in model.parameters():
        parameter.requires_grad_(not frozen or id(parameter) in head)


def has_batch_norm(model: nn.Module) -> bool:
    """Whether a model has a layer of batch normalisation."""
    return bool(_batch_norms(model))


def freeze_batch_norm(model: nn.Module) -> None:
    """Freeze batch normalisation, scales and shifts included.

    With few images or small batches, the statistics of pretraining on a million images are better.
    Set training mode with `training_mode`, otherwise they change all the same.
    """
    for module in _batch_norms(model):
        for parameter in module.parameters():
            parameter.requires_grad_(False)


def training_mode(model: nn.Module) -> None:
    """Set training mode, except for batch normalisation with frozen parameters.

    The parameters themselves hold that they are frozen, so it also holds for a copy of the model.
    """
    model.train()
    for module in _batch_norms(model):
        if module.affine and not module.weight.requires_grad:
            module.eval()


def _batch_norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    kind = nn.modules.batchnorm._BatchNorm
    return [module for module in model.modules() if isinstance(module, kind)]


def learning_rate(step: int, steps: int, *, peak: float, warmup: float) -> float:
    """Return the learning rate of a step: a linear rise to `peak`, then a cosine down to 0.

    The rise takes the first `warmup` share of `steps`. `step` counts from 0. This is SGDR without
    restarts (Loshchilov and Hutter, 2017).
    """
    rising = round(steps * warmup)
    if step < rising:
        return peak * (step + 1) / rising
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps - rising)))


class Ema:
    """A moving average of a model's weights and batch statistics.

    The decay warms up as min(decay, (1 + step) / (10 + step)), as in TensorFlow's
    ExponentialMovingAverage: the average spans the last tenth of the steps so far, and soon no
    longer depends on the random initial weights. The two attributes are its complete state.

    Attributes:
        model: A copy of the model in evaluation mode; its weights are the average.
        step: The number of steps in the average.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._decay = decay
        self.step = 0

    def update(self, model: nn.Module) -> None:
        """Add the weights after one more step to the average."""
        decay = min(self._decay, (1 + self.step) / (10 + self.step))
        self.step += 1
        with torch.no_grad():
            for average, new in zip(
                self.model.state_dict().values(), model.state_dict().values(), strict=True
            ):
                if average.is_floating_point():
                    average.lerp_(new, 1 - decay)
                else:
                    average.copy_(new)

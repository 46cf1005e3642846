"""How weights move: what decays, the learning rate over time, the average that is kept."""

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

# Learned tokens and positions are no weights, whatever their shape. timm's own list lacks those
# of attention pooling.
_EMBEDDING = re.compile(r"(^|[._])(pos_embed|(cls|dist|reg)_token|latent)$")

# From this many features on, a transformer counts as large, as ViT-B and SigLIP do.
_WIDE = 768


def parameter_groups(
    model: nn.Module, weight_decay: float, *, layer_decay: float | None = None
) -> list[dict[str, object]]:
    """Split parameters for AdamW: matrices and kernels decay; biases, norms and embeddings do not.

    Decaying the head's bias pulls every label towards probability 0.5. Each group carries
    `lr_scale`, by which the learning rate is to be multiplied. Frozen parameters are included: they
    have no gradient, so the optimizer leaves them alone until they are thawed.

    Args:
        model: The network.
        weight_decay: Of what decays.
        layer_decay: Factor from each layer to the one before it, in (0, 1], the head's being 1
            (Clark et al., ELECTRA, 2020; Bao et al., BEiT, 2021); None treats all layers alike.

    Raises:
        InputError: The model has no order of layers.
    """
    scales = {} if layer_decay is None else _layer_scales(model, layer_decay)
    exempt = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()  # type: ignore[operator]
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        kept = (
            parameter.ndim <= 1
            or name.endswith(".bias")
            or _EMBEDDING.search(name) is not None
            or any(fnmatch.fnmatch(name, pattern) for pattern in exempt)
        )
        groups.setdefault((scales.get(name, 1.0), kept), []).append(parameter)
    return [
        {"params": params, "weight_decay": 0.0 if kept else weight_decay, "lr_scale": scale}
        for (scale, kept), params in sorted(groups.items(), key=lambda group: group[0])
    ]


def _layer_scales(model: nn.Module, layer_decay: float) -> dict[str, float]:
    """Give each parameter its share of the learning rate, by name."""
    if not hasattr(model, "group_matcher"):
        raise InputError(
            f"The layers of this {type(model).__name__} have no order: leave the layer decay away."
        )
    layers = group_parameters(model, model.group_matcher(coarse=False), reverse=True)  # type: ignore[operator]
    last = max(layers.values())
    return {name: layer_decay ** (last - layer) for name, layer in layers.items()}


def default_lr(model: nn.Module, *, pretrained: bool) -> float:
    """Give the peak learning rate for AdamW that suits a family of models."""
    if isinstance(model, SmallCnn) and not pretrained:
        return 5e-3
    if is_convolutional(model):
        return 1e-3 if pretrained else 2e-3
    if not pretrained:
        return 5e-4
    return 5e-5 if _is_wide(model) else 1e-4


def default_layer_decay(model: nn.Module, *, pretrained: bool) -> float | None:
    """Give the layer decay that suits a family: of pretrained transformers only.

    The wider they are, the more of what they know is worth keeping.
    """
    if not pretrained or is_convolutional(model) or not hasattr(model, "group_matcher"):
        return None
    return 0.7 if _is_wide(model) else 0.75


def _is_wide(model: nn.Module) -> bool:
    return int(getattr(model, "num_features", 0)) >= _WIDE


def freeze_backbone(model: nn.Module, frozen: bool) -> None:
    """Let only the head be trained, or everything again.

    Thawing thaws batch normalisation too: call `freeze_batch_norm` after it, if that is wanted. Put
    the model in training mode with `training_mode`, or the statistics move all the same.
    """
    head = {id(parameter) for part in head_modules(model) for parameter in part.parameters()}
    for parameter in model.parameters():
        parameter.requires_grad_(not frozen or id(parameter) in head)


def freeze_batch_norm(model: nn.Module) -> None:
    """Keep batch normalisation as it came, scales and shifts included.

    With few pictures, or small batches, statistics that were measured on a million are the better
    ones. Put the model in training mode with `training_mode`, or they move all the same.
    """
    for module in _batch_norms(model):
        for parameter in module.parameters():
            parameter.requires_grad_(False)


def training_mode(model: nn.Module) -> None:
    """Put a model in training mode, but for batch normalisation whose parameters are frozen.

    What is frozen is told by the parameters themselves, so that a copy of a model knows it as well.
    """
    model.train()
    for module in _batch_norms(model):
        if module.affine and not module.weight.requires_grad:
            module.eval()


def _batch_norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    kind = nn.modules.batchnorm._BatchNorm
    return [module for module in model.modules() if isinstance(module, kind)]


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

    Both attributes together are its whole state: who sets them goes on as if never interrupted.

    Attributes:
        model: A copy of the model, in evaluation mode, that holds the average.
        step: How many steps are in the average.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._decay = decay
        self.step = 0

    def update(self, model: nn.Module) -> None:
        """Take in the weights after one more step."""
        decay = min(self._decay, (1 + self.step) / (10 + self.step))
        self.step += 1
        with torch.no_grad():
            for kept, new in zip(
                self.model.state_dict().values(), model.state_dict().values(), strict=True
            ):
                if kept.is_floating_point():
                    kept.lerp_(new, 1 - decay)
                else:
                    kept.copy_(new)

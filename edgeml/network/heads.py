"""Heads: the final layers, whose outputs are the labels, and operations on them."""

from __future__ import annotations

import math
from typing import Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from edgeml.errors import InputError, ModelLoadError

Head = Literal["linear", "csra"]
"""`linear`: one layer on pooled features; `csra`: residual attention over the positions."""
# Weight of the strongest position in a logit: the default of the authors' code. On frozen features
# of MobileNetV2 (real weights, 224 px, 1,400 drawn images of up to two garments, three splits) a
# linear head reached 0.862 mAP, this one 0.873 with 0.1, 0.877 with 0.3, 0.872 with 1.
_ATTENTION = 0.3
# Scaling a head must scale the logits, up to the rounding of float32.
_TOLERANCE = 1e-4


class CsraHead(nn.Linear):
    """Class-specific residual attention: each label's mean over all positions plus its maximum.

    With s the scores of a 1 x 1 classifier, logit = mean(s) + 0.3 max(s) + bias: Zhu and Wu,
    Residual Attention: A Simple but Effective Method for Multi-Label Recognition, ICCV 2021,
    equation 6 with the temperature at infinity, where attention is the maximum. It costs as much as
    a linear head and detects small objects in large images.

    The authors divide each label's weights by their norm and have no bias. Such a head cannot hold
    a label's prevalence or a temperature, so here the weights are free and there is a bias. Logits
    are linear in the bias and positively homogeneous in the weights: multiplying both by a positive
    factor multiplies the logits by it.

    Attributes:
        layout: The layout of the features: maps `NCHW`, maps `NHWC`, or tokens `NLC`.
        prefix: The number of leading tokens without a position (class token, registers).
        replaced: State names of the pooling and head that this head replaced; published weights
            may contain them.
    """

    def __init__(
        self,
        features: int,
        labels: int,
        *,
        layout: Literal["NCHW", "NHWC", "NLC"] = "NCHW",
        prefix: int = 0,
        replaced: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(features, labels)
        self.layout = layout
        self.prefix = prefix
        self.replaced = replaced

    def forward(self, features: Tensor) -> Tensor:
        """Map features at positions to logits (N, labels)."""
        if self.layout == "NCHW":
            scores = functional.conv2d(features, self.weight[:, :, None, None]).flatten(2)
        else:
            positions = features.flatten(1, -2)[:, self.prefix :]
            scores = functional.linear(positions, self.weight).transpose(1, 2)
        return scores.mean(dim=2) + _ATTENTION * scores.amax(dim=2) + self.bias


def add_csra_head(
    model: nn.Module, labels: int, name: str, *, size: tuple[int, int] | None = None
) -> None:
    """Replace a timm model's pooling and classifier by a CSRA head.

    `size` is the (height, width) of images that the model accepts; None takes its default.

    Raises:
        ModelLoadError: The model has more than one head, or its pooling cannot be removed.
    """
    refusal = f"The model {name!r} cannot have the head 'csra'"
    old = model.get_classifier()  # type: ignore[operator]
    paths = [path for path, module in model.named_modules() if module is old]
    if len(paths) != 1:
        raise ModelLoadError(f"{refusal}: it has several heads. Use --head linear.")
    before = frozenset(model.state_dict())
    size = size or probe_size(model)
    try:
        model.reset_classifier(0, "")  # type: ignore[operator]
        with torch.inference_mode():
            features = model.eval()(torch.zeros(1, 3, *size)).shape
    except Exception as err:  # architectures fail in different ways
        raise ModelLoadError(
            f"{refusal}: its pooling cannot be removed. Use --head linear."
        ) from err
    layout: Literal["NCHW", "NHWC", "NLC"] = "NLC"
    if len(features) == 4:
        layout = "NHWC" if getattr(model, "output_fmt", "NCHW") == "NHWC" else "NCHW"
    elif len(features) != 3:
        raise ModelLoadError(f"{refusal}: it has no features at positions. Use --head linear.")
    head = CsraHead(
        features[1 if layout == "NCHW" else -1],
        labels,
        layout=layout,
        prefix=getattr(model, "num_prefix_tokens", 0) if layout == "NLC" else 0,
        replaced=before - frozenset(model.state_dict()),
    )
    parent, _, last = paths[0].rpartition(".")
    setattr(model.get_submodule(parent), last, head)
    model.train()


def head_layers(model: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """Return the layers whose outputs are the labels, by name; a distilled transformer has two."""
    inside = {id(module) for part in head_modules(model) for module in part.modules()}
    return {
        name: module
        for name, module in model.named_modules()
        if id(module) in inside and isinstance(module, (nn.Linear, nn.Conv2d))
    }


def head_modules(model: nn.Module) -> tuple[nn.Module, ...]:
    """Return the classifier in timm's sense: one module, or two of a distilled transformer."""
    for module in model.modules():
        if isinstance(module, CsraHead):
            return (module,)
    head = model.get_classifier()  # type: ignore[operator]
    return tuple(head) if isinstance(head, (tuple, list)) else (head,)


def start_at_prevalence(model: nn.Module, prevalence: NDArray[np.float64]) -> None:
    """Initialise the head so that it predicts the frequency of each label for every image.

    The bias becomes the logit of the prevalence (labels,) in (0, 1) (Lin et al., focal loss, 2017,
    section 4.1), the weights zero: no steps are spent on learning that most labels are absent.
    """
    for layer in head_layers(model).values():
        if layer.bias is not None and len(layer.bias) == len(prevalence):
            logits = torch.from_numpy(np.log(prevalence) - np.log1p(-prevalence))
            with torch.no_grad():
                layer.weight.zero_()
                layer.bias.copy_(logits)


def scale_head(model: nn.Module, factor: float, *, size: tuple[int, int] | None = None) -> None:
    """Multiply all logits by a factor, by folding it into the head's weights and biases.

    A temperature T (Guo et al., On Calibration of Modern Neural Networks, 2017) is the factor
    1 / T. The logits of a random image are compared before and after: of `size`, (height, width),
    or of the model's default. A model may accept only the size that it was built for.

    Raises:
        InputError: The factor is not a positive number.
        ModelLoadError: Layers after the head do not scale with it; the model is unchanged.
    """
    if not (math.isfinite(factor) and factor > 0):
        raise InputError(f"A head cannot be scaled by {factor}; use a positive number.")
    size = size or probe_size(model)
    expected = _probed(model, size) * factor
    layers = [
        layer for layer in head_layers(model).values() if layer.weight.shape[0] == expected.shape[1]
    ]
    parameters = [parameter for layer in layers for parameter in layer.parameters()]
    originals = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        for parameter in parameters:
            parameter.mul_(factor)
    if not torch.allclose(
        _probed(model, size), expected, rtol=_TOLERANCE, atol=_TOLERANCE * factor
    ):
        with torch.no_grad():
            for parameter, value in zip(parameters, originals, strict=True):
                parameter.copy_(value)
        raise ModelLoadError(
            f"The logits of this {type(model).__name__} cannot be multiplied by {factor:g}: its "
            "last layers are not linear."
        )


def probe_size(model: nn.Module) -> tuple[int, int]:
    """Return an input size (height, width) that the model accepts: its default."""
    embed = getattr(model, "patch_embed", None)
    size = getattr(embed, "img_size", None)
    if size is None:
        size = getattr(model, "pretrained_cfg", {}).get("input_size", (3, 96, 96))[1:]
    return cast("tuple[int, int]", tuple(size))


def _probed(model: nn.Module, size: tuple[int, int]) -> Tensor:
    """Run the model in evaluation mode on one image of fixed noise; return logits (1, labels)."""
    training = [module for module in model.modules() if module.training]
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, *size, generator=generator).to(device)
    try:
        with torch.no_grad():
            return cast(Tensor, model.eval()(image).float().cpu())
    finally:
        for module in training:
            module.training = True

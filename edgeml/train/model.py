"""The networks: our own small CNN, and every model of timm."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from typing import cast

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeml.errors import ModelLoadError
from edgeml.train.config import ModelArg

logger = logging.getLogger(__name__)

CNN = "cnn"

# What timm.create_model would take besides the model's own arguments. A checkpoint names its
# arguments, and `checkpoint_path` would make it unpickle a file.
_NOT_OURS_TO_PASS = frozenset(
    {
        "cache_dir", "checkpoint_path", "exportable", "features_only", "in_chans", "no_jit",
        "num_classes", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "scriptable",
    }
)  # fmt: skip


class SmallCnn(nn.Module):
    """A plain network of 0.52 M parameters: 49 M multiply-adds at 96 x 96 pixels.

    Four 3 x 3 convolutions with batch normalisation and ReLU: on a CPU they train several times
    faster than depthwise ones of equal cost, and they stay accurate in INT8. Max pooling halves
    the sides in between, and the head sees each feature's mean and its maximum over the picture.
    The mean alone tells colours; a garment amid clutter is found by its maximum (ARCHITECTURE.md,
    2026-11-23, has the figures for the pooling in between).
    """

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_conv(3, 40, stride=2),
            *(nn.MaxPool2d(2), *_conv(40, 80)),
            *(nn.MaxPool2d(2), *_conv(80, 160)),
            *(nn.MaxPool2d(2), *_conv(160, 256)),
        )
        self.head = nn.Linear(2 * 256, labels)

    def forward(self, batch: Tensor) -> Tensor:
        """Map (N, 3, H, W) to logits (N, labels)."""
        features = self.features(batch)
        pooled = torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1)
        return cast(Tensor, self.head(pooled))

    def get_classifier(self) -> nn.Module:
        """Give the last layer, under timm's name for it."""
        return self.head


def _conv(inputs: int, outputs: int, stride: int = 1) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)


def build_model(
    name: str,
    *,
    labels: int,
    args: Mapping[str, ModelArg],
    tensors: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """Build a network that maps (N, 3, H, W) to logits (N, labels). Never uses the network.

    Args:
        name: `cnn`, or a name that timm knows, with or without a tag: `resnet18.a1_in1k`.
        labels: Width of the output.
        args: Arguments of timm's constructor.
        tensors: Published weights of this very model, adapted as timm does; None: random ones.

    Raises:
        ModelLoadError: No such model (names the nearest), or it does not take the arguments.
    """
    _check_name(name)
    refused = sorted(_NOT_OURS_TO_PASS & args.keys())
    if refused:
        raise ModelLoadError(f"The model argument {refused[0]!r} is not one that can be chosen.")
    if name == CNN:
        if args:
            raise ModelLoadError(f"The model 'cnn' takes no arguments; it was given {_told(args)}.")
        return SmallCnn(labels)
    overlay = None if tensors is None else {"state_dict": dict(tensors)}
    try:
        model: nn.Module = timm.create_model(
            name,
            pretrained=tensors is not None,
            pretrained_cfg_overlay=overlay,
            num_classes=labels,
            **args,  # type: ignore[arg-type]  # those that mypy means are refused above
        )
    except Exception as err:  # a constructor may raise anything on a value it did not expect
        given = f" with {_told(args)}" if args else ""
        raise ModelLoadError(f"timm cannot build {name!r}{given}: {_line(err)}") from err
    return model


def check_size(model: nn.Module, size: int, labels: int) -> None:
    """Run the model once on nothing, so that a size it cannot take is told before training.

    Raises:
        ModelLoadError: The model fails at this size, or does not give (N, labels).
    """
    model.eval()
    try:
        with torch.inference_mode():
            shape = tuple(model(torch.zeros(1, 3, size, size)).shape)
    except Exception as err:  # asserts and shape errors from any depth of any architecture
        raise ModelLoadError(
            f"The model cannot take pictures of {size} x {size} pixels: {_line(err)}"
        ) from err
    if shape != (1, labels):
        raise ModelLoadError(
            f"The model gives an output of shape {shape}, not (1, {labels}): no classifier."
        )


def head_layers(model: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """Give the layers that end in the labels, by name; a distilled transformer has two."""
    head = model.get_classifier()  # type: ignore[operator]
    heads = head if isinstance(head, (tuple, list)) else (head,)
    inside = {id(module) for part in heads for module in part.modules()}
    return {
        name: module
        for name, module in model.named_modules()
        if id(module) in inside and isinstance(module, (nn.Linear, nn.Conv2d))
    }


def start_at_prevalence(model: nn.Module, prevalence: NDArray[np.float64]) -> None:
    """Make the fresh head say what is known without looking: how frequent each label is.

    The bias becomes the logit of the prevalence (Lin et al., focal loss, 2017, section 4.1), the
    weights zero. No step is then spent on learning that most labels are absent.

    Args:
        model: A network with a linear head.
        prevalence: (labels,) in (0, 1).
    """
    for layer in head_layers(model).values():
        if layer.bias is not None and len(layer.bias) == len(prevalence):
            logits = torch.from_numpy(np.log(prevalence) - np.log1p(-prevalence))
            with torch.no_grad():
                layer.weight.zero_()
                layer.bias.copy_(logits)


def is_convolutional(model: nn.Module) -> bool:
    """Say whether the model is normalised over batches, which marks the family of CNNs."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def _check_name(name: str) -> None:
    """Refuse what is not in timm's own list: `hf-hub:` and `local-dir:` names load anything."""
    architecture = name.split(".")[0]
    known = [CNN, *timm.list_models()]
    if architecture in known and (architecture != CNN or name == CNN):
        return
    near = difflib.get_close_matches(architecture, known, n=4, cutoff=0.5)
    hint = f"; near it are {', '.join(near)}" if near else ""
    raise ModelLoadError(f"There is no model {name!r}{hint}. Take 'cnn' or a name that timm knows.")


def _told(args: Mapping[str, ModelArg]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in args.items())


def _line(err: Exception) -> str:
    text = " ".join(str(err).split()) or type(err).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."

"""The networks: our own small CNN, and every model of timm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast, get_args

import timm
import torch
from torch import Tensor, nn

from edgeml.errors import InputError, ModelLoadError
from edgeml.network.card import ModelArg
from edgeml.network.heads import CsraHead, Head, add_csra_head
from edgeml.network.names import CNN, check_name

# Modules of timm whose networks are plain stacks of transformer blocks.
_TRANSFORMERS = ("vision_transformer", "deit")
_DROP_PATH = 0.1
# Arguments of timm.create_model that are not the model's own. A checkpoint names its arguments, and
# `checkpoint_path` would make it unpickle a file.
_RESERVED_ARGS = frozenset(
    {
        "cache_dir", "checkpoint_path", "exportable", "features_only", "in_chans", "no_jit",
        "num_classes", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "scriptable",
    }
)  # fmt: skip


class SmallCnn(nn.Module):
    """A plain network of 0.52 M parameters: 49 M multiply-adds at 96 x 96 pixels.

    Four 3 x 3 convolutions with batch normalisation and ReLU: on a CPU they train several times
    faster than depthwise ones of equal cost, and they stay accurate in INT8. Max pooling halves
    height and width in between, and the head sees each feature's mean and maximum over the image.
    The mean alone suffices for colours; a garment amid clutter needs the maximum (ARCHITECTURE.md,
    2026-11-23, has the figures for the pooling in between).
    """

    def __init__(self, labels: int, head: Head = "linear") -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_conv(3, 40, stride=2),
            *(nn.MaxPool2d(2), *_conv(40, 80)),
            *(nn.MaxPool2d(2), *_conv(80, 160)),
            *(nn.MaxPool2d(2), *_conv(160, 256)),
        )
        self.head = CsraHead(256, labels) if head == "csra" else nn.Linear(2 * 256, labels)

    def forward(self, batch: Tensor) -> Tensor:
        """Map (N, 3, H, W) to logits (N, labels)."""
        features = self.features(batch)
        if isinstance(self.head, CsraHead):
            return cast(Tensor, self.head(features))
        pooled = torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1)
        return cast(Tensor, self.head(pooled))

    def get_classifier(self) -> nn.Module:
        """Return the last layer; the name is that of timm's method."""
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
    head: Head = "linear",
    tensors: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """Build a network that maps (N, 3, H, W) to logits (N, labels). Never downloads anything.

    `name` is `cnn` or a full name of timm, with or without a tag, such as `resnet18.a1_in1k`, and
    `args` are those of timm's constructor. The head is `linear` on pooled features, or `csra` in
    place of pooling and head. Published weights of exactly this model, `tensors`, are adapted as
    timm does.

    Raises:
        InputError: The head does not exist.
        ModelLoadError: The model does not exist (suggests similar names), does not accept the
            arguments, or cannot have this head.
    """
    check_name(name)
    if head not in get_args(Head):
        raise InputError(f"There is no head {head!r}; known are {', '.join(get_args(Head))}.")
    refused = sorted(_RESERVED_ARGS & args.keys())
    if refused:
        raise ModelLoadError(
            f"The model argument {refused[0]!r} is reserved. Remove it from --model-args."
        )
    if name == CNN:
        if args:
            raise ModelLoadError(f"The model 'cnn' takes no arguments, but got {_joined(args)}.")
        return SmallCnn(labels, head)
    overlay = None if tensors is None else {"state_dict": dict(tensors)}
    try:
        model: nn.Module = timm.create_model(
            name,
            pretrained=tensors is not None,
            pretrained_cfg_overlay=overlay,
            num_classes=labels,
            **args,  # type: ignore[arg-type]  # the arguments that mypy objects to are refused above
        )
    except Exception as err:  # a constructor may raise anything on a value it did not expect
        options = f" with {_joined(args)}" if args else ""
        raise ModelLoadError(f"timm cannot build {name!r}{options}: {one_line(err)}") from err
    if head == "csra":
        side = args.get("img_size")
        add_csra_head(model, labels, name, size=(side, side) if isinstance(side, int) else None)
    return model


def head_of(model: nn.Module) -> Head:
    """Return the kind of head that a model has."""
    return "csra" if any(isinstance(module, CsraHead) for module in model.modules()) else "linear"


def training_args(name: str, args: Mapping[str, ModelArg]) -> dict[str, ModelArg]:
    """Return constructor arguments for training: `args`, with defaults for the family added.

    Vision transformers get a stochastic depth of 0.1 (Huang et al., 2016), which skips blocks at
    random. It has no parameters and no effect outside of training.
    """
    architecture = name.partition(".")[0]
    if architecture == CNN or not timm.models.is_model_in_modules(architecture, _TRANSFORMERS):
        return dict(args)
    return {"drop_path_rate": _DROP_PATH, **args}


def checkpoint_gradients(model: nn.Module, name: str) -> None:
    """Let training discard activations and recompute them: less memory, more time.

    Raises:
        InputError: timm does not support this for the model.
    """
    try:
        model.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError, TypeError) as err:
        raise InputError(
            f"The model {name!r} does not support gradient checkpointing; lower --batch instead."
        ) from err


def check_size(model: nn.Module, size: int, labels: int) -> None:
    """Run the model once on zeros, so that an unsupported size is reported before training.

    Raises:
        ModelLoadError: The model fails at this size, or its output is not (N, labels).
    """
    model.eval()
    try:
        with torch.inference_mode():
            shape = tuple(model(torch.zeros(1, 3, size, size)).shape)
    except Exception as err:  # architectures fail in different ways
        raise ModelLoadError(
            f"The model does not accept images of {size} x {size} pixels: {one_line(err)}"
        ) from err
    if shape != (1, labels):
        raise ModelLoadError(
            f"The output of the model has the shape {shape} instead of (1, {labels}); it is not a "
            "classifier."
        )


def is_convolutional(model: nn.Module) -> bool:
    """Return whether the model has batch normalisation, which distinguishes CNNs."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def trains_in_channels_last(model: nn.Module, device: torch.device) -> bool:
    """Return whether a model should train with the channels last, as CNNs should.

    On a CPU, torch 2.15 ends in a segmentation fault in the backward pass of a strided 1 x 1
    convolution of fewer than 8 channels: one of the first branches of MobileOne, RepVGG, FastViT.
    """
    return is_convolutional(model) and not (
        device.type == "cpu"
        and any(
            isinstance(module, nn.Conv2d)
            and module.kernel_size == (1, 1)
            and max(module.stride) > 1
            and module.in_channels < 8
            for module in model.modules()
        )
    )


def _joined(args: Mapping[str, ModelArg]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in args.items())


def one_line(err: Exception) -> str:
    """Return the message of an error as one line of at most 300 characters."""
    text = " ".join(str(err).split()) or type(err).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."

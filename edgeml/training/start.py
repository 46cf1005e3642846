"""Where a run starts: its folder and device, the model with its first weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import timm
import torch
from torch import nn

from edgeml.data.split import split_digest
from edgeml.errors import DataError, InputError
from edgeml.files import check_writable, sha256_of_file
from edgeml.image.preprocess import Preprocess
from edgeml.network.args import ModelArg
from edgeml.network.card import licence_note
from edgeml.network.heads import start_at_prevalence
from edgeml.network.model import build_model, check_size, training_args
from edgeml.network.names import CNN
from edgeml.network.weights import (
    WEIGHTS_FILE,
    Weights,
    load_weights,
    padding_note,
    preprocess_of,
    published_weights,
    read_weights,
)
from edgeml.progress import Progress
from edgeml.spec.model_spec import ModelSpec
from edgeml.training.config import TrainConfig
from edgeml.training.optim import default_layer_decay, default_lr
from edgeml.training.parts import Parts


@dataclass(frozen=True, kw_only=True)
class Start:
    """A model before its first step.

    Attributes:
        model: On the CPU.
        spec: Labels, groups, preprocessing and origin; thresholds are not fitted yet.
        config: Every setting that was left open is decided here.
    """

    model: nn.Module
    spec: ModelSpec
    config: TrainConfig


def check_out(out: Path, *, overwrite: bool) -> None:
    """Refuse an output folder that cannot be used, before hours go into what belongs there.

    Raises:
        InputError: It cannot be written to, or holds a model already.
    """
    if (out / WEIGHTS_FILE).exists() and not overwrite:
        raise InputError(
            f"{str(out)!r} already holds a model. Choose another folder with --out, go on with "
            "--resume, or pass --overwrite."
        )
    existed = out.exists()
    check_writable(out / WEIGHTS_FILE)
    if not existed:
        out.rmdir()


def device_of(name: str) -> torch.device:
    """Choose a device; `auto` takes CUDA, else Apple's MPS, else the CPU.

    Raises:
        InputError: PyTorch has no such device here.
    """
    if name == "auto":
        mps = torch.backends.mps.is_available()
        name = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as err:
        raise InputError(f"PyTorch has no device {name!r} here; take auto or cpu.") from err
    return device


def first_weights(config: TrainConfig) -> Weights | None:
    """Read or fetch the weights to start from; None starts from random ones.

    Raises:
        ModelLoadError: There are none, they cannot be fetched, or they are damaged.
    """
    if config.pretrained:
        return published_weights(config.model)
    return None if config.weights is None else read_weights(config.weights)


def start(
    config: TrainConfig,
    parts: Parts,
    weights: Weights | None,
    device: torch.device,
    *,
    progress: Progress,
) -> Start:
    """Build the model that a configuration asks for and give it its first weights.

    Args:
        config: What was asked for.
        parts: The data; their digest goes into the origin, the training side's prevalences into
            the head.
        weights: To start from.
        device: Where training will be.
        progress: Told what was chosen for the user.

    Raises:
        ModelLoadError: No such model, or weights that do not fit it.
    """
    size = config.size or (weights.card.size[0] if weights and weights.card.size else None)
    args = _args(config, weights, size)
    labels = parts.whole.labels
    model = build_model(
        config.model,
        labels=len(labels),
        args=args,
        head=config.head,
        tensors=weights.tensors if weights and config.pretrained else None,
    )
    has_head = bool(weights and not config.pretrained and load_weights(model, weights, labels))
    if not has_head:
        # One picture more, half with and half without the label, keeps the logit finite.
        positives, known = parts.train.present.sum(axis=0), parts.train.known.sum(axis=0)
        start_at_prevalence(model, (positives + 0.5) / (known + 1.0))
    preprocess = _overridden(preprocess_of(model, weights, size), config)
    check_size(model, preprocess.size[0], len(labels))
    config = _resolved(config, model, args, preprocess, device, pretrained=weights is not None)
    _note_start(config, model, weights, has_head, progress)
    spec = ModelSpec(
        labels=labels,
        thresholds=(0.5,) * len(labels),
        preprocess=preprocess,
        groups=parts.whole.label_groups,
        activation="group_softmax" if config.group_loss == "softmax" else "sigmoid",
        origin=_origin(config, args, parts, weights),
    )
    if config.group_loss == "softmax" and not spec.choices():
        raise DataError(
            "group_loss is softmax, but the data have no group of which one label is present. "
            "Name one: --groups NAME=LABEL,LABEL,..."
        )
    return Start(model=model, spec=spec, config=config)


def _args(config: TrainConfig, weights: Weights | None, size: int | None) -> dict[str, ModelArg]:
    """Complete the constructor's arguments: what the weights say, and what their size asks for.

    A model whose position embeddings fix its size must be told which size it will see.
    """
    own = dict(weights.card.args) if weights else {}
    args = training_args(config.model, {**own, **config.model_args})
    known = config.model != CNN and timm.is_model(config.model)
    cfg = timm.models.get_pretrained_cfg(config.model) if known else None
    if size and cfg and cfg.fixed_input_size and size != cfg.input_size[1]:
        args.setdefault("img_size", size)
    return args


def _overridden(preprocess: Preprocess, config: TrainConfig) -> Preprocess:
    return replace(
        preprocess,
        resize=config.resize,
        interpolation=config.interpolation or preprocess.interpolation,
        mean=config.mean or preprocess.mean,
        std=config.std or preprocess.std,
    )


def _resolved(
    config: TrainConfig,
    model: nn.Module,
    args: Mapping[str, ModelArg],
    preprocess: Preprocess,
    device: torch.device,
    *,
    pretrained: bool,
) -> TrainConfig:
    """Write down what was chosen for the user, so that the run can be repeated from it."""
    return replace(
        config,
        model_args=dict(args),
        weights=config.weights and config.weights.absolute(),
        teacher=config.teacher and config.teacher.absolute(),
        size=preprocess.size[0],
        interpolation=preprocess.interpolation,
        mean=preprocess.mean,
        std=preprocess.std,
        lr=config.lr or default_lr(model, pretrained=pretrained),
        layer_decay=config.layer_decay or default_layer_decay(model, pretrained=pretrained),
        device=str(device),
    )


def _note_start(
    config: TrainConfig,
    model: nn.Module,
    weights: Weights | None,
    has_head: bool,
    progress: Progress,
) -> None:
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    source = f"weights from {weights.path.name}" if weights else "random weights"
    head = ", with a new head" if weights and not has_head else ""
    progress.note(f"model {config.model}, {millions:.2f} M parameters, {source}{head}")
    if weights:
        # A run of edgeml from scratch has no licence but that of who trained it.
        if weights.spec is None or weights.card.licence:
            progress.note(licence_note(weights.card.licence))
        if told := padding_note(config.model, weights, config.model_args):
            progress.note(told)
    elif config.model != CNN:
        progress.note("note: nothing is downloaded unless asked: --pretrained, or --weights FILE")
    progress.note(
        f"input {config.size} x {config.size} px, {config.resize}, {config.interpolation}, "
        f"mean {_told(config.mean)}, std {_told(config.std)}; learning rate {config.lr:g}"
    )


def _origin(
    config: TrainConfig, args: Mapping[str, ModelArg], parts: Parts, weights: Weights | None
) -> dict[str, str]:
    """Say where a model comes from.

    The plan only if it divided the data: who repeats it must get the same sides.
    """
    origin: dict[str, str] = {}
    if parts.planned:
        origin |= {"split": config.plan.to_text(), "split_sha256": split_digest(parts.whole)}
    origin |= {
        "model": config.model,
        "model_args": json.dumps(dict(args)),
        "data_sha256": parts.whole.digest(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "edgeml": _edgeml_version(),
    }
    if weights:
        origin["weights_sha256"] = sha256_of_file(weights.path)
        if weights.card.licence:
            origin["weights_license"] = weights.card.licence
    return origin


def _edgeml_version() -> str:
    try:
        return version("edgeml")
    except PackageNotFoundError:
        return "not installed"


def _told(values: tuple[float, ...] | None) -> str:
    return "/".join(f"{value:g}" for value in values or ())

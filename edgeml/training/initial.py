"""The model before its first step: its weights, its spec and the resolved settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version

import timm
import torch
from torch import nn

from edgeml.data.split import split_digest
from edgeml.errors import DataError
from edgeml.files import sha256_of_file
from edgeml.image.preprocess import Preprocess
from edgeml.network.card import ModelArg, licence_note
from edgeml.network.heads import start_at_prevalence
from edgeml.network.model import build_model, check_size, training_args
from edgeml.network.names import CNN
from edgeml.network.weights import (
    Weights,
    load_weights,
    padding_note,
    preprocess_of,
    published_weights,
    read_weights,
)
from edgeml.progress import Progress
from edgeml.spec.model_spec import ModelSpec
from edgeml.spec.provenance import Provenance
from edgeml.training.config import TrainConfig
from edgeml.training.optim import default_layer_decay, default_lr
from edgeml.training.splits import Splits


@dataclass(frozen=True, kw_only=True)
class InitialModel:
    """A model on the CPU before its first step, its spec, and settings with every default resolved.

    Its spec has labels, groups, preprocessing and provenance; thresholds are not fitted yet.
    """

    model: nn.Module
    spec: ModelSpec
    config: TrainConfig


def first_weights(config: TrainConfig) -> Weights | None:
    """Read or fetch the weights to start from; None means random weights.

    Raises:
        ModelLoadError: The weights are missing or damaged, or cannot be fetched.
    """
    if config.pretrained:
        return published_weights(config.model)
    return None if config.weights is None else read_weights(config.weights)


def initial_model(
    config: TrainConfig,
    splits: Splits,
    weights: Weights | None,
    device: torch.device,
    *,
    progress: Progress,
) -> InitialModel:
    """Build the model that the configuration names in full, and load its first weights, if any.

    The spec records the digest of the data, and the prevalences of the training split initialise
    the head. `progress` receives notes on what was chosen for the user.

    Raises:
        DataError: `group_loss` is softmax but the data have no group.
        ModelLoadError: The model does not exist, or the weights do not fit it.
    """
    size = config.size or (weights.card.size[0] if weights and weights.card.size else None)
    args = _model_args(config, weights, size)
    labels = splits.dataset.labels
    model = build_model(
        config.model,
        labels=len(labels),
        args=args,
        head=config.head,
        tensors=weights.tensors if weights and config.pretrained else None,
    )
    head_loaded = bool(weights and not config.pretrained and load_weights(model, weights, labels))
    if not head_loaded:
        # Half an extra image with the label and half one without keep the logit finite.
        positives, known = splits.train.present.sum(axis=0), splits.train.known.sum(axis=0)
        start_at_prevalence(model, (positives + 0.5) / (known + 1.0))
    preprocess = preprocess_of(model, weights, size)
    preprocess = replace(
        preprocess,
        resize=config.resize,
        interpolation=config.interpolation or preprocess.interpolation,
        mean=config.mean or preprocess.mean,
        std=config.std or preprocess.std,
    )
    check_size(model, preprocess.size[0], len(labels))
    config = _resolved(config, model, args, preprocess, device, pretrained=weights is not None)
    _note_choices(config, model, weights, progress, head_loaded=head_loaded)
    spec = ModelSpec(
        labels=labels,
        thresholds=(0.5,) * len(labels),
        preprocess=preprocess,
        groups=splits.dataset.label_groups,
        activation="group_softmax" if config.group_loss == "softmax" else "sigmoid",
        provenance=_provenance(config, args, splits, weights),
    )
    if config.group_loss == "softmax" and not spec.softmax_groups():
        raise DataError(
            "group_loss is softmax, but the data have no group with exactly one label per image. "
            "Define one: --groups NAME=LABEL,LABEL,..."
        )
    return InitialModel(model=model, spec=spec, config=config)


def _model_args(
    config: TrainConfig, weights: Weights | None, size: int | None
) -> dict[str, ModelArg]:
    """Return the constructor's arguments: those of the weights, the user's, and the input size.

    A model whose position embeddings fix its input size needs that size at construction.
    """
    from_weights = weights.card.args if weights else {}
    args = training_args(config.model, {**from_weights, **config.model_args})
    cfg = None if config.model == CNN else timm.models.get_pretrained_cfg(config.model)
    if size and cfg and cfg.fixed_input_size and size != cfg.input_size[1]:
        args.setdefault("img_size", size)
    return args


def _resolved(
    config: TrainConfig,
    model: nn.Module,
    args: Mapping[str, ModelArg],
    preprocess: Preprocess,
    device: torch.device,
    *,
    pretrained: bool,
) -> TrainConfig:
    """Return the settings with all defaults resolved, so that they reproduce the run."""
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


def _note_choices(
    config: TrainConfig,
    model: nn.Module,
    weights: Weights | None,
    progress: Progress,
    *,
    head_loaded: bool,
) -> None:
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    source = f"weights from {weights.path.name}" if weights else "random weights"
    head = ", with a new head" if weights and not head_loaded else ""
    progress.note(f"model {config.model}, {millions:.2f} M parameters, {source}{head}")
    if weights:
        # A model that the user trained from scratch with edgeml has no third-party licence.
        if weights.spec is None or weights.card.licence:
            progress.note(licence_note(weights.card.licence))
        if warning := padding_note(config.model, weights, config.model_args):
            progress.note(warning)
    elif config.model != CNN:
        progress.note(
            "note: for better weights use --pretrained, which downloads, or --weights FILE"
        )
    progress.note(
        f"input {config.size} x {config.size} px, {config.resize}, {config.interpolation}, "
        f"mean {_joined(config.mean)}, std {_joined(config.std)}; learning rate {config.lr:g}"
    )


def _provenance(
    config: TrainConfig, args: Mapping[str, ModelArg], splits: Splits, weights: Weights | None
) -> Provenance:
    """Return the provenance of a model.

    The split plan is included only if it produced the split: repeating it must give the same one.
    The digest of the split tells its split.csv from others.
    """
    return Provenance(
        model=config.model,
        data_sha256=splits.dataset.digest(),
        split=config.plan if splits.planned else None,
        split_sha256=split_digest(splits.dataset),
        weights_sha256=sha256_of_file(weights.path) if weights else None,
        weights_license=weights.card.licence if weights else None,
        notes={
            "model_args": json.dumps(dict(args)),
            "torch": torch.__version__,
            "timm": timm.__version__,
            "edgeml": _edgeml_version(),
        },
    )


def _edgeml_version() -> str:
    try:
        return version("edgeml")
    except PackageNotFoundError:
        return "not installed"


def _joined(values: tuple[float, ...] | None) -> str:
    return "/".join(f"{value:g}" for value in values or ())

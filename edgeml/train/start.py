"""Where a run starts: the checks, the model with its first weights, the preprocessing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from edgeml.data import Dataset, SplitPlan, split_dataset
from edgeml.errors import DataError, InputError
from edgeml.files import sha256_of_file, staging_folder
from edgeml.preprocess import Preprocess
from edgeml.progress import Progress
from edgeml.spec import ModelSpec
from edgeml.train.config import ModelArg, TrainConfig
from edgeml.train.model import CNN, build_model, check_size, start_at_prevalence
from edgeml.train.optim import default_lr
from edgeml.train.weights import (
    WEIGHTS_FILE,
    Weights,
    load_weights,
    preprocess_of,
    published_weights,
    read_weights,
)


@dataclass(frozen=True, kw_only=True)
class Start:
    """A model before its first step.

    Attributes:
        model: On the CPU.
        args: Arguments of timm's constructor, those that the size asks for included.
        spec: Labels, groups, preprocessing and origin; thresholds are not fitted yet.
        lr: Peak learning rate.
    """

    model: nn.Module
    args: Mapping[str, ModelArg]
    spec: ModelSpec
    lr: float


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The three sides of a split data set; `test` may be empty."""

    train: Dataset
    val: Dataset
    test: Dataset


def check_out(out: Path, *, overwrite: bool) -> None:
    """Refuse an output folder that cannot be used, before hours go into what belongs there.

    Raises:
        InputError: It cannot be written to, or holds a model already.
    """
    if (out / WEIGHTS_FILE).exists() and not overwrite:
        raise InputError(
            f"{str(out)!r} already holds a model. Choose another folder with --out, or pass "
            "--overwrite."
        )
    existed = out.exists()
    shutil.rmtree(staging_folder(out / WEIGHTS_FILE))
    if not existed:
        out.rmdir()


def parts_of(dataset: Dataset, progress: Progress) -> Parts:
    """Divide a data set by its split column, and say which labels are missing where.

    Raises:
        DataError: Fewer than two labels, or nothing to train or to validate on.
    """
    if len(dataset.labels) < 2:
        raise DataError(
            f"There is only one label, {', '.join(dataset.labels)!r}: nothing to tell apart."
        )
    parts = Parts(train=dataset.part("train"), val=dataset.part("val"), test=dataset.part("test"))
    if len(parts.train) < 2 or not parts.val.present.any():
        raise DataError(
            f"Of {len(dataset)} pictures {len(parts.train)} are for training and "
            f"{len(parts.val)} for validation: too few. Add pictures, or change the split."
        )
    _note_missing(parts.train, "training pictures: it cannot be learned", progress)
    _note_missing(parts.val, "validation pictures: its threshold is the other labels'", progress)
    return parts


def follows_plan(dataset: Dataset, plan: SplitPlan) -> bool:
    """Say whether a plan would divide the data as they are divided."""
    try:
        return split_dataset(replace(dataset, split=None), plan).split == dataset.split
    except DataError:
        return False


def _note_missing(part: Dataset, where: str, progress: Progress) -> None:
    for label, count in zip(part.labels, part.present.sum(axis=0), strict=True):
        if count == 0:
            progress.note(f"warning: {label!r} is on none of the {len(part)} {where}")


def start(
    config: TrainConfig, dataset: Dataset, train: Dataset, *, planned: bool, progress: Progress
) -> Start:
    """Build the model that a configuration asks for and give it its first weights.

    Args:
        config: What was asked for.
        dataset: All pictures; its digest goes into the origin.
        train: The training side; its prevalences go into the head.
        planned: Whether `config.split` divided the data. Only then it goes into the origin: who
            repeats it must get the same sides.
        progress: Told what was chosen for the user.

    Raises:
        ModelLoadError: No such model, or weights that are not there or do not fit.
    """
    weights = _first_weights(config)
    size = config.size or (weights.spec.preprocess.size[0] if weights and weights.spec else None)
    args = _args_for_size(config, size)
    published = weights.tensors if weights and config.pretrained else None
    model = build_model(config.model, labels=len(dataset.labels), args=args, tensors=published)
    has_head = False
    if weights and not config.pretrained:
        has_head = load_weights(model, weights, dataset.labels)
    if not has_head:
        # One picture more, half with and half without the label, keeps the logit finite.
        start_at_prevalence(
            model, (train.present.sum(axis=0) + 0.5) / (train.known.sum(axis=0) + 1.0)
        )
    preprocess = _overridden(preprocess_of(model, weights, size), config)
    check_size(model, preprocess.size[0], len(dataset.labels))
    lr = config.lr or default_lr(model, pretrained=weights is not None)
    _note_start(config, model, weights, preprocess, lr, has_head, progress)
    spec = ModelSpec(
        labels=dataset.labels,
        thresholds=(0.5,) * len(dataset.labels),
        preprocess=preprocess,
        groups=dataset.label_groups,
        origin=_origin(config, args, dataset, weights, planned=planned),
    )
    return Start(model=model, args=args, spec=spec, lr=lr)


def _first_weights(config: TrainConfig) -> Weights | None:
    if config.pretrained:
        return published_weights(config.model)
    return None if config.weights is None else read_weights(config.weights)


def _args_for_size(config: TrainConfig, size: int | None) -> dict[str, ModelArg]:
    """Tell a model whose position embeddings fix its size which size it will see."""
    args = dict(config.model_args)
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


def _note_start(
    config: TrainConfig,
    model: nn.Module,
    weights: Weights | None,
    preprocess: Preprocess,
    lr: float,
    has_head: bool,
    progress: Progress,
) -> None:
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    source = f"weights from {weights.path.name}" if weights else "random weights"
    head = ", with a new head" if weights and not has_head else ""
    progress.note(f"model {config.model}, {millions:.2f} M parameters, {source}{head}")
    if not weights and config.model != CNN:
        progress.note("note: nothing is downloaded unless asked: --pretrained, or --weights FILE")
    height, width = preprocess.size
    progress.note(
        f"input {height} x {width} px, {preprocess.resize}, {preprocess.interpolation}, "
        f"mean {_told(preprocess.mean)}, std {_told(preprocess.std)}; learning rate {lr:g}"
    )


def _origin(
    config: TrainConfig,
    args: Mapping[str, ModelArg],
    dataset: Dataset,
    weights: Weights | None,
    *,
    planned: bool,
) -> dict[str, str]:
    origin = {"split": config.split.to_text()} if planned else {}
    origin |= {
        "model": config.model,
        "model_args": json.dumps(dict(args)),
        "data_sha256": dataset.digest(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "edgeml": _edgeml_version(),
    }
    if weights:
        origin["weights_sha256"] = sha256_of_file(weights.path)
        licence = weights.metadata.get("license") or _published_licence(config)
        if licence:
            origin["weights_license"] = licence
    return origin


def _published_licence(config: TrainConfig) -> str | None:
    cfg: Any = timm.models.get_pretrained_cfg(config.model) if config.pretrained else None
    return cfg.license if cfg else None


def _edgeml_version() -> str:
    try:
        return version("edgeml")
    except PackageNotFoundError:
        return "not installed"


def _told(values: tuple[float, ...]) -> str:
    return "/".join(f"{value:g}" for value in values)

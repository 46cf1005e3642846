"""Inputs for the tests of the training report."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.image.preprocess import Preprocess
from edgeml.spec.labels import LabelGroup
from edgeml.spec.model_spec import ModelSpec
from edgeml.training.history import Epoch
from edgeml.training.report.files import report_json
from edgeml.training.report.findings import ScoredSplit, Training, analyse

LABELS = ("red", "green", "blue", "shirt", "dress", "kids")
COLOUR = LabelGroup(name="colour", labels=("red", "green", "blue"), rule="one")
THRESHOLDS = (0.5, 0.5, 0.5, 0.3, 0.4, 0.6)
EPOCH = Epoch(
    epoch=1, lr=1e-3, train_loss=0.4, val_loss=0.5, mAP=0.6, weighted_mAP=0.6,
    CP=0.5, CR=0.5, CF1=0.56, macro_F1=0.55, OP=0.5, OR=0.5, OF1=0.57, exact_match=0.3,
    seconds=10.0, images_per_s=200.0, wait=0.02,
)  # fmt: skip
NAN_EPOCH = Epoch(**{**{field.name: math.nan for field in fields(Epoch)}, "epoch": 1})  # type: ignore[arg-type]


def scored(
    images: int, labels: tuple[str, ...] = LABELS, *, seed: int = 0, unknown: float = 0.0
) -> ScoredSplit:
    """Draw targets, and scores that follow them with some errors."""
    random = np.random.default_rng(seed)
    targets = (random.random((images, len(labels))) < 0.4).astype(np.int8)
    if labels == LABELS:
        targets[:, :3] = np.eye(3, dtype=np.int8)[random.integers(0, 3, images)]
    logits = 2.5 * targets - 1 + random.normal(size=targets.shape)
    targets[random.random(targets.shape) < unknown] = -1
    return ScoredSplit(
        scores=(1 / (1 + np.exp(-logits))).astype(np.float32),
        targets=targets,
        paths=tuple(Path(f"gone/{row}.jpg") for row in range(images)),
    )


def spec_of(labels: tuple[str, ...], groups: tuple[LabelGroup, ...] = ()) -> ModelSpec:
    return ModelSpec(
        labels=labels,
        thresholds=(0.5,) * len(labels),
        preprocess=Preprocess(size=(8, 8)),
        groups=groups,
    )


def training(**changes: Any) -> Training:
    inputs = Training(
        title="A run",
        history=[replace(EPOCH, epoch=epoch, val_loss=1 / epoch) for epoch in range(1, 5)],
        spec=replace(spec_of(LABELS, (COLOUR,)), thresholds=THRESHOLDS),
        val=scored(60, seed=1),
        test=scored(80, seed=2),
        uncalibrated=scored(60, seed=3).scores,
        temperature=1.25,
        audit=(("Duplicates", "3 groups"),),
        config={"model": "cnn", "weights": Path("a/b.safetensors"), "lr": 1e-3, "args": None},
        facts={"Versions": "torch 2.15.0"},
        best_epoch=3,
    )
    return replace(inputs, **changes)


def other_labels(labels: tuple[str, ...], images: int = 20, **changes: Any) -> Training:
    """Return a training with other labels, in no group."""
    return training(
        spec=spec_of(labels),
        val=scored(images, labels, seed=1),
        test=scored(images, labels, seed=2),
        uncalibrated=None,
        **changes,
    )


def measured(inputs: Training) -> dict[str, Any]:
    """Return the contents of report.json without drawing a page."""
    return strict_json(report_json(inputs, analyse(inputs)))


def strict_json(text: str) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    document: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return document


def decided(split: ScoredSplit) -> NDArray[np.bool_]:
    """Return the expected decisions: by threshold, and the best colour."""
    present = split.scores >= np.array(THRESHOLDS, np.float32)
    present[:, :3] = np.eye(3, dtype=bool)[split.scores[:, :3].argmax(axis=1)]
    return present

"""The end of a run: calibrate the best weights, read the test split once, write the report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from edgeml.data.audit import audit
from edgeml.data.framestore import cache_or_none
from edgeml.data.split import held_out
from edgeml.measure.metrics import Metrics, evaluate
from edgeml.measure.reliability import fit_temperature
from edgeml.measure.thresholds import fit_thresholds, labels_below_floor
from edgeml.network.checkpoint import load_checkpoint, save_checkpoint
from edgeml.network.heads import scale_head
from edgeml.network.weights import WEIGHTS_FILE
from edgeml.progress import Progress
from edgeml.spec.decide import probabilities
from edgeml.spec.model_spec import ModelSpec
from edgeml.training.config import TrainConfig
from edgeml.training.history import Epoch
from edgeml.training.report.findings import ScoredSplit, Training
from edgeml.training.report.page import train_report
from edgeml.training.setup import TrainingSetup
from edgeml.training.splits import SplitFrames, predict_logits
from edgeml.training.state import STATE_FILE

REPORT_FILE = "report.html"


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """The result of a run: its folder, its spec, its metrics and its history.

    Attributes:
        path: The run folder.
        spec: With thresholds fitted on the validation split, and the metrics of both splits.
        metrics: Of the best weights on the test split, by which nothing was chosen; on the
            validation split if there is no test split.
        history: One row per epoch.
        held_out: Metrics on the combination of labels that training never saw, if there is one.
    """

    path: Path
    spec: ModelSpec
    metrics: Metrics
    history: tuple[Epoch, ...]
    held_out: Metrics | None = None


def finish(
    setup: TrainingSetup, history: Sequence[Epoch], out: Path, *, progress: Progress
) -> TrainResult:
    """Calibrate the checkpoint, measure it on the test split, and write it and the report.

    Everything is computed from the checkpoint file. A run that was killed here and is resumed
    skips the steps that are already done.
    """
    config, splits, frames = setup.learner.config, setup.splits, setup.frames
    model, spec = load_checkpoint(out)
    val = _logits(model, frames["val"], spec)
    if config.calibrate and spec.provenance.temperature is None:
        model, spec, val = _calibrated(model, spec, frames["val"], val, config)
    scored = {"val": _scored(frames["val"], probabilities(val, spec))}
    if len(frames["test"]):
        test = _logits(model, frames["test"], spec)
        scored["test"] = _scored(frames["test"], probabilities(test, spec))
    metrics = {
        name: replace(evaluate(one.scores, one.targets, spec), seen_in_training=0)
        for name, one in scored.items()
    }
    finite = {
        key: value for name in scored for key, value in finite_metrics(name, metrics[name]).items()
    }
    spec = replace(spec, metrics=finite)
    save_checkpoint(out / WEIGHTS_FILE, model, spec, name=config.model, args=config.model_args)
    _note_metrics(spec, config, scored, metrics, progress)
    unseen = None
    if config.hold_out and "test" in scored:
        rows, shown = held_out(splits.test, config.hold_out), scored["test"]
        unseen = evaluate(shown.scores[rows], shown.targets[rows], spec)
        progress.note(
            f"held out, {' + '.join(config.hold_out)}, {unseen.images} images: exact_match "
            f"{unseen.exact_match:.3f}, OF1 {unseen.OF1:.3f}"
        )
    result = TrainResult(
        path=out,
        spec=spec,
        metrics=metrics.get("test", metrics["val"]),
        history=tuple(history),
        held_out=unseen,
    )
    cache = cache_or_none() if config.cache else None
    audited = audit(splits.dataset, threads=config.workers, cache=cache).summary()
    train_report(_training(result, scored, val, config, audited), out / REPORT_FILE)
    (out / STATE_FILE).unlink(missing_ok=True)
    return result


def finite_metrics(split: str, metrics: Metrics) -> dict[str, float]:
    """Return metrics for the spec, prefixed by the name of their split; NaN is omitted."""
    return {
        f"{split}_{name}": round(value, 6)
        for name, value in metrics.summary().items()
        if math.isfinite(value)
    }


def _logits(model: nn.Module, split: SplitFrames, spec: ModelSpec) -> NDArray[np.float32]:
    return np.asarray(predict_logits(model, split.frames, spec.preprocess), np.float32)


def _scored(split: SplitFrames, scores: NDArray[np.float32]) -> ScoredSplit:
    return ScoredSplit(scores=scores, targets=split.targets, paths=split.paths)


def _calibrated(
    model: nn.Module,
    spec: ModelSpec,
    split: SplitFrames,
    logits: NDArray[np.float32],
    config: TrainConfig,
) -> tuple[nn.Module, ModelSpec, NDArray[np.float32]]:
    """Fold a temperature into the head, then fit the thresholds to the new probabilities."""
    temperature = fit_temperature(logits, split.targets, spec.softmax_groups())
    scale_head(model, 1 / temperature, size=spec.preprocess.size)
    logits = _logits(model, split, spec)
    thresholds = fit_thresholds(probabilities(logits, spec), split.targets, config.objective)
    provenance = replace(spec.provenance, temperature=float(f"{temperature:.6g}"))
    return model, replace(spec, thresholds=thresholds, provenance=provenance), logits


def _note_metrics(
    spec: ModelSpec,
    config: TrainConfig,
    scored: Mapping[str, ScoredSplit],
    metrics: Mapping[str, Metrics],
    progress: Progress,
) -> None:
    if spec.provenance.temperature is not None:
        progress.note(f"temperature {spec.provenance.temperature:g}, folded into the head")
    val = scored["val"]
    for column in labels_below_floor(val.scores, val.targets, spec.thresholds, config.objective):
        progress.note(f"note: {spec.labels[column]!r} does not reach {config.objective}")
    if "test" not in metrics:
        progress.note("note: there is no test split; the metrics are of the validation split")
        return
    measured = metrics["test"]
    values = ", ".join(f"{name} {value:.3f}" for name, value in measured.summary().items())
    progress.note(f"test split, {measured.images} images: {values}")


def _training(
    result: TrainResult,
    scored: Mapping[str, ScoredSplit],
    val: NDArray[np.float32],
    config: TrainConfig,
    audited: Sequence[tuple[str, str]],
) -> Training:
    """Return the input of the report."""
    best = max(result.history, key=lambda row: row.quality)
    temperature = result.spec.provenance.temperature or 1.0
    return Training(
        title=f"{config.model}: {len(result.spec.labels)} labels",
        history=result.history,
        spec=result.spec,
        val=scored["val"],
        test=scored.get("test"),
        # Recomputed, because a resumed run may find the temperature already folded into the head.
        uncalibrated=probabilities(val * np.float32(temperature), result.spec)
        if temperature != 1
        else None,
        temperature=temperature,
        held_out=result.held_out,
        held_out_name=" + ".join(config.hold_out) or None,
        audit=audited,
        config=config.to_dict(),
        facts=result.spec.provenance.to_texts(),
        best_epoch=best.epoch,
    )

"""The end of a run: calibrate the kept weights, read the test side once, write the report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from edgeml.data.audit import audit
from edgeml.data.framestore import default_cache
from edgeml.data.split import held_out
from edgeml.measure.metrics import Metrics, evaluate
from edgeml.measure.reliability import fit_temperature
from edgeml.measure.thresholds import fit_thresholds, unreached
from edgeml.network.checkpoint import load_checkpoint, save_checkpoint
from edgeml.network.heads import scale_head
from edgeml.network.weights import WEIGHTS_FILE
from edgeml.progress import Progress
from edgeml.spec.model_spec import ModelSpec
from edgeml.training.config import TrainConfig
from edgeml.training.history import Epoch
from edgeml.training.parts import Parts
from edgeml.training.report.findings import Scored, Training
from edgeml.training.report.page import train_report
from edgeml.training.sides import Side, predict_logits
from edgeml.training.start import Start
from edgeml.training.state import STATE_FILE

REPORT_FILE = "report.html"


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a run leaves: its folder, the spec in it, and how it came to be.

    Attributes:
        path: The run folder.
        spec: With thresholds fitted on the validation side, and the metrics of both sides.
        metrics: Of the kept weights on the test side, which nothing was chosen by; on the
            validation side if there is no test side.
        history: One row an epoch.
        held_out: On the combination of labels that training never saw, if there is one.
    """

    path: Path
    spec: ModelSpec
    metrics: Metrics
    history: tuple[Epoch, ...]
    held_out: Metrics | None = None


def finish(
    begin: Start,
    parts: Parts,
    sides: Mapping[str, Side],
    history: Sequence[Epoch],
    out: Path,
    *,
    progress: Progress,
) -> TrainResult:
    """Calibrate the checkpoint, measure it on the test side, and write it and the report.

    All is computed from the file as it was written. What was done already, by a run that was
    killed here, is not done twice.
    """
    config = begin.config
    model, spec = load_checkpoint(out)
    val = _logits(model, sides["val"], spec)
    if config.calibrate and "temperature" not in spec.origin:
        model, spec, val = _calibrated(model, spec, sides["val"], val, config)
    scored = {"val": _scored(sides["val"], spec.probabilities(val))}
    if len(sides["test"]):
        test = _logits(model, sides["test"], spec)
        scored["test"] = _scored(sides["test"], spec.probabilities(test))
    metrics = {name: evaluate(side.scores, side.targets, spec) for name, side in scored.items()}
    known = {
        key: value for name in scored for key, value in known_metrics(name, metrics[name]).items()
    }
    spec = replace(spec, metrics=known)
    save_checkpoint(out / WEIGHTS_FILE, model, spec, name=config.model, args=config.model_args)
    _note_end(spec, config, scored, metrics, progress)
    apart = _held_out(parts, scored, spec, config)
    if apart is not None:
        progress.note(
            f"held out, {' + '.join(config.hold_out)}, {apart.images} pictures: exact_match "
            f"{apart.exact_match:.3f}, OF1 {apart.OF1:.3f}"
        )
    result = TrainResult(
        path=out,
        spec=spec,
        metrics=metrics.get("test", metrics["val"]),
        history=tuple(history),
        held_out=apart,
    )
    cache = default_cache() if config.cache else None
    found = audit(parts.whole, threads=config.workers, cache=cache).summary()
    train_report(_training(result, scored, val, config, found), out / REPORT_FILE)
    (out / STATE_FILE).unlink(missing_ok=True)
    return result


def known_metrics(side: str, metrics: Metrics) -> dict[str, float]:
    """Name metrics by the side they are of; what is not a number is left out of the spec."""
    return {
        f"{side}_{name}": round(value, 6)
        for name, value in metrics.summary().items()
        if math.isfinite(value)
    }


def _logits(model: nn.Module, side: Side, spec: ModelSpec) -> NDArray[np.float32]:
    return np.asarray(predict_logits(model, side.frames, spec.preprocess), np.float32)


def _scored(side: Side, scores: NDArray[np.float32]) -> Scored:
    return Scored(scores=scores, targets=side.targets, paths=side.paths)


def _calibrated(
    model: nn.Module,
    spec: ModelSpec,
    side: Side,
    logits: NDArray[np.float32],
    config: TrainConfig,
) -> tuple[nn.Module, ModelSpec, NDArray[np.float32]]:
    """Fold a temperature into the head, and fit the thresholds to what it says then."""
    temperature = fit_temperature(logits, side.targets, spec.choices())
    scale_head(model, 1 / temperature)
    logits = _logits(model, side, spec)
    thresholds = fit_thresholds(spec.probabilities(logits), side.targets, config.objective)
    origin = {**spec.origin, "temperature": f"{temperature:.6g}"}
    return model, replace(spec, thresholds=thresholds, origin=origin), logits


def _held_out(
    parts: Parts, scored: Mapping[str, Scored], spec: ModelSpec, config: TrainConfig
) -> Metrics | None:
    """Measure the pictures of the combination that training never saw."""
    if not config.hold_out or "test" not in scored:
        return None
    rows = held_out(parts.test, config.hold_out)
    side = scored["test"]
    return evaluate(side.scores[rows], side.targets[rows], spec)


def _note_end(
    spec: ModelSpec,
    config: TrainConfig,
    scored: Mapping[str, Scored],
    metrics: Mapping[str, Metrics],
    progress: Progress,
) -> None:
    if "temperature" in spec.origin:
        progress.note(f"temperature {spec.origin['temperature']}, folded into the head")
    val = scored["val"]
    for column in unreached(val.scores, val.targets, spec.thresholds, config.objective):
        progress.note(f"note: {spec.labels[column]!r} does not reach {config.objective}")
    if "test" not in metrics:
        progress.note("note: the split has no test side; the metrics are those of validation")
        return
    measured = metrics["test"]
    told = ", ".join(f"{name} {value:.3f}" for name, value in measured.summary().items())
    progress.note(f"test side, {measured.images} pictures: {told}")


def _training(
    result: TrainResult,
    scored: Mapping[str, Scored],
    val: NDArray[np.float32],
    config: TrainConfig,
    found: Sequence[tuple[str, str]],
) -> Training:
    """Gather what the report shows."""
    best = max(result.history, key=lambda row: (row.mAP, -row.val_loss))
    temperature = float(result.spec.origin.get("temperature", "1"))
    return Training(
        title=f"{config.model}: {len(result.spec.labels)} labels",
        history=result.history,
        spec=result.spec,
        val=scored["val"],
        test=scored.get("test"),
        # Undone, not kept: a run that was killed here and goes on has folded it in already.
        uncalibrated=result.spec.probabilities(val * np.float32(temperature))
        if temperature != 1
        else None,
        temperature=temperature,
        held_out=result.held_out,
        held_out_name=" + ".join(config.hold_out) or None,
        audit=found,
        config=config.to_dict(),
        facts=dict(result.spec.origin),
        best_epoch=best.epoch,
    )

"""The numbers of a training report as files: report.json and per_label.csv."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from edgeml.measure.metrics import Metrics
from edgeml.training.history import rounded
from edgeml.training.report.findings import Findings, LabelFindings, Training

SCHEMA = "edgeml.train/1"
# The columns of an epoch; history.csv has more.
_EPOCH_COLUMNS = (
    "epoch", "lr", "train_loss", "val_loss", "mAP", "macro_F1", "CF1", "OF1", "exact_match",
    "seconds", "images_per_s", "wait",
)  # fmt: skip


def report_json(training: Training, findings: Findings) -> str:
    """Return everything that the page shows as JSON; the keys are stable, NaN becomes null.

    * `schema`: `edgeml.train/1`; `title`, `best_epoch`, `temperature`.
    * `side`: the split, `test` or `val`, that all keys describe unless they name another.
    * `metrics`: by split, `images`, `labels_averaged`, `absent_labels`, and mAP, CP, CR, CF1,
      macro_F1, OP, OR, OF1, exact_match as shares of 1.
    * `labels`: by name, `threshold`, `group`, `decided_by` (`threshold` or `group`), and by split
      AP, precision, recall, F1, positives, known.
    * `history`: one object per epoch.
    * `speed`: `images_per_s`, `wait`, `bottleneck` (`data` or `compute`); or null.
    * `precision_recall`: by label, `recall`, `precision`, `threshold`, thinned; `mark`, the recall
      and precision of the decisions, and `prevalence`.
    * `reliability`: `val_before` (without temperature), `val`, `test`: `edges`, `confidence`,
      `frequency`, `count`, `ece`, `brier`, and `label_ece` by label.
    * `cooccurrence`: `labels` and `counts`, (L, L).
    * `confusion`: by group, `labels` and `counts`, (G, G), the truth in rows.
    * `confused`: `truth`, `predicted`, `count`, `positives`, the most frequent first.
    * `worst`: `path`, `truth`, `predicted`, `unknown`, `scores`, the worst first.
    * `held_out`: `name` and the same values as in `metrics`; or null.
    * `audit`: name and text, in pairs; `config`; `facts`.
    """
    spec = training.spec
    document = {
        "schema": SCHEMA,
        "title": training.title,
        "side": findings.split,
        "best_epoch": training.best_epoch,
        "temperature": training.temperature,
        "metrics": {split: _summary(one) for split, one in findings.metrics.items()},
        "labels": _labels(training, findings),
        "history": [
            {name: getattr(row, name) for name in _EPOCH_COLUMNS} for row in training.history
        ],
        "speed": asdict(findings.speed) if findings.speed else None,
        "precision_recall": {name: asdict(curve) for name, curve in findings.curves.items()},
        "reliability": {
            name: {
                **asdict(diagram),
                "label_ece": dict(zip(spec.labels, diagram.label_ece.tolist(), strict=True)),
            }
            for name, diagram in findings.reliability.items()
        },
        "cooccurrence": {"labels": spec.labels, "counts": findings.cooccurrence},
        "confusion": {
            one.group: {"labels": one.labels, "counts": one.counts} for one in findings.confusions
        },
        "confused": [asdict(one) for one in findings.confused],
        "worst": [asdict(one) for one in findings.worst],
        "held_out": (
            {"name": training.held_out_name, **_summary(training.held_out)}
            if training.held_out
            else None
        ),
        "audit": [list(pair) for pair in training.audit],
        "config": dict(training.config),
        "facts": dict(training.facts),
    }
    return json.dumps(jsonable(document), indent=1, ensure_ascii=False) + "\n"


def _labels(training: Training, findings: Findings) -> dict[str, dict[str, object]]:
    spec = training.spec
    return {
        name: {
            "threshold": threshold,
            "group": findings.group_of.get(name),
            "decided_by": "group" if name in findings.by_group else "threshold",
            **{split: asdict(labels[name]) for split, labels in findings.labels.items()},
        }
        for name, threshold in zip(spec.labels, spec.thresholds, strict=True)
    }


def per_label_csv(training: Training, findings: Findings) -> str:
    """Return a CSV with a row per label and the numbers of both splits; NaN becomes empty."""
    columns = list(LabelFindings.__dataclass_fields__)
    splits = [split for split in ("val", "test") if split in findings.labels]
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    header = (f"{split}_{name}" for split in splits for name in columns)
    rows.writerow(["label", "group", "threshold", *header])
    for name, threshold in zip(training.spec.labels, training.spec.thresholds, strict=True):
        values = [getattr(findings.labels[split][name], key) for split in splits for key in columns]
        texts = (rounded(value) if math.isfinite(value) else "" for value in values)
        rows.writerow([name, findings.group_of.get(name, ""), threshold, *texts])
    return text.getvalue()


def jsonable(value: object) -> Any:
    """Return a value as JSON: arrays become lists, paths text, NaN and infinity None."""
    match value:
        case Mapping():
            return {str(key): jsonable(one) for key, one in value.items()}
        case np.ndarray() | np.generic():
            return jsonable(value.tolist())
        case bool() | int() | str() | None:
            return value
        case float():
            return rounded(value) if math.isfinite(value) else None
        case list() | tuple() | set() | frozenset():
            return [jsonable(one) for one in value]
    return str(value)


def _summary(metrics: Metrics) -> dict[str, object]:
    return {
        "images": metrics.images,
        "labels_averaged": metrics.labels_averaged,
        "absent_labels": metrics.absent,
        **metrics.summary(),
    }

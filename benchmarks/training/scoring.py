"""Score saved predictions of both systems by the same code: scikit-learn's.

    python benchmarks/training/scoring.py build/training/timm build/training/edgeml [--json FILE]

Each folder holds seed0, seed1, ... with predictions.npz in them: `val_scores`/`test_scores`
(probabilities) or `val_logits`/`test_logits`, targets and labels. Three ways to decide:

- `0.5`: one global threshold, what timm does;
- `thresholds`: edgeml's thresholds, fitted for each label on the validation split;
- `groups`: those, and the best garment of each photo, what edgeml does.

Where logits are available, a second system has their softmax over the garments as scores.

Labels that the test split lacks are excluded from the means over labels.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score

from edgeml.measure.thresholds import fit_thresholds

METRICS = ("mAP", "exact match", "macro F1", "CF1", "OF1")
DECISIONS = ("0.5", "thresholds", "groups")
UNGROUPED = "kids"

Scores = NDArray[np.float32]
Targets = NDArray[np.int8]


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Scores and targets of the validation and the test split."""

    scores: dict[str, Scores]
    targets: dict[str, Targets]
    garments: list[int]


def read(path: Path, *, softmax: bool) -> Predictions | None:
    """Read the predictions of a run; None if `softmax` is set and there are no logits."""
    scores, targets = {}, {}
    with np.load(path) as stored:
        labels = [str(label) for label in stored["labels"]]
        garments = [column for column, label in enumerate(labels) if label != UNGROUPED]
        for side in ("val", "test"):
            targets[side] = stored[f"{side}_targets"].astype(np.int8)
            if f"{side}_logits" in stored:
                logits = torch.from_numpy(stored[f"{side}_logits"])
                shares = logits.sigmoid()
                if softmax:
                    shares[:, garments] = logits[:, garments].softmax(dim=1)
                scores[side] = shares.numpy()
            elif softmax:
                return None
            else:
                scores[side] = stored[f"{side}_scores"].astype(np.float32)
    return Predictions(scores=scores, targets=targets, garments=garments)


def decide(how: str, given: Predictions) -> Targets:
    """Turn test scores into 0 or 1, by a rule that uses the validation split only."""
    test = given.scores["test"]
    if how == "0.5":
        return (test >= 0.5).astype(np.int8)
    claimed = test >= np.array(
        fit_thresholds(given.scores["val"], given.targets["val"]), np.float32
    )
    if how == "groups":
        best = test[:, given.garments].argmax(axis=1)
        claimed[:, given.garments] = best[:, None] == np.arange(len(given.garments))
    return claimed.astype(np.int8)


def score(scores: Scores, claimed: Targets, targets: Targets) -> dict[str, float]:
    """Return each metric as a share of 1."""
    there = targets.any(axis=0)
    averages = {"y_true": targets[:, there], "y_pred": claimed[:, there], "zero_division": 0}
    precision = precision_score(average="macro", **averages)
    recall = recall_score(average="macro", **averages)
    return {
        "mAP": average_precision_score(targets[:, there], scores[:, there], average="macro"),
        "exact match": float((claimed == targets).all(axis=1).mean()),
        "macro F1": f1_score(average="macro", **averages),
        "CF1": 2 * precision * recall / (precision + recall),
        "OF1": f1_score(targets, claimed, average="micro", zero_division=0),
    }


def system(folder: Path, *, softmax: bool = False) -> dict[str, list[dict[str, float]]]:
    """Score all seeds of one system, for each way to decide."""
    results: dict[str, list[dict[str, float]]] = {how: [] for how in DECISIONS}
    for path in sorted(folder.glob("seed*/predictions.npz")):
        given = read(path, softmax=softmax)
        if given is None:
            continue
        for how in DECISIONS:
            claimed = decide(how, given)
            results[how].append(score(given.scores["test"], claimed, given.targets["test"]))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = {folder.name: system(folder) for folder in options.folders}
    for folder in options.folders:
        if not found[folder.name]["0.5"]:
            raise SystemExit(f"There are no predictions in {str(folder)!r}: train it first.")
        found[f"{folder.name}, softmax"] = system(folder, softmax=True)
    found = {name: ways for name, ways in found.items() if ways["0.5"]}
    print("| system | decision | seeds | " + " | ".join(METRICS) + " |")
    print("| --- " * (len(METRICS) + 3) + "|")
    for name, ways in found.items():
        for how, seeds in ways.items():
            columns = np.array([[seed[metric] for metric in METRICS] for seed in seeds])
            spread = columns.std(axis=0, ddof=1) if len(seeds) > 1 else columns[0] * np.nan
            cells = [f"{a:.3f} ± {b:.3f}" for a, b in zip(columns.mean(0), spread, strict=True)]
            print(f"| {name} | {how} | {len(seeds)} | " + " | ".join(cells) + " |")
    if options.json:
        rounded = {
            name: {
                how: [{key: round(value, 5) for key, value in seed.items()} for seed in seeds]
                for how, seeds in ways.items()
            }
            for name, ways in found.items()
        }
        options.json.write_text(json.dumps(rounded, indent=1) + "\n")


if __name__ == "__main__":
    main()

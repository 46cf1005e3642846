"""Score saved predictions of both systems by the same code: scikit-learn's.

    python benchmarks/training/scoring.py build/training/timm build/training/edgeml [--json FILE]

Each folder holds seed0, seed1, ... with predictions.npz in them: `val_scores`/`test_scores`
(probabilities) or `val_logits`/`test_logits`, targets and labels. Three ways to decide:

- `0.5`: one global threshold, what timm does;
- `thresholds`: edgeml's thresholds, fitted for each label on the validation side;
- `groups`: those, and the best garment of each photo, what edgeml does.

Labels that the test side lacks are left out of the means over labels.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score

from edgeml.thresholds import fit_thresholds

METRICS = ("mAP", "exact match", "macro F1", "CF1", "OF1")
DECISIONS = ("0.5", "thresholds", "groups")
UNGROUPED = "kids"

Scores = NDArray[np.float32]
Targets = NDArray[np.int8]


def read(path: Path) -> tuple[dict[str, Scores], dict[str, Targets], list[str]]:
    """Give scores and targets of each side, and the labels."""
    with np.load(path) as stored:
        labels = [str(label) for label in stored["labels"]]
        scores, targets = {}, {}
        for side in ("val", "test"):
            if f"{side}_scores" in stored:
                scores[side] = stored[f"{side}_scores"].astype(np.float32)
            else:
                logits = stored[f"{side}_logits"].astype(np.float64)
                scores[side] = (1 / (1 + np.exp(-logits))).astype(np.float32)
            targets[side] = stored[f"{side}_targets"].astype(np.int8)
    return scores, targets, labels


def decide(
    how: str, scores: dict[str, Scores], targets: dict[str, Targets], labels: list[str]
) -> Targets:
    """Turn test scores into 0 or 1, by a rule that knows the validation side alone."""
    test = scores["test"]
    if how == "0.5":
        return (test >= 0.5).astype(np.int8)
    claimed = test >= np.array(fit_thresholds(scores["val"], targets["val"]), np.float32)
    if how == "groups":
        garments = [column for column, label in enumerate(labels) if label != UNGROUPED]
        best = test[:, garments].argmax(axis=1)
        claimed[:, garments] = best[:, None] == np.arange(len(garments))
    return claimed.astype(np.int8)


def score(scores: Scores, claimed: Targets, targets: Targets) -> dict[str, float]:
    """Give each metric as a share of 1."""
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


def system(folder: Path) -> dict[str, list[dict[str, float]]]:
    """Score all seeds of one system, for each way to decide."""
    results: dict[str, list[dict[str, float]]] = {how: [] for how in DECISIONS}
    for path in sorted(folder.glob("seed*/predictions.npz")):
        scores, targets, labels = read(path)
        for how in DECISIONS:
            claimed = decide(how, scores, targets, labels)
            results[how].append(score(scores["test"], claimed, targets["test"]))
    if not results["0.5"]:
        raise SystemExit(f"There are no predictions in {str(folder)!r}: train it first.")
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = {folder.name: system(folder) for folder in options.folders}
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

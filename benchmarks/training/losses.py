"""Which loss is better on real photos, and whether the difference is more than noise.

    python benchmarks/training/losses.py [--splits 10] [--json FILE]

The features of the frozen MobileNetV2 are computed once, at 160 px. On them a linear head is
trained with each loss, on several splits by sender; the split's number is the seed of the head's
order of pictures too. Each loss may choose its learning rate of three by the validation mAP. The
test split gives the numbers. Differences to bce are paired by split, and tested by the t-test
corrected for overlapping training sets (Nadeau and Bengio, "Inference for the Generalization
Error", Machine Learning 52, 2003): splits of the same photos are not independent.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from scipy import stats
from torch import Tensor, nn

from edgeml.data import Dataset, SplitPlan, read_dataset, split_dataset
from edgeml.data.split import plan_shares
from edgeml.image.preprocess import Preprocess
from edgeml.image.reading import read_image
from edgeml.measure.metrics import average_precision
from edgeml.measure.reliability import reliability
from edgeml.measure.thresholds import fit_thresholds
from edgeml.training.config import TrainConfig
from edgeml.training.losses import LabelCounts, Loss, build_loss

WEIGHTS = Path("../shared/models/mobilenetv2_100/mobilenetv2_100_same_in1k.safetensors")
SPLIT = Path("build/training/split.csv")
FEATURES = Path("build/training/features.npy")

LOSSES: dict[str, TrainConfig] = {
    "bce": TrainConfig(loss="bce"),
    "bce, pos_weight sqrt": TrainConfig(loss="bce", pos_weight="sqrt"),
    "bce, pos_weight neg/pos": TrainConfig(loss="bce", pos_weight="balanced", pos_weight_cap=1000),
    "asl 4/1/.05": TrainConfig(loss="asl"),
    "asl 2/1/0": TrainConfig(loss="asl", gamma_neg=2, asl_clip=0),
    "poly": TrainConfig(loss="poly"),
    "twoway": TrainConfig(loss="twoway"),
    "zlpr": TrainConfig(loss="zlpr"),
    "db": TrainConfig(loss="db"),
    "bce, its scores by softmax": TrainConfig(loss="bce"),
    "group softmax": TrainConfig(loss="bce", group_loss="softmax"),
}
SCORED_BY_SOFTMAX = ("bce, its scores by softmax", "group softmax")
RATES = (1e-3, 3e-3, 1e-2)
EPOCHS, BATCH, WEIGHT_DECAY = 30, 256, 0.05
COLUMNS = ("mAP", "macro F1 at .5", "macro F1 fitted", "exact match", "ECE")

Floats = NDArray[np.float32]


def features_of(dataset: Dataset, weights: Path, stored: Path) -> Floats:
    """Return the features of each image from the frozen network: (N, 1280)."""
    if stored.is_file():
        features: Floats = np.load(stored)
        return features
    model = timm.create_model("mobilenetv2_100", pad_type="same", num_classes=0).eval()
    tensors = {k: v for k, v in load_file(weights).items() if not k.startswith("classifier.")}
    model.load_state_dict(tensors)
    half = (0.5, 0.5, 0.5)
    preprocess = Preprocess(size=(160, 160), interpolation="cubic", mean=half, std=half)
    rows = []
    with torch.inference_mode():
        for first in range(0, len(dataset), 64):
            paths = dataset.paths[first : first + 64]
            frames = [preprocess.fit(read_image(path)) for path in paths]
            rows.append(model(torch.from_numpy(preprocess.normalize(frames))).numpy())
    features = np.concatenate(rows)
    np.save(stored, features)
    return features


def linear_head(
    features: Tensor, targets: Tensor, loss: Loss, counts: LabelCounts, *, lr: float, seed: int
) -> nn.Linear:
    """Train a linear head from the labels' prevalences, as edgeml does."""
    torch.manual_seed(seed)
    head = nn.Linear(features.shape[1], targets.shape[1])
    share = (counts.positives + 0.5) / (counts.known + 1.0)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.from_numpy(np.log(share / (1 - share))))
    optimizer = torch.optim.AdamW(
        [{"params": [head.weight]}, {"params": [head.bias], "weight_decay": 0.0}],
        lr=lr,
        weight_decay=WEIGHT_DECAY,
    )
    steps = EPOCHS * math.ceil(len(features) / BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(features)).split(BATCH):
            optimizer.zero_grad()
            loss(head(features[rows]), targets[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return head


def scores_of(logits: Tensor, groups: Sequence[Sequence[int]], *, softmax: bool) -> Floats:
    """Turn logits into probabilities, within groups by softmax if configured."""
    scores = logits.sigmoid()
    if softmax:
        for group in groups:
            scores[:, list(group)] = logits[:, list(group)].softmax(dim=1)
    array: Floats = scores.numpy()
    return array


def mean_ap(scores: Floats, targets: NDArray[np.int8]) -> float:
    return float(
        np.nanmean([average_precision(scores[:, i], targets[:, i]) for i in range(len(scores[0]))])
    )


def macro_f1(claimed: NDArray[np.bool_], targets: NDArray[np.int8]) -> float:
    """Average F1 over the labels that occur in the split."""
    there = targets.any(axis=0)
    hits = (claimed & (targets > 0)).sum(axis=0)
    both = claimed.sum(axis=0) + targets.sum(axis=0)
    return float((2 * hits[there] / both[there]).mean())


def measure(
    val: Floats,
    val_targets: NDArray[np.int8],
    test: Floats,
    targets: NDArray[np.int8],
    groups: Sequence[Sequence[int]],
) -> tuple[float, ...]:
    """Return the columns of the table; thresholds come from the validation split."""
    claimed = test >= np.array(fit_thresholds(val, val_targets), np.float32)
    decided = claimed.copy()
    for group in groups:
        decided[:, group] = test[:, group].argmax(axis=1)[:, None] == np.arange(len(group))
    return (
        mean_ap(test, targets),
        macro_f1(test >= 0.5, targets),
        macro_f1(claimed, targets),
        float((decided == (targets > 0)).all(axis=1).mean()),
        reliability(test, targets).ece,
    )


def one_split(features: Floats, dataset: Dataset, seed: int) -> dict[str, tuple[float, ...]]:
    """Train a head with every loss on one split."""
    divided = split_dataset(replace(dataset, split=None), SplitPlan(seed=seed, near=False))
    split = np.array(divided.split)
    train, val, test = (split == name for name in ("train", "val", "test"))
    inputs = torch.from_numpy(features)
    targets = dataset.targets
    known = np.full(targets.shape[1], train.sum())
    counts = LabelCounts(positives=targets[train].sum(axis=0, dtype=np.int64), known=known)
    groups = [[dataset.labels.index(name) for name in one.labels] for one in dataset.label_groups]
    results = {}
    for name, config in LOSSES.items():
        loss = build_loss(config, counts, groups if config.group_loss == "softmax" else ())
        best = -1.0
        for lr in RATES:
            wanted = torch.from_numpy(targets[train]).float()
            head = linear_head(inputs[train], wanted, loss, counts, lr=lr, seed=seed)
            with torch.inference_mode():
                logits = head(inputs)
            scores = scores_of(logits, groups, softmax=name in SCORED_BY_SOFTMAX)
            found = mean_ap(scores[val], targets[val])
            if found > best:
                best = found
                results[name] = measure(
                    scores[val], targets[val], scores[test], targets[test], groups
                )
    return results


def corrected_p(differences: Floats, test_to_train: float) -> float:
    """Return the p-value of the corrected resampled t-test (Nadeau and Bengio, 2003)."""
    count = len(differences)
    variance = differences.var(ddof=1) * (1 / count + test_to_train)
    t = differences.mean() / math.sqrt(variance) if variance else 0.0
    return float(2 * stats.t.sf(abs(t), count - 1))


def tell(values: dict[str, Floats], test_to_train: float) -> None:
    """Print mean and sd of each column, then the differences to bce with their p-values."""
    print("| loss | " + " | ".join(COLUMNS) + " |")
    print("| --- " * (len(COLUMNS) + 1) + "|")
    for name, rows in values.items():
        cells = [
            f"{a:.3f} ± {b:.3f}" for a, b in zip(rows.mean(0), rows.std(0, ddof=1), strict=True)
        ]
        print(f"| {name} | " + " | ".join(cells) + " |")
    print("\n| minus bce (p) | " + " | ".join(COLUMNS) + " |")
    print("| --- " * (len(COLUMNS) + 1) + "|")
    for name, rows in list(values.items())[1:]:
        differences = rows - values["bce"]
        cells = [
            f"{column.mean():+.3f} ({corrected_p(column, test_to_train):.3f})"
            for column in differences.T
        ]
        print(f"| {name} | " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=SPLIT)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    for path in (options.data, options.weights):
        if not path.is_file():
            raise SystemExit(f"There is no {str(path)!r}: see benchmarks/training/README.md.")
    dataset = read_dataset(options.data)
    features = features_of(dataset, options.weights, FEATURES)
    splits = []
    for seed in range(options.splits):
        splits.append(one_split(features, dataset, seed))
        print(f"split {seed}: bce mAP {splits[-1]['bce'][0]:.3f}", flush=True)
    values = {name: np.array([split[name] for split in splits], np.float32) for name in LOSSES}
    shares = plan_shares(SplitPlan())
    tell(values, shares["test"] / shares["train"])
    if options.json:
        splits = {name: rows.round(5).tolist() for name, rows in values.items()}
        options.json.write_text(json.dumps({"columns": COLUMNS, "splits": splits}) + "\n")


if __name__ == "__main__":
    main()

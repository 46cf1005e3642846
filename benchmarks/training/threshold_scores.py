"""Make the scores that `thresholds.py` compares thresholds on.

    python benchmarks/training/threshold_scores.py build/training/scores

Each file NAME-SEED.npz holds the scores (N, labels) of images that its network never saw, their
targets, and the columns of exclusive groups. There are

- photos: linear heads on the frozen MobileNetV2, as in `losses.py`, with four losses;
- drawn: drawn apparel; the same heads, and complete networks that `edgeml train` trains;
- digits: scikit-learn's, with 10 exclusive labels and 3 others; a perceptron, also with 1 % of the
  targets wrong, and linear heads that take one side to be nine times as important;
- odd: random numbers like the scores of a network that is sure and right, but 1 of 100 positives
  has a score of about 0.03;
- pairs: two digits in one image, with noise; a perceptron that knows 400 or 2,500 of them, and the
  same where digits 7, 8 and 9 are rare.

Networks that are trained already are kept. Two cores need about half an hour.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from losses import FEATURES, LOSSES, SPLIT, WEIGHTS, features_of, linear_head, scores_of
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from edgeml.data import Dataset, read_dataset
from edgeml.data.synth.apparel import GROUP_NAMES
from edgeml.data.synth.draw import Layout, synthesize
from edgeml.measure.evaluation import score
from edgeml.predict.predictor import Predictor
from edgeml.training.config import TrainConfig
from edgeml.training.loop import train
from edgeml.training.losses import LabelCounts, build_loss

Floats = NDArray[np.float64]
Targets = NDArray[np.int8]
Groups = Sequence[Sequence[int]]

HEADS = {
    "bce": "bce",
    "weighted": "bce, pos_weight neg/pos",
    "asl": "asl 4/1/.05",
    "softmax": "group softmax",
}
MOBILENET = TrainConfig(
    model="mobilenetv2_100",
    model_args={"pad_type": "same"},
    weights=WEIGHTS,
    size=96,
    epochs=3,
    lr=1e-3,
)
TRAINED: dict[str, tuple[Layout, TrainConfig]] = {
    "cnn": ("csv", TrainConfig(model="cnn", size=64, epochs=14)),
    "mobilenet": ("csv", MOBILENET),
    "grouped": ("folders", MOBILENET),
    "grouped softmax": ("folders", replace(MOBILENET, epochs=2, group_loss="softmax", seed=1)),
    "mobilenet asl": ("csv", replace(MOBILENET, epochs=6, loss="asl", calibrate=False, seed=1)),
}


def sigmoid(logits: Floats) -> Floats:
    return 1 / (1 + np.exp(-np.clip(logits, -30, 30)))


def heads(
    dataset: Dataset,
    features: NDArray[np.float32],
    groups: Groups,
    losses: Sequence[str],
    seed: int,
) -> Iterator[tuple[str, Floats, Targets]]:
    """Train heads on the images of 45 % of the senders, or of all images; score the others."""
    senders = np.array(dataset.groups or range(len(dataset)))
    order = np.random.default_rng(seed).permutation(np.unique(senders))
    known = np.isin(senders, order[: int(0.45 * len(order))])
    targets = np.asarray(dataset.targets)
    wanted = torch.from_numpy(targets[known]).float()
    counts = LabelCounts(
        positives=targets[known].sum(axis=0, dtype=np.int64),
        known=np.full(targets.shape[1], known.sum()),
    )
    for name in losses:
        loss = build_loss(LOSSES[HEADS[name]], counts, groups if name == "softmax" else ())
        head = linear_head(
            torch.from_numpy(features[known]), wanted, loss, counts, lr=3e-3, seed=seed
        )
        with torch.inference_mode():
            logits = head(torch.from_numpy(features[~known]))
        yield name, scores_of(logits, groups, softmax=name == "softmax"), targets[~known]


def photos(seed: int) -> Iterator[tuple[str, Floats, Targets, Groups]]:
    dataset = read_dataset(SPLIT)
    groups = [[dataset.labels.index(name) for name in one.labels] for one in dataset.label_groups]
    features = features_of(dataset, WEIGHTS, FEATURES)
    for name, scores, targets in heads(dataset, features, groups, list(HEADS), seed):
        yield f"photos {name}", scores, targets, groups


def drawn(folder: Path, layout: Layout) -> Dataset:
    """Draw 4,320 images, unless they are there; as csv, a third of them has two garments."""
    if not folder.is_dir():
        synthesize(folder, images=4320, size=96, seed=1 if layout == "csv" else 2, layout=layout)
    if layout == "csv":
        return read_dataset(folder / "labels.csv")
    return read_dataset(folder, group_names=GROUP_NAMES)


def drawn_heads(dataset: Dataset, seed: int) -> Iterator[tuple[str, Floats, Targets, Groups]]:
    features = features_of(dataset, WEIGHTS, FEATURES.with_name("drawn.npy"))
    for name, scores, targets in heads(dataset, features, (), ["bce", "weighted"], seed):
        yield f"drawn {name}", scores, targets, ()


def drawn_network(
    dataset: Dataset, config: TrainConfig, out: Path
) -> tuple[Floats, Targets, Groups]:
    """Train on 1,440 drawn images, choose the epoch by 300, and score the others."""
    order = np.random.default_rng(config.seed).permutation(len(dataset))
    sides = np.full(len(dataset), "test", dtype=object)
    sides[order[:1440]], sides[order[1440:1740]] = "train", "val"
    dataset = replace(dataset, split=tuple(sides))
    groups = train(dataset, config, out, overwrite=True).spec.exclusive_groups
    test = dataset.part("test")
    with Predictor(out) as predictor:
        return score(predictor, test), test.targets, groups


def perceptron(inputs: Floats, targets: Targets, rounds: int, seed: int) -> MLPClassifier:
    model = MLPClassifier((64,), max_iter=rounds, random_state=seed, learning_rate_init=3e-3)
    return model.fit(inputs, targets)


def digits(seed: int) -> Iterator[tuple[str, Floats, Targets, Groups]]:
    """Learn from 500 digits which they are, and whether even, prime or above 4."""
    images, numbers = load_digits(return_X_y=True)
    images, rng = images / 16, np.random.default_rng(seed)
    order = rng.permutation(len(images))
    known, others = order[:500], order[500:]
    kinds = [numbers == digit for digit in range(10)]
    kinds += [numbers % 2 == 0, np.isin(numbers, (2, 3, 5, 7)), numbers > 4]
    targets = np.stack(kinds, axis=1).astype(np.int8)
    groups = [list(range(10))]
    for name, share in (("digits", 0.0), ("digits 1 % wrong", 0.01)):
        noisy = np.where(rng.random(targets.shape) < share, 1 - targets, targets)
        model = perceptron(images[known], noisy[known], 60, seed)
        yield name, model.predict_proba(images[others]), noisy[others], groups
    for name, weights in (("digits eager", {0: 1, 1: 9}), ("digits shy", {0: 9, 1: 1})):
        linear = LogisticRegression(C=0.1, class_weight=weights, max_iter=200)
        logits = [
            linear.fit(images[known], one[known]).decision_function(images[others])
            for one in targets.T
        ]
        yield name, sigmoid(np.stack(logits, axis=1)), targets[others], groups


def pairs(seed: int) -> Iterator[tuple[str, Floats, Targets, Groups]]:
    images, numbers = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(images))

    def joined(rows: NDArray[np.intp], count: int) -> tuple[Floats, Targets]:
        sides = rng.choice(rows, (2, count))
        inputs = np.concatenate([images[side] / 16 for side in sides], axis=1)
        targets = np.zeros((count, 10), np.int8)
        for side in sides:
            targets[np.arange(count), numbers[side]] = 1
        return inputs + rng.normal(0, 0.15, inputs.shape), targets

    for count in (400, 2500):
        model = perceptron(*joined(order[:900], count), 80, seed)
        inputs, targets = joined(order[900:], 2500)
        scores = model.predict_proba(inputs)
        yield f"pairs {count}", scores, targets, ()
        share = np.array([1.0] * 7 + [0.3, 0.15, 0.06])
        kept = ((targets == 0) | (rng.random(targets.shape) < share)).all(axis=1)
        yield f"pairs {count} rare", scores[kept], targets[kept], ()


def odd(seed: int) -> Iterator[tuple[str, Floats, Targets, Groups]]:
    rng, groups = np.random.default_rng(seed), [[0, 1, 2], [3, 4, 5, 6]]
    targets = np.zeros((2000, 7), np.int8)
    for group in groups:
        targets[np.arange(2000), rng.choice(group, 2000)] = 1
    logits = rng.normal(np.where(targets > 0, 6, -7), 1.5)
    strange = (targets > 0) & (rng.random(targets.shape) < 0.01)
    yield (
        "odd",
        sigmoid(np.where(strange, rng.normal(-3.5, 1, targets.shape), logits)),
        targets,
        groups,
    )


def save(path: Path, scores: Floats, targets: Targets, groups: Groups) -> None:
    members = np.zeros((len(groups), targets.shape[1]), bool)
    for row, columns in zip(members, groups, strict=True):
        row[list(columns)] = True
    np.savez_compressed(path, scores=scores.astype(np.float32), targets=targets, groups=members)
    print(path.name, scores.shape, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=4)
    options = parser.parse_args()
    for path in (SPLIT, WEIGHTS):
        if not path.is_file():
            raise SystemExit(f"There is no {str(path)!r}: see benchmarks/training/README.md.")
    options.out.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore", ConvergenceWarning)
    apparel = {layout: drawn(options.out / layout, layout) for layout in get_args(Layout)}
    for seed in range(options.seeds):
        for made in (
            odd(seed), digits(seed), pairs(seed), photos(seed), drawn_heads(apparel["csv"], seed),
        ):  # fmt: skip
            for name, *rest in made:
                save(options.out / f"{name}-{seed}.npz", *rest)
    for name, (layout, config) in TRAINED.items():
        path = options.out / f"drawn {name}-0.npz"
        if not path.is_file():
            save(path, *drawn_network(apparel[layout], config, options.out / "runs" / name))


if __name__ == "__main__":
    main()

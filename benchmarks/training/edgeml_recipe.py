"""Find edgeml's recipe on the validation split, then train it with several seeds.

    python benchmarks/training/edgeml_recipe.py [--epochs 5] [--search-epochs 3]

The search gets a table without the rows of the test split, so that nothing can be chosen by them.
The runs that follow are plain `edgeml train`, as in the README, and read the test split once each.
Runs are concurrent, each on one thread, like those of timm.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from timm_recipe import ENVIRONMENT

SPLIT = Path("build/training/split.csv")
WEIGHTS = Path("../shared/models/mobilenetv2_100/mobilenetv2_100_same_in1k.safetensors")
BASE = (
    *("--model", "mobilenetv2_100", "--model-args", "pad_type=same", "--weights", str(WEIGHTS)),
    *("--size", "160", "--batch", "32", "--head-epochs", "1"),
)
SOFTMAX = ("--group-loss", "softmax")
TRIED = {
    "softmax-lr1e-3": (*SOFTMAX, "--lr", "1e-3"),
    "softmax-lr5e-4": (*SOFTMAX, "--lr", "5e-4"),
    "softmax-lr3e-3": (*SOFTMAX, "--lr", "3e-3"),
    "softmax-lr1e-3-decay.8": (*SOFTMAX, "--lr", "1e-3", "--layer-decay", "0.8"),
    "bce-lr3e-3": ("--lr", "3e-3"),
}
JOBS = 3
CALL = "from edgeml.cli import main; main()"


def train(data: Path, out: Path, *options: str) -> float:
    """Run `edgeml train` unless the run is complete; return the best validation mAP."""
    if not (out / "report.html").is_file():
        command = ("train", str(data), "--out", str(out), "--overwrite", *BASE, *options)
        print("edgeml", *command, flush=True)
        subprocess.run(
            [sys.executable, "-c", CALL, *command],
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, **ENVIRONMENT},
        )
    with (out / "history.csv").open() as file:
        best = max(float(row["mAP"]) for row in csv.DictReader(file))
    print(out.name, "val mAP", best, flush=True)
    return best


def without_test(split: Path, out: Path) -> Path:
    """Write the table without the rows of the test split."""
    with split.open(newline="") as file:
        rows = list(csv.reader(file))
    column = rows[0].index("split")
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="") as file:
        csv.writer(file).writerows(row for row in rows if row[column] != "test")
    return out


def save_predictions(run: Path, split: Path) -> None:
    """Write the predictions of the best model on both splits, for scoring.py."""
    from edgeml.data import read_dataset
    from edgeml.data.frames import Frames
    from edgeml.image.reading import read_image
    from edgeml.network.checkpoint import load_checkpoint
    from edgeml.spec.decide import probabilities
    from edgeml.training.splits import predict_logits

    model, spec = load_checkpoint(run)
    dataset = read_dataset(split)
    arrays: dict[str, np.ndarray] = {"labels": np.array(spec.labels)}
    for name in ("val", "test"):
        split_data = dataset.part(name)
        stored = np.stack([spec.preprocess.fit(read_image(path)) for path in split_data.paths])
        frames = Frames(stored, np.arange(len(stored)))
        logits = predict_logits(model, frames, spec.preprocess)
        arrays[f"{name}_scores"] = probabilities(np.asarray(logits, np.float32), spec)
        arrays[f"{name}_targets"] = split_data.targets
    np.savez(run / "predictions.npz", thresholds=np.array(spec.thresholds), **arrays)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--split", type=Path, default=SPLIT)
    parser.add_argument("--out", type=Path, default=Path("build/training/edgeml"))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--search-epochs", type=int, default=3)
    parser.add_argument("--only", choices=("search", "seeds"))
    parser.add_argument("--recipe", choices=tuple(TRIED), help="instead of searching")
    options = parser.parse_args()
    for path in (options.split, WEIGHTS):
        if not path.is_file():
            raise SystemExit(f"There is no {str(path)!r}: see benchmarks/training/README.md.")
    recipe = options.recipe
    with ThreadPoolExecutor(JOBS) as pool:
        if recipe is None:
            known = without_test(options.split, options.out / "without_test.csv")
            epochs = str(options.search_epochs)
            found = list(
                pool.map(
                    lambda name: train(
                        known, options.out / f"search-{name}", *TRIED[name], "--epochs", epochs
                    ),
                    TRIED,
                )
            )
            recipe = max(zip(found, TRIED, strict=True))[1]
            print(json.dumps(dict(zip(TRIED, found, strict=True))), "chosen:", recipe, flush=True)
        if options.only == "search":
            return
        runs = [options.out / f"seed{seed}" for seed in range(options.seeds)]
        tasks = [
            pool.submit(
                train,
                options.split,
                run,
                *(*TRIED[recipe], "--epochs", str(options.epochs), "--seed", str(seed)),
            )
            for seed, run in enumerate(runs)
        ]
        for task in tasks:
            task.result()
    for run in runs:
        save_predictions(run, options.split)


if __name__ == "__main__":
    main()

"""Compare ways to choose thresholds, on images that they were not chosen by.

    python benchmarks/training/threshold_scores.py build/training/scores
    python benchmarks/training/thresholds.py build/training/scores [--json FILE]

For each file of scores, 50, 150 and 500 images are drawn as a validation split, several times; the
others are the test. Four ways: 0.5 for every label; the one threshold that has the best F1 of all
decisions; each label's cut with the best F1, moved towards that one where there are fewer than 20
positives, as edgeml did before; and `fit_thresholds`.

Sets in which labels exclude each other are decided without groups, and with them, as edgeml does,
unless groups decide all. Some come again with the logits of each label shifted by -4, -2, 0 or 2,
as class weights do. Differences are paired by split; a star means twice the standard error.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from losses import Floats, macro_f1, mean_ap
from numpy.typing import NDArray

from edgeml.measure.thresholds import fit_thresholds

Targets = NDArray[np.int8]
Thresholds = NDArray[np.float32]

SIZES = (50, 150, 500)
FEW = 20
SHIFTED = ("digits", "photos bce", "drawn mobilenet")
METRICS = ("macro F1", "exact match")


def best_cut(scores: Floats, targets: Targets) -> float:
    """Return the middle of the gap below the scores with the best F1."""
    order = np.argsort(-scores, kind="stable")
    falling, hits = scores[order], np.cumsum(targets[order] > 0)
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + hits[-1])
    below = np.append(falling[1:], 0)
    best = np.where(below < falling, f1, -1).argmax()
    return float((falling[best] + below[best]) / 2)


def halves(scores: Floats, targets: Targets) -> Thresholds:
    return np.full(scores.shape[1], 0.5, np.float32)


def one_for_all(scores: Floats, targets: Targets) -> Thresholds:
    return np.full(scores.shape[1], best_cut(scores.ravel(), targets.ravel()), np.float32)


def before(scores: Floats, targets: Targets) -> Thresholds:
    shared = one_for_all(scores, targets)
    trust = np.minimum(1, (targets > 0).sum(axis=0) / FEW)
    own = [best_cut(*column) for column in zip(scores.T, targets.T, strict=True)]
    return np.asarray(trust * own + (1 - trust) * shared, np.float32)


def fitted(scores: Floats, targets: Targets) -> Thresholds:
    return np.array(fit_thresholds(scores, targets), np.float32)


WAYS: dict[str, Callable[[Floats, Targets], Thresholds]] = {
    "0.5": halves,
    "global": one_for_all,
    "before": before,
    "fitted": fitted,
}


def shifted(scores: Floats, seed: int) -> Floats:
    by = np.random.default_rng(seed).choice([-4, -2, 0, 2], scores.shape[1])
    odds = np.clip(scores, 1e-7, 1 - 1e-7).astype(np.float64)
    moved: Floats = (1 / (1 + (1 / odds - 1) * np.exp(-by))).astype(np.float32)
    return moved


def sets(folder: Path) -> Iterator[tuple[str, Floats, Targets, NDArray[np.bool_]]]:
    """Read each file; yield it with and without groups, and shifted."""
    for path in sorted(folder.glob("*.npz")):
        name, seed = path.stem.rsplit("-", 1)
        with np.load(path) as stored:
            scores, targets, groups = stored["scores"], stored["targets"], stored["groups"]
        none = groups[:0]
        if len(groups) and not groups.any(axis=0).all():
            yield f"{name}, groups", scores, targets, groups
        yield name, scores, targets, none
        if name in SHIFTED:
            yield f"{name}, shifted", shifted(scores, int(seed)), targets, none


def measure(
    scores: Floats, targets: Targets, groups: NDArray[np.bool_], images: int, split: int
) -> list[tuple[float, ...]]:
    """Return the metrics, in percent, of each way on one split."""
    order = np.random.default_rng([split, images]).permutation(len(scores))
    val, test = order[:images], order[images:]
    rows = []
    for way in WAYS.values():
        claimed = scores[test] >= way(scores[val], targets[val])
        for group in groups:
            best = scores[test][:, group].argmax(axis=1)
            claimed[:, group] = best[:, None] == np.arange(group.sum())
        exact = (claimed == (targets[test] > 0)).all(axis=1).mean()
        rows.append((100 * macro_f1(claimed, targets[test]), 100 * float(exact)))
    return rows


def differences(values: Floats) -> tuple[Floats, Floats]:
    """Return fitted minus each other way, and the standard errors, of values (splits, ways)."""
    paired = values[:, -1:] - values[:, :-1]
    return paired.mean(axis=0), paired.std(axis=0, ddof=1) / np.sqrt(len(paired))


def tell(results: dict[str, dict[int, Floats]], precisions: dict[str, float]) -> None:
    """Print a table for each metric, and how often `fitted` is better and worse."""
    *others, last = WAYS
    for column, metric in enumerate(METRICS):
        print(f"\n{metric}: {last} (minus {', '.join(others)})\n")
        print("| scores | mAP | " + " | ".join(f"{n} images" for n in SIZES) + " |")
        print("| --- " * (len(SIZES) + 2) + "|")
        better = np.zeros((len(SIZES), len(others), 2), int)
        for name, sizes in results.items():
            cells = []
            for row, values in enumerate(sizes.values()):
                means, errors = differences(values[:, :, column])
                clear = np.abs(means) > 2 * errors
                better[row] += np.stack([clear & (means > 0), clear & (means < 0)], axis=1)
                texts = [f"{m:+.1f}{'*' if c else ''}" for m, c in zip(means, clear, strict=True)]
                cells.append(f"{values[:, -1, column].mean():.1f} ({', '.join(texts)})")
            print(f"| {name} | {precisions[name]:.3f} | {' | '.join(cells)} |")
        for n, counts in zip(SIZES, better.tolist(), strict=True):
            texts = [
                f"{way}: {above} better, {below} worse"
                for way, (above, below) in zip(others, counts, strict=True)
            ]
            print(f"{n} images, of {len(results)}, " + "; ".join(texts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scores", type=Path)
    parser.add_argument("--splits", type=int, default=5, help="for each file and size")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: dict[str, dict[int, list[list[tuple[float, ...]]]]] = defaultdict(dict)
    found: dict[str, list[float]] = defaultdict(list)
    for name, *given in sets(options.scores):
        found[name].append(mean_ap(*given[:2]))
        for images in SIZES:
            some = rows[name].setdefault(images, [])
            some += [measure(*given, images, split) for split in range(options.splits)]
    if not rows:
        raise SystemExit(f"There are no scores in {str(options.scores)!r}: make them first.")
    results = {name: {n: np.array(r) for n, r in sizes.items()} for name, sizes in rows.items()}
    precisions = {name: float(np.mean(values)) for name, values in found.items()}
    tell(results, precisions)
    if options.json:
        stored = {
            name: {
                "mAP": round(precisions[name], 4),
                **{
                    metric: {
                        n: {
                            "means": values[:, :, column].mean(axis=0).round(2).tolist(),
                            "errors": differences(values[:, :, column])[1].round(2).tolist(),
                        }
                        for n, values in sizes.items()
                    }
                    for column, metric in enumerate(METRICS)
                },
            }
            for name, sizes in results.items()
        }
        options.json.write_text(json.dumps({"ways": list(WAYS), "sets": stored}) + "\n")


if __name__ == "__main__":
    main()

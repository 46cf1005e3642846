"""Find timm's recipe on the validation split, then train it with several seeds.

    python benchmarks/training/timm_recipe.py [--epochs 5] [--search-epochs 3]

One run each of three learning rates. Two more trials start from the best of them: a higher rate,
and timm's own crop scale instead of the milder one; a trial whose first epoch is behind that of the
best run ends there. Of the best run, the best way to crop validation pictures. Judged by validation
mAP alone. The runs that follow read the test side once each, at their end. Runs go side by
side, each on one thread: on few cores that takes less time than one after the other on all.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ADAPTER = Path(__file__).with_name("timm_multilabel.py")
RATES, HIGHER = ("1e-3", "3e-3", "3e-4"), "1e-2"
MILD, DEFAULT = ("0.6", "1"), ("0.08", "1")
JOBS = 3

# glibc gives large blocks back to the system at once; taking them again costs a quarter of a step.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 33),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


def run(out: Path, *options: str) -> dict[str, Any]:
    """Run the adapter, unless its result exists; return its summary."""
    summary = out / "summary.json"
    if not summary.is_file():
        print(out.name, " ".join(options), flush=True)
        subprocess.run(
            [sys.executable, str(ADAPTER), "--out", str(out), "--workers", "1", *options],
            check=True,
            env={**os.environ, **ENVIRONMENT},
        )
    result: dict[str, Any] = json.loads(summary.read_text())
    return result


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A learning rate and a crop scale; what they reached, and in which crop."""

    rate: str
    scale: tuple[str, str]
    first: float
    best: float
    crop: str


def tried(out: Path, rate: str, scale: tuple[str, str], *epochs: str) -> Trial:
    """Train without the test split; `epochs` are options that say how long."""
    name = f"search-lr{rate}-scale{scale[0]}" + "-first" * ("--stop-epoch" in epochs)
    found = run(out / name, *("--lr", rate, "--scale", *scale, "--all-crops"), *epochs)
    crops = found["crops_val_map"]
    crop = max(crops, key=crops.__getitem__)
    first = found["history"][0]["map"]
    return Trial(rate=rate, scale=scale, first=first, best=crops[crop], crop=crop)


def search(out: Path, epochs: int, pool: ThreadPoolExecutor) -> Trial:
    """Find the recipe that is best on the validation split."""
    length = ("--epochs", str(epochs))
    best = max(
        pool.map(lambda rate: tried(out, rate, MILD, *length), RATES), key=lambda trial: trial.best
    )
    for rate, scale in ((HIGHER, MILD), (best.rate, DEFAULT)):
        if tried(out, rate, scale, *length, "--stop-epoch", "1").first > best.first:
            best = max(best, tried(out, rate, scale, *length), key=lambda trial: trial.best)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/training/timm"))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--search-epochs", type=int, default=3)
    options = parser.parse_args()
    with ThreadPoolExecutor(JOBS) as pool:
        best = search(options.out, options.search_epochs, pool)
        chosen = ("--lr", best.rate, "--scale", *best.scale, "--eval-crop", best.crop, "--test")
        print("chosen:", *chosen, flush=True)
        seeded = [
            pool.submit(
                run,
                options.out / f"seed{seed}",
                *(*chosen, "--epochs", str(options.epochs), "--seed", str(seed)),
            )
            for seed in range(options.seeds)
        ]
        for future in seeded:
            future.result()


if __name__ == "__main__":
    main()

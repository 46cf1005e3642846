"""How fast images become training batches: edgeml's cache and augmentation against timm's loader.

    python benchmarks/training/loader.py [--rounds 5] [--json FILE]

Both deliver all batches of one epoch of the same photos, normalised float32, to a consumer that
does nothing with them. They take turns, an epoch each, in one process, the order reversed every
round; timm's worker processes live through all rounds. Wall clocks of a shared machine measure the
neighbours as well, so the CPU time of this process and its workers stands beside them.

timm: `create_loader` with its own training transform (Pillow decodes; random resized crop, flip,
colour jitter .4), as its train.py calls it. edgeml: frames from the cache, `colour_safe`.

With --model, what takes turns is training: the same steps of AdamW on the same network, fed by
either. How much of the loaders' difference is left then depends on what the network costs.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import psutil
import torch
from timm.data.loader import create_loader
from timm_multilabel import SPLIT, dataset_of
from torch import Tensor
from torch.nn import functional

from edgeml.data import Dataset, read_dataset
from edgeml.data.frames import Frames, decoded_frames
from edgeml.image.memory import kept_memory
from edgeml.image.preprocess import Preprocess
from edgeml.network.model import build_model
from edgeml.training import augment
from edgeml.training.augment import Prefetcher
from edgeml.training.config import Augment

BATCH = 32
THREADS = 2
HALF = (0.5, 0.5, 0.5)

Consumer = Callable[[Tensor, Tensor], object]
"""A function that consumes a batch of images and targets."""

Epoch = Callable[[int], None]
"""A function that delivers the epoch with this number."""


@dataclass(frozen=True)
class Taken:
    """The duration of an epoch, in seconds."""

    wall: float
    cpu: float


def timm_epoch(
    side: Dataset, preprocess: Preprocess, consume: Consumer, *, workers: int, augmented: bool
) -> Epoch:
    """Return an epoch of timm's loader, built as in its train.py."""
    loader = create_loader(
        dataset_of(side),
        input_size=(3, *preprocess.size),
        batch_size=BATCH,
        is_training=True,
        no_aug=not augmented,
        interpolation="random" if augmented else "bicubic",
        mean=preprocess.mean,
        std=preprocess.std,
        num_workers=workers,
        device=torch.device("cpu"),
    )

    def epoch(number: int) -> None:
        for pictures, targets in loader:
            consume(pictures, targets)

    return epoch


def edgeml_epoch(
    frames: Frames, side: Dataset, preprocess: Preprocess, consume: Consumer, *, augmented: bool
) -> Epoch:
    """Return an epoch of batches as edgeml's training loop makes them."""
    preset: Augment = "colour_safe" if augmented else "none"

    def epoch(number: int) -> None:
        order = augment.order(len(side), seed=0, epoch=number)

        def make(index: int) -> tuple[Tensor, Tensor]:
            rows = order[index * BATCH : (index + 1) * BATCH]
            pictures = augment.training_batch(
                frames[rows], rows, preprocess, preset, seed=0, epoch=number
            )
            return (
                torch.from_numpy(pictures).contiguous(memory_format=torch.channels_last),
                torch.from_numpy(side.targets[rows]).float(),
            )

        for pictures, targets in Prefetcher(make, 0, len(side) // BATCH, workers=THREADS):
            consume(pictures, targets)

    return epoch


def trainer(name: str, labels: int) -> Consumer:
    """Return a training step, the same for both loaders."""
    args = {} if name == "cnn" else {"pad_type": "same"}
    model = build_model(name, labels=labels, args=args).train()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step(pictures: Tensor, targets: Tensor) -> None:
        logits = model(pictures.contiguous(memory_format=torch.channels_last))
        loss = functional.binary_cross_entropy_with_logits(logits, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def cpu_seconds() -> float:
    """Return the CPU time of this process and its children so far."""
    here = psutil.Process()
    times = [one.cpu_times() for one in (here, *here.children(recursive=True))]
    return float(sum(one.user + one.system for one in times))


def measure(epoch: Epoch, number: int) -> Taken:
    cpu, wall = cpu_seconds(), time.perf_counter()
    epoch(number)
    return Taken(wall=time.perf_counter() - wall, cpu=cpu_seconds() - cpu)


def take_turns(ways: dict[str, Epoch], rounds: int) -> dict[str, list[Taken]]:
    """Measure every way once a round, after a round that does not count."""
    taken: dict[str, list[Taken]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        names = list(ways) if number % 2 else list(reversed(ways))
        for name in names:
            result = measure(ways[name], number)
            if number:
                taken[name].append(result)
            print(f"round {number} {name}: {result.wall:.2f} s, CPU {result.cpu:.2f} s", flush=True)
    return taken


def print_speeds(taken: dict[str, list[Taken]], pictures: int, baseline: str) -> None:
    """Print images per second, and each way's speed as a multiple of a baseline, round by round."""
    print(f"\n| loader | img/s | CPU ms an image | times {baseline}: wall | times it: CPU |")
    print("| --- " * 5 + "|")
    for name, rows in taken.items():
        wall = [b.wall / a.wall for a, b in zip(rows, taken[baseline], strict=True)]
        cpu = [b.cpu / a.cpu for a, b in zip(rows, taken[baseline], strict=True)]
        speed = pictures / np.median([row.wall for row in rows])
        cost = 1000 * np.median([row.cpu for row in rows]) / pictures
        print(f"| {name} | {speed:.0f} | {cost:.2f} | {spread(wall)} | {spread(cpu)} |")


def spread(values: list[float]) -> str:
    return f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def cached_frames(stack: ExitStack, side: Dataset, plain: Preprocess) -> tuple[Frames, Frames]:
    """Fill a cache and open it again; return frames for augmentation, and plain ones."""
    oversize = math.ceil(augment.OVERSIZE * plain.size[0])
    larger = replace(plain, size=(oversize, oversize))
    cache = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    sides, hashes = [(side.paths, larger), (side.paths, plain)], side.hashes()
    for what in ("filled", "opened again"):
        began = time.perf_counter()
        frames = stack.enter_context(
            decoded_frames(
                sides,
                threads=THREADS,
                advance=lambda _: None,
                cache=cache,
                hashes=[hashes, hashes],
            )
        )
        print(f"the cache is {what}: {time.perf_counter() - began:.2f} s, {2 * len(side)} frames")
    return frames[0], frames[1]


def ways_of(
    side: Dataset,
    plain: Preprocess,
    frames: tuple[Frames, Frames],
    consume: Consumer,
    *,
    all_: bool,
) -> dict[str, Epoch]:
    """Return the epochs to compare by name: timm with each number of workers, and edgeml."""
    ways: dict[str, Epoch] = {}
    for augmented, mine in zip((True, False), frames, strict=True):
        if not (augmented or all_):
            continue
        variant = "augmented" if augmented else "plain"
        for workers in (2, 1, 0) if all_ else (2,):
            ways[f"timm, {workers} workers, {variant}"] = timm_epoch(
                side, plain, consume, workers=workers, augmented=augmented
            )
        ways[f"edgeml, {THREADS} threads, {variant}"] = edgeml_epoch(
            mine, side, plain, consume, augmented=augmented
        )
    return ways


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--split", type=Path, default=SPLIT)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pictures", type=int, help="take only the first so many")
    parser.add_argument("--model", help="train this network in both: cnn, mobilenetv2_100")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not options.split.is_file():
        raise SystemExit(f"There is no {str(options.split)!r}: run make_split.py first.")
    cv2.setNumThreads(1)  # as the training loop does
    if not options.model:
        torch.set_num_threads(1)  # threads that wait for each other would be counted as work
    side = read_dataset(options.split).part("train")
    side = side.select(np.arange(len(side))[: options.pictures])
    size = (options.size, options.size)
    plain = Preprocess(size=size, interpolation="cubic", mean=HALF, std=HALF)
    consume: Consumer = lambda pictures, targets: None  # noqa: E731
    if options.model:
        consume = trainer(options.model, len(side.labels))
    with ExitStack() as stack, kept_memory():
        frames = cached_frames(stack, side, plain)
        ways = ways_of(side, plain, frames, consume, all_=not options.model)
        taken = take_turns(ways, options.rounds)
    pictures = len(side) // BATCH * BATCH
    for variant in ("augmented", "plain"):
        rows = {name: row for name, row in taken.items() if name.endswith(variant)}
        if rows:
            print_speeds(rows, pictures, f"timm, 2 workers, {variant}")
    if options.json:
        raw = {name: [[row.wall, row.cpu] for row in rows] for name, rows in taken.items()}
        options.json.write_text(json.dumps({"pictures": pictures, "wall_cpu_s": raw}) + "\n")


if __name__ == "__main__":
    main()

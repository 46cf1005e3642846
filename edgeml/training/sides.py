"""The sides of a split data set as frames in memory, and what a model says of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeml.data.frames import Frames, decoded_frames
from edgeml.data.framestore import default_cache
from edgeml.image.preprocess import Preprocess
from edgeml.progress import Progress
from edgeml.spec.labels import UNKNOWN, Targets
from edgeml.training import augment
from edgeml.training.config import TrainConfig
from edgeml.training.parts import Parts

_EVAL_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Side:
    """Frames (N, H, W, 3) uint8 BGR, targets (N, L) of 1, 0 and -1, and where they come from."""

    frames: Frames
    targets: Targets
    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.targets)

    def float_targets(self, rows: NDArray[np.int64] | slice = slice(None)) -> Tensor:
        """Give targets as losses want them: (n, L) float32, NaN where unknown."""
        targets = self.targets[rows]
        return torch.from_numpy(np.where(targets == UNKNOWN, np.float32(np.nan), targets)).float()


@contextmanager
def decoded_sides(
    parts: Parts, preprocess: Preprocess, config: TrainConfig, progress: Progress
) -> Iterator[dict[str, Side]]:
    """Decode all pictures before the first step, so that a bad one is told at once.

    Raises:
        DataError: Pictures cannot be read; names them.
        InputError: There is no room for the frames.
    """
    larger = preprocess
    if config.augment != "none":
        height, width = (math.ceil(augment.OVERSIZE * side) for side in preprocess.size)
        larger = replace(preprocess, size=(height, width))
    named = {"train": parts.train, "val": parts.val, "test": parts.test}
    fits = [(part.paths, larger if name == "train" else preprocess) for name, part in named.items()]
    with ExitStack() as stack:
        with progress.task("decode", total=sum(len(part) for part in named.values())) as advance:
            frames = stack.enter_context(
                decoded_frames(
                    fits,
                    threads=config.workers,
                    advance=advance,
                    cache=default_cache() if config.cache else None,
                    hashes=[part.hashes() for part in named.values()],
                )
            )
        yield {
            name: Side(frames=stored, targets=part.targets, paths=part.paths)
            for (name, part), stored in zip(named.items(), frames, strict=True)
        }


def predict_logits(model: nn.Module, frames: Frames, preprocess: Preprocess) -> Tensor:
    """Run a model in evaluation mode over frames (N, *size, 3) uint8; give (N, L) float32."""
    device = next(model.parameters()).device
    logits = []
    with torch.inference_mode():
        for first in range(0, len(frames), _EVAL_BATCH):
            batch = preprocess.normalize(list(frames[first : first + _EVAL_BATCH]))
            pictures = torch.from_numpy(batch).to(device, memory_format=torch.channels_last)
            logits.append(model(pictures).float().cpu())
    return torch.cat(logits)

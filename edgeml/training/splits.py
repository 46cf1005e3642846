"""The splits of a data set: what a run learns from, chooses by and is measured on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeml.data import Dataset, report_skipped, split_dataset
from edgeml.data.exclusive import with_group
from edgeml.data.frames import Frames, decoded_frames
from edgeml.data.framestore import cache_or_none
from edgeml.data.screen import without_unreadable
from edgeml.errors import DataError
from edgeml.image.preprocess import Preprocess
from edgeml.progress import Progress
from edgeml.spec.labels import UNKNOWN, LabelGroup, Targets
from edgeml.spec.model_spec import quoted_names
from edgeml.training import augment
from edgeml.training.config import TrainConfig

_EVAL_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Splits:
    """A data set and its three splits; `test` may be empty.

    Attributes:
        planned: Whether the split plan of the configuration produced, or would produce, them.
    """

    dataset: Dataset
    train: Dataset
    val: Dataset
    test: Dataset
    planned: bool


@dataclass(frozen=True, kw_only=True)
class SplitFrames:
    """One split in memory.

    Attributes:
        frames: (N, H, W, 3) uint8 BGR.
        targets: (N, L): 1 present, 0 absent, -1 unknown.
        paths: The N image files.
    """

    frames: Frames
    targets: Targets
    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.targets)

    def float_targets(self, rows: NDArray[np.int64] | slice = slice(None)) -> Tensor:
        """Return targets in the form that losses expect: (n, L) float32, NaN where unknown."""
        targets = self.targets[rows]
        return torch.from_numpy(np.where(targets == UNKNOWN, np.float32(np.nan), targets)).float()


def prepare_splits(dataset: Dataset, config: TrainConfig, progress: Progress) -> Splits:
    """Check that all images can be read, apply the groups, and split the data set.

    Raises:
        DataError: Unreadable images, fewer than two labels, groups that contradict the data, or
            no images to train or to validate on.
    """
    if len(dataset.labels) < 2:
        raise DataError(
            f"There is only one label, {', '.join(dataset.labels)!r}; training needs at least two."
        )
    cache = cache_or_none() if config.cache else None
    dataset = without_unreadable(
        dataset, skip_bad=config.skip_bad, threads=config.workers, cache=cache, progress=progress
    )
    report_skipped(dataset, progress)
    if config.groups == {}:
        dataset = with_group(dataset, progress)
    else:
        dataset = replace(dataset, label_groups=_label_groups(config.groups or {}, dataset))
    divide = partial(split_dataset, plan=config.plan, threads=config.workers, cache=cache)
    planned = dataset.split is None or _follows(dataset, divide)
    dataset = divide(dataset, progress=progress)
    splits = Splits(
        dataset=dataset,
        train=dataset.part("train"),
        val=dataset.part("val"),
        test=dataset.part("test"),
        planned=planned,
    )
    if len(splits.train) < 2 or not splits.val.present.any():
        raise DataError(
            f"{len(splits.train)} of {len(dataset)} images are for training and "
            f"{len(splits.val)} for validation, which is too few. Add images, or change the split."
        )
    _warn_absent(splits.train, "training images: it cannot be learned", progress)
    _warn_absent(
        splits.val, "validation images: its threshold follows from the other labels", progress
    )
    return splits


def _follows(dataset: Dataset, divide: Callable[[Dataset], Dataset]) -> bool:
    """Return whether the plan would produce the split that the data set already has."""
    try:
        return divide(replace(dataset, split=None)).split == dataset.split
    except DataError:
        return False


def _label_groups(named: Mapping[str, tuple[str, ...]], dataset: Dataset) -> tuple[LabelGroup, ...]:
    """Return groups of which exactly one label is present, after checking them on the data."""
    used: list[str] = []
    for name, labels in named.items():
        used += labels
        fault = None
        for label in labels:
            if label not in dataset.labels:
                fault = f"the data have no label {label!r}, only {quoted_names(dataset.labels)}"
            elif used.count(label) > 1:
                fault = f"{label!r} is in it twice, or in another group as well"
        if len(labels) < 2:
            fault = "a group needs at least two labels"
        if fault:
            raise DataError(f"The group {name!r} ({', '.join(labels)}) is not possible: {fault}.")
        _check_group(name, labels, dataset)
    return tuple(
        LabelGroup(name=name, labels=tuple(labels), rule="one") for name, labels in named.items()
    )


def _check_group(name: str, labels: tuple[str, ...], dataset: Dataset) -> None:
    columns = [dataset.labels.index(label) for label in labels]
    present = dataset.present[:, columns].sum(axis=1)
    # An unknown label may be the missing one, but two present labels are always a contradiction.
    complete = dataset.known[:, columns].all(axis=1)
    wrong = (present > 1) | (complete & (present == 0))
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"{str(dataset.paths[row])!r} has {present[row]} labels of the group {name!r}, and "
            f"{int(wrong.sum()) - 1} more images have none or several; each must have exactly one."
        )


def _warn_absent(split: Dataset, consequence: str, progress: Progress) -> None:
    for label, count in zip(split.labels, split.present.sum(axis=0), strict=True):
        if count == 0:
            progress.note(f"warning: {label!r} is on none of the {len(split)} {consequence}")


@contextmanager
def decoded_splits(
    splits: Splits, preprocess: Preprocess, config: TrainConfig, progress: Progress
) -> Iterator[dict[str, SplitFrames]]:
    """Decode all images before the first step, so that unreadable ones are reported at once.

    Raises:
        DataError: Images cannot be read; names them.
        InputError: There is not enough space for the frames.
    """
    larger = preprocess
    if config.augment != "none":
        height, width = (math.ceil(augment.OVERSIZE * length) for length in preprocess.size)
        larger = replace(preprocess, size=(height, width))
    named = {"train": splits.train, "val": splits.val, "test": splits.test}
    fits = [
        (split.paths, larger if name == "train" else preprocess) for name, split in named.items()
    ]
    with ExitStack() as stack:
        with progress.task("decode", total=sum(len(split) for split in named.values())) as advance:
            frames = stack.enter_context(
                decoded_frames(
                    fits,
                    threads=config.workers,
                    advance=advance,
                    cache=cache_or_none() if config.cache else None,
                    hashes=[split.hashes() for split in named.values()],
                )
            )
        yield {
            name: SplitFrames(frames=decoded, targets=split.targets, paths=split.paths)
            for (name, split), decoded in zip(named.items(), frames, strict=True)
        }


def predict_logits(model: nn.Module, frames: Frames, preprocess: Preprocess) -> Tensor:
    """Run a model in evaluation mode on frames (N, *size, 3) uint8; return (N, L) float32."""
    device = next(model.parameters()).device
    logits = []
    with torch.inference_mode():
        for first in range(0, len(frames), _EVAL_BATCH):
            batch = preprocess.normalize(list(frames[first : first + _EVAL_BATCH]))
            images = torch.from_numpy(batch).to(device, memory_format=torch.channels_last)
            logits.append(model(images).float().cpu())
    return torch.cat(logits)

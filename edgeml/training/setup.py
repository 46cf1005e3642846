"""Everything that training needs before its first step: data, model, seeds and threads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import torch

from edgeml.data import Dataset
from edgeml.errors import InputError
from edgeml.files import check_writable
from edgeml.image.memory import kept_memory
from edgeml.network.names import full_name
from edgeml.network.weights import WEIGHTS_FILE
from edgeml.progress import Progress
from edgeml.training.config import TrainConfig
from edgeml.training.initial import first_weights, initial_model
from edgeml.training.learner import Learner, build_learner
from edgeml.training.splits import SplitFrames, Splits, decoded_splits, prepare_splits


@dataclass(frozen=True, kw_only=True)
class TrainingSetup:
    """What training, and a search before it, start with.

    `splits.dataset` is split and has the configured groups; `frames` are the decoded images of
    `train`, `val` and `test`; `learner.config` has every setting resolved.
    """

    splits: Splits
    frames: Mapping[str, SplitFrames]
    learner: Learner


@contextmanager
def training_setup(
    dataset: Dataset, config: TrainConfig, progress: Progress
) -> Iterator[TrainingSetup]:
    """Check, split and decode the data, and build the model; set seeds and threads in the block.

    Raises:
        DataError, InputError, ModelLoadError: As `edgeml.training.loop.train`.
    """
    device = choose_device(config.device)
    # Report a wrong name or missing weights before all images are read.
    config = replace(config, model=full_name(config.model))
    weights = first_weights(config)
    splits = prepare_splits(dataset, config, progress)
    with seeded(config, device), kept_memory():
        initial = initial_model(config, splits, weights, device, progress=progress)
        with decoded_splits(splits, initial.spec.preprocess, initial.config, progress) as frames:
            learner = build_learner(initial, frames["train"], device)
            yield TrainingSetup(splits=splits, frames=frames, learner=learner)


def check_output(out: Path, *, overwrite: bool) -> None:
    """Refuse an unusable output folder before hours of training.

    Raises:
        InputError: It cannot be written to, or already holds a model.
    """
    if (out / WEIGHTS_FILE).exists() and not overwrite:
        raise InputError(
            f"{str(out)!r} already holds a model. Choose another folder with --out, continue with "
            "--resume, or pass --overwrite."
        )
    existed = out.exists()
    check_writable(out / WEIGHTS_FILE)
    if not existed:
        out.rmdir()


def choose_device(name: str) -> torch.device:
    """Return a device; `auto` takes CUDA, else Apple's MPS, else the CPU.

    Raises:
        InputError: PyTorch has no such device here.
    """
    if name == "auto":
        mps = torch.backends.mps.is_available()
        name = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as err:
        raise InputError(f"PyTorch has no device {name!r} here; use auto or cpu.") from err
    return device


@contextmanager
def seeded(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Set PyTorch's seed and all thread counts for one run, and restore them afterwards."""
    threads, threads_cv = torch.get_num_threads(), cv2.getNumThreads()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        try:
            torch.set_num_threads(config.threads or threads)
            cv2.setNumThreads(1)  # threads work on different images, not on parts of one
            yield
        finally:
            torch.set_num_threads(threads)
            cv2.setNumThreads(threads_cv)

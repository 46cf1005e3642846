"""All that stands ready before the first step: data, model, seeds and threads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import cv2
import torch

from edgeml.data import Dataset
from edgeml.image.memory import kept_memory
from edgeml.network.names import full_name
from edgeml.progress import Progress
from edgeml.training.config import TrainConfig
from edgeml.training.learner import Learner, build_learner
from edgeml.training.parts import Parts, prepare_parts
from edgeml.training.sides import Side, decoded_sides
from edgeml.training.start import Start, device_of, first_weights, start


@dataclass(frozen=True, kw_only=True)
class Ready:
    """What training and the searches before it begin with."""

    begin: Start
    parts: Parts
    sides: Mapping[str, Side]
    learner: Learner


@contextmanager
def made_ready(dataset: Dataset, config: TrainConfig, progress: Progress) -> Iterator[Ready]:
    """Check, divide and decode the data, build the model; seeds and threads hold in the block.

    Raises:
        DataError, InputError, ModelLoadError: As `edgeml.training.loop.train`.
    """
    device = device_of(config.device)
    # A wrong name, or weights that are not there, are told before all pictures are looked at.
    config = replace(config, model=full_name(config.model))
    weights = first_weights(config)
    parts = prepare_parts(dataset, config, progress)
    with seeded(config, device), kept_memory():
        begin = start(config, parts, weights, device, progress=progress)
        preprocess = begin.spec.preprocess
        with decoded_sides(parts, preprocess, begin.config, progress) as sides:
            learner = build_learner(begin, sides["train"], device)
            yield Ready(begin=begin, parts=parts, sides=sides, learner=learner)


@contextmanager
def seeded(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Set PyTorch's seed and all threads for one run, and leave them as they were."""
    threads, threads_cv = torch.get_num_threads(), cv2.getNumThreads()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        try:
            torch.set_num_threads(config.threads or threads)
            cv2.setNumThreads(1)  # pictures are shared among threads, not parts of one
            yield
        finally:
            torch.set_num_threads(threads)
            cv2.setNumThreads(threads_cv)

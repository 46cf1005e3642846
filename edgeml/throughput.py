"""Many images through one model: decoding and inference overlap, order and memory are kept."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any

from edgeml.errors import EdgemlError, InferenceError, InputError
from edgeml.picture import of_picture

if TYPE_CHECKING:
    from edgeml.images import Image
    from edgeml.predictor import Prediction, Predictor


def predict_many(
    predictor: Predictor, images: Iterable[Image], *, batch: int, workers: int
) -> Iterator[Prediction | EdgemlError]:
    """Classify images as they come, in their order; what is wrong with one stands in its place.

    Each worker takes `batch` images through all stages by itself. Decoders, OpenCV and runtimes
    let go of the interpreter's lock, so one worker decodes while another infers, and no queue
    stands between the stages.

    At most 2 x `workers` x `batch` images have been taken from `images` without their answer
    having been asked for, so a slow reader of the answers holds the whole back.

    Raises:
        InputError: `batch` or `workers` is below 1.
        InferenceError: The Predictor is closed.
    """
    for name, value in (("batch", batch), ("workers", workers)):
        if value < 1:
            raise InputError(f"{name} is {value}; it must be 1 or more.")
    return _answers(predictor, iter(images), batch, workers)


def _answers(
    predictor: Predictor, images: Iterator[Image], batch: int, workers: int
) -> Iterator[Prediction | EdgemlError]:
    pool = ThreadPoolExecutor(workers, thread_name_prefix="edgeml-predict")
    pending: deque[Future[list[Prediction | EdgemlError]]] = deque()
    try:
        while True:
            while len(pending) < 2 * workers and (taken := list(islice(images, batch))):
                pending.append(pool.submit(_answer, predictor, taken))
            if not pending:
                return
            yield from pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _answer(predictor: Predictor, images: Sequence[Image]) -> list[Prediction | EdgemlError]:
    """Classify a few images in one run of the network.

    Raises:
        InferenceError: The Predictor is closed.
    """
    answers: list[Prediction | EdgemlError | None] = []
    frames, of = [], []
    for image in images:
        try:
            frames.append(predictor.read(image))
            of.append(image)
            answers.append(None)
        except EdgemlError as err:
            answers.append(err)
    try:
        found: list[Any] = predictor.classify(frames) if frames else []
        found = [of_picture(*pair) for pair in zip(found, of, strict=True)]
    except InferenceError as err:
        if predictor.closed:
            raise
        # Which of several it was, each alone shows.
        found = [err] if len(of) == 1 else [_answer(predictor, [image])[0] for image in of]
    good = iter(found)
    return [next(good) if answer is None else answer for answer in answers]


def usable_cpus() -> int:
    """Say how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

"""DOOR tensorboard: the course of a run as scalars that TensorBoard shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from edgeml.errors import InputError, needs
from edgeml.training.history import Epoch

# TensorBoard draws what has the same first word side by side. Fields that are not named here are
# metrics of the validation side, also those that a later edgeml adds.
_TAGS = {
    "train_loss": "loss/train",
    "val_loss": "loss/validation",
    "lr": "optimizer/lr",
    "seconds": "speed/seconds",
    "images_per_s": "speed/images_per_s",
    "wait": "speed/wait",
}


@contextmanager
def board(folder: Path, *, first_epoch: int = 1) -> Iterator[Callable[[Epoch], None]]:
    """Give a function that writes an epoch's numbers to an event file in `folder`.

    Each row is flushed at once: TensorBoard may look on. What is not a number is left out.

    Args:
        folder: Where the event file goes; made if need be.
        first_epoch: The first that will be written. What an earlier run wrote from there on is
            no longer shown, so that a resumed run continues its own curve.

    Raises:
        MissingDependencyError: TensorBoard is not installed.
        InputError: `folder` cannot be written to.
    """
    with needs("tensorboard", extra="tensorboard", to="write TensorBoard logs"):
        from torch.utils.tensorboard import SummaryWriter
    try:
        opened = SummaryWriter(folder, purge_step=first_epoch)
    except OSError as err:
        raise InputError(
            f"Cannot write TensorBoard logs to {str(folder)!r}: {err.strerror}."
        ) from err
    with opened as writer:

        def write(row: Epoch) -> None:
            for name, value in asdict(row).items():
                if name != "epoch" and value is not None and math.isfinite(value):
                    tag = _TAGS.get(name, f"validation/{name}")
                    writer.add_scalar(tag, value, row.epoch)
            writer.flush()

        yield write

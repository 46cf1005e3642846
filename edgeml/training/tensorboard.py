"""DOOR tensorboard: the history of a run as TensorBoard scalars."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from edgeml.errors import InputError, needs
from edgeml.training.history import Epoch

# TensorBoard draws tags with the same prefix side by side. All other fields, also those that a
# later edgeml adds, are metrics of the validation split.
_TAGS = {
    "train_loss": "loss/train",
    "val_loss": "loss/validation",
    "lr": "optimizer/lr",
    "seconds": "speed/seconds",
    "images_per_s": "speed/images_per_s",
    "wait": "speed/wait",
}


@contextmanager
def open_log(folder: Path, *, first_epoch: int = 1) -> Iterator[Callable[[Epoch], None]]:
    """Yield a function that writes an epoch's numbers to an event file in `folder`.

    Each row is flushed at once, so that TensorBoard can show a running training. NaN and infinity
    are omitted. TensorBoard hides what an earlier run wrote for `first_epoch` and later ones, so
    that a resumed run continues its own curve.

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

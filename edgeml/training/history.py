"""The course of a run: one row an epoch."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

# Above this share more threads for decoding and augmenting would make training faster.
_MUCH_WAITING = 0.2


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """A row of history.csv. Metrics are of the averaged weights, on the validation side.

    `wait` is the share of the time that training waited for pictures.
    """

    epoch: int
    lr: float
    train_loss: float
    val_loss: float
    mAP: float
    CP: float
    CR: float
    CF1: float
    macro_F1: float
    OP: float
    OR: float
    OF1: float
    exact_match: float
    seconds: float
    images_per_s: float
    wait: float

    def told(self, epochs: int) -> str:
        """Give the row as a line for people; `epochs` is how many there will be."""
        return (
            f"epoch {self.epoch}/{epochs}  loss {self.train_loss:.4f}  "
            f"val loss {self.val_loss:.4f}  mAP {self.mAP:.3f}  CF1 {self.CF1:.3f}  "
            f"exact {self.exact_match:.3f}  {self.seconds:.0f} s, {self.images_per_s:.0f} img/s, "
            f"{self.bottleneck()}"
        )

    def bottleneck(self) -> str:
        """Say what held training up."""
        waited = f"{100 * self.wait:.0f} % of it waiting for pictures"
        return f"{waited}: give it more workers" if self.wait > _MUCH_WAITING else waited


def history_csv(history: Sequence[Epoch]) -> str:
    """Write rows as CSV, with a header; numbers with six digits."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow([column.name for column in fields(Epoch)])
    rows.writerows([_rounded(value) for value in astuple(row)] for row in history)
    return text.getvalue()


def _rounded(value: float) -> float:
    return float(f"{value:.6g}") if isinstance(value, float) else value

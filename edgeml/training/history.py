"""The history of a run: one row per epoch."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

# Above this share of waiting, more threads for decoding and augmentation make training faster.
_MUCH_WAITING = 0.2


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One epoch: a row of history.csv, of report.json and of the report's plots.

    Metrics are shares of 1, of the averaged weights on the validation split.

    Attributes:
        epoch: Counts from 1.
        lr: The learning rate of the epoch's last step.
        weighted_mAP: As in `Metrics`; the best epoch has the highest.
        seconds: Duration of the training steps, without validation.
        wait: The share of `seconds`, 0 to 1, in which training waited for images.
    """

    epoch: int
    lr: float
    train_loss: float
    val_loss: float
    mAP: float
    weighted_mAP: float
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

    @property
    def quality(self) -> tuple[float, float]:
        """What makes an epoch better than another: the weighted mAP, then a lower loss."""
        return self.weighted_mAP, -self.val_loss

    def summary_line(self, epochs: int) -> str:
        """Return the row as one line of text; `epochs` is the total number of epochs."""
        waited = f"{100 * self.wait:.0f} % of it waiting for images"
        if self.wait > _MUCH_WAITING:
            waited += ": use more --workers"
        return (
            f"epoch {self.epoch}/{epochs}  loss {self.train_loss:.4f}  "
            f"val loss {self.val_loss:.4f}  mAP {self.mAP:.3f}  CF1 {self.CF1:.3f}  "
            f"exact {self.exact_match:.3f}  {self.seconds:.0f} s, {self.images_per_s:.0f} img/s, "
            f"{waited}"
        )


def history_csv(history: Sequence[Epoch]) -> str:
    """Return the rows as CSV with a header; numbers have six significant digits."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow([column.name for column in fields(Epoch)])
    rows.writerows([rounded(value) for value in astuple(row)] for row in history)
    return text.getvalue()


def rounded(value: float) -> float:
    """Keep six significant digits: more are noise, and make a report three times as large."""
    return float(f"{value:.6g}") if isinstance(value, float) else value

"""Labelled pictures: read, divided, or drawn."""

from __future__ import annotations

from edgeml.data.dataset import Dataset, Skipped, tell_skipped
from edgeml.data.readers.find import find_images, read_dataset
from edgeml.data.readers.table import write_split
from edgeml.data.split import (
    SplitPlan,
    absent_labels,
    held_out,
    known_split,
    label_errors,
    split_dataset,
    worst_label_errors,
)

__all__ = [
    "Dataset",
    "Skipped",
    "SplitPlan",
    "absent_labels",
    "find_images",
    "held_out",
    "known_split",
    "label_errors",
    "read_dataset",
    "split_dataset",
    "tell_skipped",
    "worst_label_errors",
    "write_split",
]

"""Labelled pictures: read, divided, or drawn."""

from __future__ import annotations

from edgeml.data.dataset import Dataset, Skipped, tell_skipped
from edgeml.data.readers import find_images, read_dataset
from edgeml.data.split import (
    SplitPlan,
    absent_labels,
    held_out,
    known_split,
    label_errors,
    split_dataset,
    worst_label_errors,
)
from edgeml.data.synth import synthesize
from edgeml.data.table import write_split

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
    "synthesize",
    "tell_skipped",
    "worst_label_errors",
    "write_split",
]

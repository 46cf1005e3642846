"""Labelled images: reading, screening and splitting them."""

from __future__ import annotations

from edgeml.data.dataset import Dataset, Skipped, report_skipped
from edgeml.data.readers.find import find_images, read_dataset
from edgeml.data.split import resolve_split, split_dataset
from edgeml.data.split_file import write_split
from edgeml.spec.provenance import SplitPlan

__all__ = [
    "Dataset",
    "Skipped",
    "SplitPlan",
    "find_images",
    "read_dataset",
    "report_skipped",
    "resolve_split",
    "split_dataset",
    "write_split",
]

"""Which labels of a data set are used, and what the user learns of how they were read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgeml.data.dataset import Dataset
from edgeml.errors import DataError
from edgeml.progress import Progress
from edgeml.spec.model_spec import some_names

DOUBTFUL = "folder names are split"
"""How a note begins that the words of folders' names may not be labels."""


def with_labels(dataset: Dataset, chosen: Sequence[str], ignored: Sequence[str]) -> Dataset:
    """Return a data set with only the chosen labels, or all; without the ignored ones.

    A label group stays if all of its labels do.

    Raises:
        DataError: There is no chosen label of that name.
    """
    if not chosen and not ignored:
        return dataset
    both = [name for name in chosen if name in ignored]
    if both:
        raise DataError(f"The label {both[0]!r} is to be read and to be left out: choose one.")
    missing = [name for name in chosen if name not in dataset.labels]
    if missing:
        raise DataError(
            f"There is no label {missing[0]!r} to read. "
            f"The labels are: {some_names(dataset.labels)}."
        )
    kept = [name for name in dataset.labels if name not in ignored and name in (chosen or [name])]
    columns = [dataset.labels.index(name) for name in kept]
    return replace(
        dataset,
        labels=tuple(kept),
        targets=dataset.targets[:, np.array(columns, np.intp)],
        label_groups=tuple(g for g in dataset.label_groups if set(g.labels) <= set(kept)),
    )


def report_reading(dataset: Dataset, progress: Progress) -> None:
    """Note the labels and where they come from, and what a reader chose."""
    origin = f", from {dataset.labels_from}" if dataset.labels_from else ""
    progress.note(f"labels: {some_names(dataset.labels)}{origin}")
    formats = {name: n for name, n in dataset.left_out.items() if name[0].isupper()}
    if formats:
        counts = ", ".join(f"{count} {name}" for name, count in formats.items())
        progress.note(f"left out: files in formats that are not supported: {counts}")
    for note in dataset.notes:
        progress.note(f"note: {note}")
    lower = Counter(label.casefold() for label in dataset.labels)
    alike = [label for label in dataset.labels if lower[label.casefold()] > 1]
    if alike:
        progress.note(f"note: labels that differ only by case: {some_names(alike)}")

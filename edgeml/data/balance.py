"""How evenly a split spreads the labels over its sides."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeml.data.dataset import SIDES, Dataset, Side
from edgeml.progress import Progress

# For a rarer label, one image more or less is a large error that no split can avoid.
_COMMON = 20


def label_errors(dataset: Dataset) -> dict[Side, NDArray[np.float64]]:
    """Compare the prevalence of each label on a side with its prevalence in all data.

    Returns:
        For each side that has images, |prevalence on the side / prevalence - 1| of each label:
        (L,). Prevalence is the share of positives among known targets. NaN where nothing is
        known, or nothing is positive.

    Raises:
        DataError: The data set is not split.
    """
    overall = _prevalence(dataset)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            side: np.where(overall > 0, np.abs(_prevalence(part) / overall - 1), np.nan)
            for side, part in _parts(dataset).items()
        }


def worst_label_errors(dataset: Dataset) -> dict[Side, tuple[str, float]]:
    """Return the label that is spread worst on each side, and its error as in `label_errors`.

    Labels with fewer than 20 positives are not considered: one image is a large error for them.

    Raises:
        DataError: The data set is not split.
    """
    common = dataset.present.sum(axis=0) >= _COMMON
    worst: dict[Side, tuple[str, float]] = {}
    for side, errors in label_errors(dataset).items():
        errors = np.where(common, errors, np.nan)
        if np.isfinite(errors).any():
            column = int(np.nanargmax(errors))
            worst[side] = dataset.labels[column], float(errors[column])
    return worst


def absent_labels(dataset: Dataset) -> dict[Side, tuple[str, ...]]:
    """Return the labels that no image of a side has, for each side that has images.

    Raises:
        DataError: The data set is not split.
    """
    return {
        side: tuple(dataset.labels[column] for column in np.flatnonzero(~part.present.any(axis=0)))
        for side, part in _parts(dataset).items()
    }


def report_balance(dataset: Dataset, evenly: Dataset, progress: Progress) -> None:
    """Note which labels a side lacks, and how evenly the others are spread.

    Args:
        dataset: Split.
        evenly: Its rows that the split was to spread evenly: all but those held out.
        progress: Gets the notes.
    """
    for side, labels in absent_labels(dataset).items():
        if labels:
            progress.note(f"warning: {side} has no image with: {', '.join(labels)}")
    worst = [
        f"{side} {100 * error:.1f} % ({label})"
        for side, (label, error) in worst_label_errors(evenly).items()
    ]
    if worst:
        progress.note(f"split: worst relative error of a label's prevalence: {', '.join(worst)}")


def _parts(dataset: Dataset) -> dict[Side, Dataset]:
    return {side: part for side in SIDES if len(part := dataset.part(side))}


def _prevalence(dataset: Dataset) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return np.asarray(dataset.present.sum(axis=0) / dataset.known.sum(axis=0))

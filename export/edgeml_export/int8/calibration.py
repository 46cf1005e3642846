"""The images that INT8 ranges are measured on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeml.data import Dataset
from edgeml.errors import CalibrationError, ImageError
from edgeml.image.reading import read_image
from edgeml.progress import SILENT, Advance, Progress
from edgeml.spec.model_spec import ModelSpec, quoted_names

LIMIT = 300
"""Images that are enough: NNCF's default. With more, ranges hardly change, and time grows."""

FEW = 100
"""With fewer, one odd image sets the range of a layer."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Images for INT8 calibration, in a fixed order.

    Attributes:
        paths: The images.
        hashes: SHA-256 of each image's bytes.
        without: Labels of the model that none of them shows.
    """

    paths: tuple[Path, ...]
    hashes: tuple[str, ...]
    without: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 over the images' hashes in their order, as 64 hexadecimal digits."""
        return hashlib.sha256("\n".join(self.hashes).encode()).hexdigest()

    def batches(
        self, spec: ModelSpec, *, size: int, advance: Advance
    ) -> Iterator[NDArray[np.float32] | NDArray[np.uint8]]:
        """Yield the network's inputs as `Predictor` would; each call decodes the images again.

        Args:
            spec: Of the network.
            size: Images a batch.
            advance: Gets the number of images that were read.

        Raises:
            CalibrationError: An image cannot be read.
        """
        for start in range(0, len(self.paths), size):
            chosen = self.paths[start : start + size]
            try:
                frames = [
                    read_image(path, at_least=spec.preprocess.min_decode_size) for path in chosen
                ]
            except ImageError as err:
                raise CalibrationError(f"Calibration stopped. {err}") from err
            advance(len(chosen))
            yield spec.network_input(frames)


def choose_calibration(
    dataset: Dataset,
    labels: Sequence[str],
    *,
    limit: int = LIMIT,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Calibration:
    """Draw at most `limit` distinct images that show every label, the rare ones first.

    Args:
        dataset: The images to draw from.
        labels: Of the model.
        limit: How many images at most.
        seed: Of the draw.
        progress: Gets a note if the images are few or show a label on none: such ranges may be
            too narrow.

    Raises:
        CalibrationError: There is no image.
    """
    hashes = dataset.hashes()
    shuffled = np.random.default_rng(seed).permutation(len(dataset)).tolist()
    first: dict[str, int] = {}
    for row in shuffled:
        first.setdefault(hashes[row], row)
    if not first:
        raise CalibrationError(
            "There is no image to calibrate INT8 with: give other data with --calib."
        )
    rows = _cover_labels(list(first.values()), dataset.present, limit)
    if len(rows) < FEW:
        progress.note(
            f"INT8 is calibrated with {len(rows)} images only; "
            f"with {FEW} or more, one odd image does not set a range."
        )
    columns = np.flatnonzero(dataset.present[rows].any(axis=0))
    shown = {dataset.labels[column] for column in columns}
    unseen = [label for label in labels if label not in shown]
    if unseen:
        progress.note(f"INT8 is calibrated without any image of {quoted_names(unseen)}.")
    return Calibration(
        paths=tuple(dataset.paths[row] for row in rows),
        hashes=tuple(hashes[row] for row in rows),
        without=tuple(unseen),
    )


def _cover_labels(rows: list[int], present: NDArray[np.bool_], limit: int) -> list[int]:
    """Choose an equal share of `limit` for each label, the rarest first; fill up in order."""
    share = max(1, limit // max(1, present.shape[1]))
    chosen: dict[int, None] = {}
    for column in np.argsort(present[rows].sum(axis=0), kind="stable"):
        showing = [row for row in rows if present[row, column]]
        have = sum(row in chosen for row in showing)
        for row in showing:
            if have >= share or len(chosen) >= limit:
                break
            if row not in chosen:
                chosen[row] = None
                have += 1
    for row in rows:
        if len(chosen) >= limit:
            break
        chosen[row] = None
    return list(chosen)

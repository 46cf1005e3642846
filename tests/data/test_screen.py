"""Every image is decoded once; unreadable ones are named or left out."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeml.data import Dataset
from edgeml.data import frames as frames_module
from edgeml.data.dataset import Skipped
from edgeml.data.screen import thumbnails, without_unreadable
from edgeml.errors import DataError


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Five images: three of one colour each, one cut short, one missing."""
    paths = tuple(tmp_path / f"{row}.png" for row in range(5))
    for row, path in enumerate(paths[:4]):
        cv2.imwrite(str(path), np.full((40, 50, 3), (row * 50, 90, 200), np.uint8))
    paths[3].write_bytes(paths[3].read_bytes()[:60])
    targets = np.eye(2, dtype=np.int8)[np.arange(5) % 2]
    return Dataset(root=tmp_path, paths=paths, labels=("a", "b"), targets=targets)


@pytest.mark.parametrize("cached", [False, True])
def test_thumbnails_come_with_the_reasons_why_images_cannot_be_read(
    dataset: Dataset, tmp_path: Path, cached: bool
) -> None:
    small, faults = thumbnails(dataset, cache=tmp_path / "cache" if cached else None)
    assert small.shape == (5, 24, 24, 3)
    for row in range(3):
        assert (small[row] == (row * 50, 90, 200)).all()
    assert (small[3:] == 0).all()
    assert list(faults) == list(dataset.paths[3:])
    assert "3.png' cannot be decoded: it is a damaged PNG" in faults[dataset.paths[3]]
    assert "No such file" in faults[dataset.paths[4]]


def test_the_second_call_reads_thumbnails(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = dataset.select([0, 1, 2])
    first, _ = thumbnails(good, cache=tmp_path / "cache")
    monkeypatch.setattr(frames_module, "decode_image", None)
    second, faults = thumbnails(good, cache=tmp_path / "cache")
    np.testing.assert_array_equal(first, second)
    assert not faults


def test_screened_images_are_not_decoded_again(dataset: Dataset, tmp_path: Path) -> None:
    screened = without_unreadable(dataset, skip_bad=True, cache=tmp_path / "cache")
    assert set(screened.known_thumbnails) == set(screened.paths) <= set(screened.known_hashes)
    for path in screened.paths:
        path.unlink()
    small, faults = thumbnails(screened.select([1]))
    assert (small[0] == (50, 90, 200)).all()
    assert not faults
    assert not dataset.known_hashes


def test_unreadable_images_are_refused_by_name(dataset: Dataset) -> None:
    with pytest.raises(DataError, match=r"2 of 5 images.*3\.png.*damaged PNG.*--skip-bad"):
        without_unreadable(dataset)


def test_unreadable_images_are_left_out_with_skip_bad(dataset: Dataset) -> None:
    left = without_unreadable(dataset, skip_bad=True)
    assert left.paths == dataset.paths[:3]
    assert [skipped.where for skipped in left.skipped] == ["3.png", "4.png"]
    assert "damaged PNG" in left.skipped[0].why
    assert without_unreadable(left).paths == left.paths


def test_earlier_skipped_entries_stay(dataset: Dataset) -> None:
    from dataclasses import replace

    earlier = Skipped("labels.csv, line 7", "no label")
    left = without_unreadable(replace(dataset, skipped=(earlier,)), skip_bad=True)
    assert left.skipped[0] == earlier
    assert len(left.skipped) == 3


def test_only_unreadable_images_are_refused_even_with_skip_bad(dataset: Dataset) -> None:
    with pytest.raises(DataError, match="2 of 2 images"):
        without_unreadable(dataset.select([3, 4]), skip_bad=True)

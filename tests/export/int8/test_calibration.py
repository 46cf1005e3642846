from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml import ModelSpec, Preprocess
from edgeml.data import Dataset
from edgeml.errors import CalibrationError
from edgeml.image.reading import read_image
from edgeml_export.int8.calibration import choose_calibration
from tests.notes import Notes


def dataset_of(rows: Sequence[Sequence[int]], hashes: Sequence[str] | None = None) -> Dataset:
    """Build a data set of images that need not exist: their digests are known."""
    paths = tuple(Path(f"/pictures/{row}.jpg") for row in range(len(rows)))
    targets = np.asarray(rows, np.uint8).reshape(len(rows), -1)
    labels = tuple(f"label {column}" for column in range(targets.shape[1]))
    known = dict(zip(paths, hashes or [f"{row:064x}" for row in range(len(rows))], strict=True))
    return Dataset(
        root=Path("/pictures"), paths=paths, labels=labels, targets=targets, known_hashes=known
    )


@given(
    rows=st.lists(st.lists(st.integers(0, 1), min_size=4, max_size=4), min_size=1, max_size=60),
    limit=st.integers(4, 30),
    seed=st.integers(0, 5),
)
def test_every_label_that_the_data_show_is_calibrated_with(
    rows: list[list[int]], limit: int, seed: int
) -> None:
    data = dataset_of(rows)
    chosen = choose_calibration(data, data.labels, limit=limit, seed=seed)
    assert len(chosen.paths) == min(limit, len(rows))
    assert len(set(chosen.paths)) == len(chosen.paths)
    targets = data.targets[[data.paths.index(path) for path in chosen.paths]]
    np.testing.assert_array_equal(targets.any(axis=0), data.targets.any(axis=0))


def test_a_rare_label_gets_all_it_has_and_the_draw_is_that_of_the_seed() -> None:
    data = dataset_of([[1, 0]] * 500 + [[0, 1]] * 3)
    chosen = choose_calibration(data, data.labels, limit=50)
    assert {data.paths[500], data.paths[501], data.paths[502]} <= set(chosen.paths)
    assert chosen == choose_calibration(data, data.labels, limit=50)
    assert chosen != choose_calibration(data, data.labels, limit=50, seed=1)


def test_the_same_bytes_are_taken_once() -> None:
    data = dataset_of([[1]] * 6, hashes=["a", "b", "a", "c", "b", "a"])
    chosen = choose_calibration(data, data.labels)
    assert sorted(chosen.hashes) == ["a", "b", "c"]


def test_the_digest_is_that_of_the_hashes_in_order() -> None:
    data = dataset_of([[1]] * 3)
    chosen = choose_calibration(data, data.labels)
    assert chosen.digest == hashlib.sha256("\n".join(chosen.hashes).encode()).hexdigest()


def test_few_images_and_absent_labels_are_noted() -> None:
    data = dataset_of([[1, 0]] * 99)
    notes = Notes()
    choose_calibration(data, (*data.labels, "hat"), progress=notes)
    few, unseen = notes.lines
    assert "99 images" in few
    assert "'label 1', 'hat'" in unseen


def test_enough_images_of_every_label_are_not_commented() -> None:
    data = dataset_of([[1]] * 100)
    notes = Notes()
    choose_calibration(data, data.labels, progress=notes)
    assert notes.lines == []


def test_no_image_is_an_error() -> None:
    data = dataset_of([[1]]).select([])
    with pytest.raises(CalibrationError, match="--calib"):
        choose_calibration(data, data.labels)


def spec(size: int, **changes: object) -> ModelSpec:
    return ModelSpec(
        labels=("a",), thresholds=(0.5,), preprocess=Preprocess(size=(size, size)), **changes
    )


def test_batches_are_the_predictors_inputs_at_each_call(
    data: Dataset,
) -> None:
    calibration = choose_calibration(data.select(range(5)), data.labels)
    seen: list[int] = []
    batches = list(calibration.batches(spec(24), size=2, advance=seen.append))
    assert [batch.shape for batch in batches] == [(2, 3, 24, 24), (2, 3, 24, 24), (1, 3, 24, 24)]
    assert seen == [2, 2, 1]
    expected = spec(24).preprocess([read_image(path) for path in calibration.paths])
    np.testing.assert_array_equal(np.concatenate(batches), expected)
    again = calibration.batches(spec(24), size=5, advance=seen.append)
    np.testing.assert_array_equal(np.concatenate(list(again)), expected)


def test_a_model_of_raw_frames_is_calibrated_with_raw_frames(data: Dataset) -> None:
    calibration = choose_calibration(data.select(range(2)), data.labels)
    raw = spec(24, input="uint8")
    (batch,) = calibration.batches(raw, size=2, advance=lambda count: None)
    assert (batch.shape, batch.dtype) == ((2, 24, 24, 3), np.uint8)


def test_an_unreadable_image_is_named_and_not_skipped(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(b"no picture")
    data = Dataset(
        root=tmp_path, paths=(damaged,), labels=("a",), targets=np.ones((1, 1), np.uint8)
    )
    calibration = choose_calibration(data, data.labels)
    with pytest.raises(CalibrationError, match=r"damaged\.jpg"):
        list(calibration.batches(spec(24), size=1, advance=lambda count: None))

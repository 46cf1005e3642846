from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeml import Predictor
from edgeml.cli._tables import print_metrics
from edgeml.data import Dataset
from edgeml.measure.evaluation import align_targets, evaluate_model
from edgeml.spec.labels import UNKNOWN
from tests.notes import Notes
from tests.tiny import TinyRuntime, tiny_spec


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Six pictures, red and green by turns; of two it is unknown whether they are green."""
    paths = []
    for row in range(6):
        colour = np.full((40, 40, 3), 60, np.uint8)
        colour[..., 2 - row % 2] = 220
        paths.append(tmp_path / f"{row}.png")
        cv2.imwrite(str(paths[-1]), colour)
    targets = np.array([[0, 1], [1, 0]] * 3, np.int8)
    targets[:2, 0] = UNKNOWN
    return Dataset(root=tmp_path, paths=tuple(paths), labels=("green", "red"), targets=targets)


def test_unknown_labels_are_said_and_do_not_count(data: Dataset) -> None:
    notes = Notes()
    measured = evaluate_model(Predictor(TinyRuntime()), data, "all", progress=notes)
    assert (measured.images, measured.exact_match, measured.mAP) == (6, 1.0, 1.0)
    assert measured.labels["green"].positives == 2
    assert "2 of 18 labels are unknown and do not count." in notes.lines


def test_nothing_is_said_where_all_is_known(data: Dataset) -> None:
    notes = Notes()
    evaluate_model(Predictor(TinyRuntime()), data.select([2, 3, 4]), "all", progress=notes)
    assert notes.lines == []


def test_targets_are_put_in_the_order_of_the_model_and_stay_unknown(data: Dataset) -> None:
    aligned = align_targets(data, tiny_spec())  # red, green, blue
    assert aligned[:3].tolist() == [[1, UNKNOWN, 0], [0, UNKNOWN, 0], [1, 0, 0]]


def test_labels_without_positives_are_printed_by_name(
    data: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = evaluate_model(Predictor(TinyRuntime()), data, "all")
    print_metrics(measured.to_dict())
    printed = capsys.readouterr().out
    assert "mAP over 2 of 3 labels; without positives: blue\n" in printed
    assert "macro_F1 1.000" in printed

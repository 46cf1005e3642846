"""Data whose labels are not those of the model: what the error advises, and its length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from edgeml.data import Dataset
from edgeml.errors import NotComparableError, SpecError
from edgeml.image.preprocess import Preprocess
from edgeml.measure.evaluation import check_labels
from edgeml.spec import ModelSpec

THOUSAND = tuple(f"label {i}" for i in range(1000))


def spec_of(labels: Sequence[str]) -> ModelSpec:
    return ModelSpec(
        labels=tuple(labels),
        thresholds=(0.5,) * len(labels),
        preprocess=Preprocess(size=(32, 32)),
    )


def folders(root: Path, *names: str, labels: Sequence[str]) -> Dataset:
    paths = tuple(root / name / "1.jpg" for name in names)
    targets = np.zeros((len(paths), len(labels)), np.int8)
    return Dataset(root=root, paths=paths, labels=tuple(labels), targets=targets)


def test_a_folder_named_as_a_label_but_split_is_met_with_the_delimiter(tmp_path: Path) -> None:
    data = folders(tmp_path, "hot_dog", "cat", labels=["cat", "dog", "hot"])
    with pytest.raises(NotComparableError, match=r"hot_dog.*--delimiter /") as raised:
        check_labels(data, spec_of([*THOUSAND, "cat", "hot_dog"]))
    assert str(raised.value).count("'label ") == 12
    assert "990 more" in str(raised.value)


def test_a_folder_that_joins_labels_is_met_with_the_other_delimiter(tmp_path: Path) -> None:
    data = folders(tmp_path, "red_shirt", labels=["red_shirt"])
    with pytest.raises(NotComparableError, match=r"red_shirt.*--delimiter _"):
        check_labels(data, spec_of(["red", "shirt"]))


def test_duplicate_labels_are_named_without_all_others() -> None:
    with pytest.raises(SpecError, match="'label 3'") as raised:
        spec_of([*THOUSAND, "label 3"])
    assert str(raised.value).count("'label ") == 1

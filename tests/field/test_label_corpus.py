"""Label tables and folders as users really have them: read correctly, or refused with a remedy."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeml.data import read_dataset
from edgeml.errors import DataError
from tests.data.readers.sets import put, touch
from tests.field.folder_cases import FOLDERS
from tests.field.label_cases import TABLES, Case


def make(root: Path, case: Case) -> Path:
    touch(root, *case.files)
    for name, text in case.texts.items():
        put(root / name, text)
    return root / case.source


@pytest.mark.parametrize("case", [*TABLES.values(), *FOLDERS.values()], ids=[*TABLES, *FOLDERS])
def test_it_is_read_correctly_or_refused_with_the_remedy(tmp_path: Path, case: Case) -> None:
    source = make(tmp_path, case)
    if case.labels is None:
        with pytest.raises(DataError, match=case.refused) as caught:
            read_dataset(source, **case.options)
        assert "\n" not in str(caught.value)
        return
    dataset = read_dataset(source, **case.options)
    found = {
        Path(os.path.relpath(path, dataset.root)).as_posix(): dataset.labels_of(row)
        for row, path in enumerate(dataset.paths)
    }
    assert {path: set(labels) for path, labels in found.items()} == {
        path: set(labels) for path, labels in case.labels.items()
    }
    sides = dict(zip(found, dataset.split or (), strict=False))
    assert sides == dict(zip(case.labels, case.split or (), strict=False))
    unknown = {
        (path, label)
        for path, known in zip(found, dataset.known, strict=True)
        for label, is_known in zip(dataset.labels, known, strict=True)
        if not is_known
    }
    assert unknown == case.unknown


def test_a_link_to_an_image_counts_and_one_to_a_folder_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "data/a/1.jpg", "data/b/2.jpg", "elsewhere/3.jpg")
    (tmp_path / "data/a/3.jpg").symlink_to(tmp_path / "elsewhere/3.jpg")
    assert len(read_dataset(tmp_path / "data")) == 3
    (tmp_path / "data/a/more").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="a/more: it is a link to a folder"):
        read_dataset(tmp_path / "data")

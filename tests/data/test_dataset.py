"""A data set selects, hashes and identifies its rows; a table reads back equal."""

from __future__ import annotations

import hashlib
import string
import tempfile
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeml.data import Dataset, read_dataset, write_split
from edgeml.data.dataset import SIDES
from edgeml.data.readers.columns import is_reserved
from edgeml.errors import DataError
from edgeml.spec.labels import LabelGroup

# What a file may be called, and what a .csv could trip over.
NAMES = (
    "plain.jpg", "with space.jpg", "ümläut.jpg", "日本.jpg", "com,ma.jpg", 'quo"te.jpg',
    "semi;colon.jpg", " leads.jpg", "trails .jpg", "new\nline.jpg", "re\rturn.jpg", "=1+1.jpg",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder() -> Path:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        (root / "below").mkdir()
        for number, file in enumerate(NAMES):
            (root / "below" / file).write_bytes(bytes([number]))
        yield root


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    paths = []
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        paths.append(tmp_path / name)
        paths[-1].write_bytes(name.encode())
    return Dataset(
        root=tmp_path,
        paths=tuple(paths),
        labels=("blue", "red"),
        targets=np.array([[1, 0], [0, 1], [1, 1]], np.uint8),
        groups=("ann", "bob", ""),
        split=("train", "val", "train"),
    )


def test_rows_are_selected_by_position_and_by_mask(dataset: Dataset) -> None:
    for chosen in (dataset.select([2, 0]), dataset.select(np.array([2, 0]))):
        assert [path.name for path in chosen.paths] == ["c.jpg", "a.jpg"]
        assert chosen.groups == ("", "ann")
        assert chosen.labels == dataset.labels
        np.testing.assert_array_equal(chosen.targets, [[1, 1], [1, 0]])
    masked = dataset.select(np.array([False, True, False]))
    assert [path.name for path in masked.paths] == ["b.jpg"]
    assert len(dataset.select([])) == 0


def test_parts_are_the_sides_of_the_split(dataset: Dataset) -> None:
    assert [path.name for path in dataset.part("train").paths] == ["a.jpg", "c.jpg"]
    assert len(dataset.part("test")) == 0
    assert dataset.part("all") is dataset
    with pytest.raises(DataError, match="not split yet"):
        replace(dataset, split=None).part("train")


def test_files_with_known_hashes_are_not_read_again(dataset: Dataset) -> None:
    expected = tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in dataset.paths)
    assert dataset.hashes() == expected
    hashed = dataset.with_hashes()
    dataset.paths[1].unlink()
    assert hashed.select([1]).hashes() == expected[1:2]
    assert hashed.with_hashes() is hashed
    assert not dataset.known_hashes


def test_an_unreadable_file_is_named(dataset: Dataset) -> None:
    dataset.paths[1].unlink()
    with pytest.raises(DataError, match=r"Cannot read '.*b\.jpg'"):
        dataset.hashes()


def test_the_digest_depends_on_contents_names_and_labels_but_not_on_order_or_folder(
    dataset: Dataset, tmp_path: Path
) -> None:
    digest = dataset.digest()
    assert len(digest) == 64
    assert dataset.select([2, 1, 0]).digest() == digest
    assert replace(dataset, split=None).digest() == digest
    relabelled = replace(dataset, targets=dataset.targets[::-1].copy() * 0 + 1)
    assert relabelled.digest() != digest
    assert dataset.select([0, 1]).digest() != digest

    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for path in dataset.paths:
        path.rename(moved / path.name)
    there = replace(
        dataset,
        root=moved,
        paths=tuple(moved / path.name for path in dataset.paths),
        known_hashes={},
    )
    assert there.digest() == digest
    there.paths[0].write_bytes(b"changed")
    assert replace(there, known_hashes={}).digest() != digest


def test_columns_of_unequal_length_are_refused(dataset: Dataset) -> None:
    with pytest.raises(DataError, match=r"shape \(3, 2\), not \(2, 2\)"):
        replace(dataset, targets=dataset.targets[:2])
    with pytest.raises(DataError, match="split has 1 entries for 3"):
        replace(dataset, split=("train",))


def assert_equal(first: Dataset, second: Dataset) -> None:
    assert first.paths == second.paths
    assert first.labels == second.labels
    np.testing.assert_array_equal(first.targets, second.targets)
    assert first.groups == second.groups
    assert first.split == second.split
    assert first.label_groups == second.label_groups


words = (
    st.text(st.characters(codec="utf-8", exclude_characters=";\0"), min_size=1, max_size=8)
    .map(lambda text: unicodedata.normalize("NFC", text.strip()))
    .filter(bool)
    # Normalising can make blanks: U+037E becomes a semicolon, U+2000 a space.
    .filter(lambda text: text == text.strip() and ";" not in text)
    # A label with the name of a column cannot have its own column, and is refused.
    .filter(lambda text: not is_reserved(text))
)


@st.composite
def datasets(draw: st.DrawFn) -> tuple[tuple[str, ...], ...]:
    """Draw the labels, source and side of each row, and labels that exclude each other."""
    rows = draw(st.integers(1, len(NAMES)))
    names = [draw(st.sets(words, max_size=4)) for _ in range(rows)]
    names[0] |= {"first", "second"}
    senders = draw(st.lists(st.sampled_from(["", "ann", "b,b"]), min_size=rows, max_size=rows))
    sides = draw(st.lists(st.sampled_from(SIDES), min_size=rows, max_size=rows))
    kinds = draw(
        st.none() | st.lists(st.sampled_from(["_one_", "_two_"]), min_size=rows, max_size=rows)
    )
    if kinds:
        names = [row | {kind} for row, kind in zip(names, kinds, strict=True)]
    return tuple(map(tuple, names)), tuple(senders), tuple(sides), tuple(kinds or ())


@settings(deadline=None)
@given(drawn=datasets(), below=st.booleans(), seed=st.none() | st.integers(0, 9))
def test_a_split_data_set_reads_back_equal(
    folder: Path, drawn: tuple[tuple[str, ...], ...], below: bool, seed: int | None
) -> None:
    names, senders, sides, kinds = drawn
    labels = tuple(sorted({label for row in names for label in row}))
    targets = np.array([[label in row for label in labels] for row in names], np.int8)
    if seed is not None:
        hidden = np.random.default_rng(seed).random(targets.shape) < 0.3
        hidden[:, [label in kinds for label in labels]] = False
        hidden[0] = False  # a data set without a single label is refused
        targets = np.where(hidden, np.int8(-1), targets)
    groups = (LabelGroup(name="kind", labels=tuple(sorted(set(kinds))), rule="one"),)
    written = Dataset(
        root=folder,
        paths=tuple(folder / "below" / name for name in NAMES[: len(names)]),
        labels=labels,
        targets=targets,
        groups=senders if any(senders) else None,
        split=sides,
        label_groups=groups if kinds else (),
    )
    table = folder / ("split.csv" if below else "elsewhere/split.csv")
    write_split(written, table)
    assert_equal(read_dataset(table), written)


def test_paths_are_relative_to_the_table_or_to_the_root_of_the_data(
    dataset: Dataset, tmp_path: Path
) -> None:
    write_split(dataset, tmp_path / "split.csv")
    lines = (tmp_path / "split.csv").read_text().splitlines()
    assert lines == ["path,labels,group,split", "a.jpg,blue,ann,train", "b.jpg,red,bob,val",
                     "c.jpg,blue;red,,train"]  # fmt: skip
    write_split(dataset, tmp_path / "deep" / "split.csv")
    lines = (tmp_path / "deep" / "split.csv").read_text().splitlines()
    assert lines[:2] == [
        "path,labels,group,split,data_root", f"a.jpg,blue,ann,train,{tmp_path}"
    ]  # fmt: skip


def test_the_groups_of_a_folder_survive_the_table(tmp_path: Path) -> None:
    for name in ("red_shirt", "blue_dress", "blue_shirt"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(name.encode())
    dataset = replace(read_dataset(tmp_path), split=("train", "val", "test"))
    write_split(dataset, tmp_path / "split.csv")
    back = read_dataset(tmp_path / "split.csv")
    assert_equal(back, dataset)
    assert back.digest() == dataset.digest()


def test_a_name_that_cannot_be_written_leaves_no_table(dataset: Dataset, tmp_path: Path) -> None:
    table = tmp_path / "split.csv"
    with pytest.raises(DataError, match="not split yet"):
        write_split(replace(dataset, split=None), table)
    broken = replace(dataset, paths=(*dataset.paths[:2], tmp_path / "b\udcffd.jpg"))
    with pytest.raises(DataError, match="not UTF-8"):
        write_split(broken, table)
    assert not table.exists()
    assert set(string.ascii_lowercase) & {p.name for p in tmp_path.iterdir()} == set()

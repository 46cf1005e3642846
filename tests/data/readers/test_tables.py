"""Tables with a column for each label, as .csv and Parquet, and tables that other tools export."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeml.data import Dataset, read_dataset, write_split
from edgeml.data.dataset import SIDES
from edgeml.errors import DataError
from edgeml.spec.labels import LabelGroup
from tests.data.readers.sets import labels_by_path, touch, write_table

IMAGES = ("1.jpg", "2.jpg", "3.jpg")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    touch(tmp_path, *IMAGES)
    return tmp_path


def test_every_label_may_have_a_column_and_be_unknown(folder: Path) -> None:
    table = write_table(folder, "path,red,blue\n1.jpg,1,0\n2.jpg,,1\n3.jpg,-1,0\n")
    dataset = read_dataset(table)
    assert dataset.labels == ("blue", "red")
    np.testing.assert_array_equal(dataset.targets, [[0, 1], [1, -1], [0, -1]])


@pytest.mark.parametrize(
    ("cells", "targets"),
    [
        ("1,0", [1, 0]),
        ("1.0,0.0", [1, 0]),
        ("true,False", [1, 0]),
        (" 1 , 0 ", [1, 0]),
        ("TRUE,-1.0", [1, -1]),
        ("yes,No", [1, 0]),
        ("nan,-1", [-1, -1]),
    ],
)
def test_cells_are_understood_as_pandas_and_spreadsheets_write_them(
    folder: Path, cells: str, targets: list[int]
) -> None:
    dataset = read_dataset(write_table(folder, f"path,a,b\n1.jpg,1,0\n2.jpg,{cells}\n"))
    assert dataset.targets[1].tolist() == targets


@pytest.mark.parametrize("cell", ["2", "maybe", "0.5", "inf", "1;0", "--1"])
def test_other_cells_are_refused_with_line_and_column(folder: Path, cell: str) -> None:
    table = write_table(folder, f"path,a,b\n1.jpg,1,0\n2.jpg,0,{cell}\n")
    with pytest.raises(DataError, match=rf"labels\.csv, line 3: the column 'b' has '{cell}'"):
        read_dataset(table)


def test_columns_of_labels_may_come_with_split_group_and_label_groups(folder: Path) -> None:
    table = write_table(
        folder,
        "split,red,path,blue,shirt,label_groups,group\n"
        "train,1,1.jpg,0,1,colour;colour;,ann\nval,0,2.jpg,1,0,colour;colour;,\n"
        "test,,3.jpg,,1,,\n",
    )
    dataset = read_dataset(table)
    assert dataset.labels == ("blue", "red", "shirt")
    assert dataset.split == SIDES
    assert dataset.groups == ("ann", "", "")
    assert dataset.label_groups == (LabelGroup(name="colour", labels=("blue", "red"), rule="one"),)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("1.jpg,1,1,c;c", "line 2: .*one label of the group 'c'"),
        ("1.jpg,0,0,c;c", "line 2: .*one label of the group 'c'"),
        ("1.jpg,1,0,c;c\n2.jpg,1,0,c;d", "line 3: label_groups must name"),
        ("1.jpg,1,0,c", "line 2: label_groups must name"),
    ],
)
def test_label_groups_that_do_not_fit_are_refused(folder: Path, rows: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_dataset(write_table(folder, f"path,a,b,label_groups\n{rows}\n"))


def test_a_table_of_minus_ones_without_zeros_is_refused(folder: Path) -> None:
    # In CelebA's table, -1 means absent.
    with pytest.raises(DataError, match="no cell is 0"):
        read_dataset(write_table(folder, "path,a,b\n1.jpg,1,-1\n2.jpg,-1,1\n"))


def test_a_table_without_zeros_logs_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read_dataset(write_table(folder, "path,a,b\n1.jpg,1,-1\n2.jpg,,1\n"))
    assert "no cell is 0" in caplog.text


def test_a_label_without_an_image_stays_and_is_logged(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = read_dataset(write_table(folder, "path,a,b,rare\n1.jpg,1,0,0\n2.jpg,0,1,0\n"))
    assert dataset.labels == ("a", "b", "rare")
    assert "no image has rare" in caplog.text


def partial(folder: Path) -> Dataset:
    return Dataset(
        root=folder,
        paths=tuple(folder / name for name in IMAGES),
        labels=("blue", "q\nuo,te", "red", "shirt"),
        targets=np.array([[0, -1, 1, 0], [1, 0, 0, 1], [-1, 1, -1, -1]], np.int8),
        split=SIDES,
        groups=("ann", "", "bob"),
        label_groups=(LabelGroup(name="colour", labels=("blue", "red"), rule="one"),),
    )


def test_unknown_targets_survive_a_written_split(folder: Path) -> None:
    written = partial(folder)
    write_split(written, folder / "split.csv")
    read = read_dataset(folder / "split.csv")
    assert (read.paths, read.labels, read.groups, read.split, read.label_groups) == (
        written.paths, written.labels, written.groups, written.split, written.label_groups,
    )  # fmt: skip
    np.testing.assert_array_equal(read.targets, written.targets)
    assert read.digest() == written.digest()


def test_a_label_without_an_image_survives_a_written_split(folder: Path) -> None:
    written = replace(
        partial(folder), targets=np.array([[0, 0, 1, 0]] * 3, np.int8), label_groups=()
    )
    write_split(written, folder / "split.csv")
    assert read_dataset(folder / "split.csv").labels == written.labels


def test_a_label_with_the_name_of_a_column_is_refused_if_labels_need_columns(folder: Path) -> None:
    named = replace(partial(folder), labels=("blue", "group", "red", "shirt"))
    with pytest.raises(DataError, match="A label is named 'group'"):
        write_split(named, folder / "split.csv")
    assert not (folder / "split.csv").exists()


def test_the_digest_distinguishes_unknown_from_absent(folder: Path) -> None:
    dataset = partial(folder)
    assert replace(dataset, targets=np.abs(dataset.targets) * 0).digest() != dataset.digest()
    known = replace(dataset, targets=np.where(dataset.targets < 0, 0, dataset.targets))
    assert known.digest() != dataset.digest()


def test_a_table_of_boxes_gives_the_classes_of_each_image(folder: Path) -> None:
    # As Roboflow and TensorFlow's tutorials write Pascal VOC as .csv.
    table = write_table(
        folder,
        "filename,width,height,class,xmin,ymin,xmax,ymax\n"
        "1.jpg,640,480,cat,1,2,3,4\n2.jpg,640,480,dog,1,2,3,4\n1.jpg,640,480,dog,5,6,7,8\n",
    )
    assert labels_by_path(read_dataset(table)) == {"1.jpg": ("cat", "dog"), "2.jpg": ("dog",)}


def test_roboflows_multi_label_table_is_read(folder: Path) -> None:
    table = write_table(folder, "filename, cat, dog\n1.jpg, 1, 0\n2.jpg, 1, 1\n")
    assert labels_by_path(read_dataset(table)) == {"1.jpg": ("cat",), "2.jpg": ("cat", "dog")}


def test_a_column_without_a_name_is_not_a_label(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # pandas writes its row numbers so.
    dataset = read_dataset(write_table(folder, ",path,a,b\n0,1.jpg,1,0\n1,2.jpg,0,1\n"))
    assert dataset.labels == ("a", "b")
    assert "one without a name" in caplog.text


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_line_endings_of_every_system_are_read(folder: Path, ends: str) -> None:
    text = ends.join(["path,labels", "1.jpg,a", '2.jpg,"b', 'c"', "3.jpg,nowhere,x"])
    with pytest.raises(DataError, match="line 5: it has 3 fields"):
        read_dataset(write_table(folder, text))


class TestParquet:
    """The same tables in columns."""

    @staticmethod
    def written(folder: Path, **columns: list[object]) -> Path:
        pa = pytest.importorskip("pyarrow")
        pq = pytest.importorskip("pyarrow.parquet")
        pq.write_table(pa.table(columns), folder / "labels.parquet")
        return folder / "labels.parquet"

    def test_a_column_of_labels_may_hold_text_or_lists(self, folder: Path) -> None:
        for labels in (["a;b", "a", ""], [["a", "b"], ["a"], []]):
            table = self.written(folder, path=list(IMAGES), labels=labels)
            expected = {"1.jpg": ("a", "b"), "2.jpg": ("a",), "3.jpg": ()}
            assert labels_by_path(read_dataset(table)) == expected

    def test_a_label_may_have_a_column_of_numbers_or_booleans(self, folder: Path) -> None:
        table = self.written(
            folder,
            path=list(IMAGES),
            a=[1, 0, -1],
            b=[True, False, None],
            c=[1.0, float("nan"), 0.0],
            split=list(SIDES),
        )
        dataset = read_dataset(table)
        np.testing.assert_array_equal(dataset.targets, [[1, 1, 1], [0, 0, -1], [-1, -1, 0]])
        assert dataset.split == SIDES

    def test_a_bad_row_is_named_by_its_number(self, folder: Path) -> None:
        table = self.written(folder, path=list(IMAGES), a=[1, 0, 7], b=[0, 1, 1])
        with pytest.raises(DataError, match=r"labels\.parquet, row 3: the column 'a' has '7'"):
            read_dataset(table)

    def test_text_that_is_not_utf_8_is_named_by_its_row(self, folder: Path) -> None:
        pa = pytest.importorskip("pyarrow")
        raw = pa.array([b"1.jpg", b"\xff.jpg"], pa.binary()).view(pa.string())
        table = self.written(folder, path=raw, labels=["a", "b"])
        with pytest.raises(DataError, match=r"labels\.parquet, row 2: it is not UTF-8"):
            read_dataset(table)

    def test_unknown_columns_are_not_read(
        self, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        table = self.written(folder, path=list(IMAGES), labels=["a", "b", "a"], box=[{"x": 1}] * 3)
        assert len(read_dataset(table)) == 3
        assert "not used: box" in caplog.text
        with pytest.raises(DataError, match="column 'box' contains struct"):
            read_dataset(self.written(folder, path=list(IMAGES), box=[{"x": 1}] * 3))

    def test_a_file_that_would_expand_to_gigabytes_is_refused_at_its_row(
        self, folder: Path
    ) -> None:
        pa = pytest.importorskip("pyarrow")
        same = pa.array([0] * 5000, pa.int32())
        words = pa.DictionaryArray.from_arrays(same, pa.array(["a" * 3_000_000]))
        for labels in (words, pa.ListArray.from_arrays(pa.array(range(5001), pa.int32()), words)):
            table = self.written(folder, path=["1.jpg"] * 5000, labels=labels)
            assert table.stat().st_size < 1_000_000  # for 15 GB
            with pytest.raises(DataError, match=r"labels\.parquet, row 1: a cell has more than"):
                read_dataset(table)

    def test_sizes_above_the_limits_are_refused_by_the_metadata(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        table = self.written(folder, path=list(IMAGES), labels=["a", "b", "a"])
        monkeypatch.setattr("edgeml.data.readers.parquet._MAX_BYTES", 64)
        with pytest.raises(DataError, match=r"labels\.parquet' expands to more than"):
            read_dataset(table)
        monkeypatch.setattr("edgeml.data.readers.parquet._MAX_ROWS", 2)
        with pytest.raises(DataError, match=r"labels\.parquet' has 3 rows"):
            read_dataset(table)

    def test_without_pyarrow_the_extra_is_named(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        table = self.written(folder, path=list(IMAGES), labels=["a", "b", "a"])
        monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
        with pytest.raises(ImportError, match=r"pip install 'edgeml\[parquet\]'"):
            read_dataset(table)


def test_a_good_table_logs_no_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read_dataset(write_table(folder, "path,labels\n1.jpg,a\n2.jpg,b\n"))
    assert not caplog.records

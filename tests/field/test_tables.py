"""Tables as people and tools write them: the labels are read, or a line names the option."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeml.data import read_dataset, write_split
from edgeml.errors import DataError
from edgeml.progress import Progress
from tests.data.readers.sets import labels_by_path, run_command, touch, write_table

IMAGES = ("1.jpg", "2.jpg", "3.jpg", "4.jpg", "5.jpg", "6.jpg")

PLANT = (
    "image,labels\n1.jpg,healthy\n2.jpg,scab frog_eye complex\n3.jpg,scab\n4.jpg,complex\n"
    "5.jpg,frog_eye\n6.jpg,scab complex\n"
)
COMMA = 'path,labels\n1.jpg,"red,shirt"\n2.jpg,"blue,dress"\n'
BAR = "path,labels\n1.jpg,red|shirt\n2.jpg,blue\n"
MIXED = 'path,labels\n1.jpg,red;shirt\n2.jpg,"red,dress"\n3.jpg,red\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    touch(tmp_path, *IMAGES)
    return tmp_path


class Lines(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


@pytest.mark.parametrize(
    ("text", "option"), [(PLANT, "' '"), (COMMA, "','"), (BAR, "'|'"), (MIXED, "','")]
)
def test_cells_with_another_separator_are_refused_with_the_option(
    folder: Path, text: str, option: str
) -> None:
    with pytest.raises(DataError) as caught:
        read_dataset(write_table(folder, text))
    assert f"--separator {option}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "separator", "counts"),
    [
        (PLANT, " ", {"complex": 3, "frog_eye": 2, "healthy": 1, "scab": 3}),
        (PLANT, "space", {"complex": 3, "frog_eye": 2, "healthy": 1, "scab": 3}),
        (COMMA, ",", {"blue": 1, "dress": 1, "red": 1, "shirt": 1}),
        (COMMA, ";", {"blue,dress": 1, "red,shirt": 1}),
        (BAR, "|", {"blue": 1, "red": 1, "shirt": 1}),
        ("path,labels\n1.jpg,a\tb\n2.jpg,a\n", "tab", {"a": 2, "b": 1}),
    ],
)
def test_the_separator_can_be_given(
    folder: Path, text: str, separator: str, counts: dict[str, int]
) -> None:
    dataset = read_dataset(write_table(folder, text), separator=separator)
    assert dict(zip(dataset.labels, dataset.present.sum(axis=0), strict=True)) == counts


@pytest.mark.parametrize(
    "cells",
    [
        ("['a', 'b']", "['a']", "[]"),
        ('["a", "b"]', '["a"]', "[]"),
        ("['a' 'b']", "['a']", "[]"),
        ("('a', 'b')", "('a',)", "()"),
        ("{'a', 'b'}", "{'a'}", "set()"),
    ],
    ids=["Python", "JSON", "numpy", "tuple", "set"],
)
def test_lists_in_cells_are_read(folder: Path, cells: tuple[str, ...]) -> None:
    quoted = ['"' + cell.replace('"', '""') + '"' for cell in cells]
    rows = "".join(f"{n}.jpg,{cell}\n" for n, cell in enumerate(quoted, start=1))
    dataset = read_dataset(write_table(folder, "path,labels\n" + rows))
    assert labels_by_path(dataset) == {"1.jpg": ("a", "b"), "2.jpg": ("a",), "3.jpg": ()}


def test_a_list_of_words_without_quotes_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"line 2: .*looks like a list"):
        read_dataset(write_table(folder, "path,labels\n1.jpg,[a; b]\n2.jpg,c\n"))


@pytest.mark.parametrize("names", [("hot dog", "apple pie"), ("baseball bat", "stop sign", "cat")])
def test_blanks_within_labels_are_no_separator(folder: Path, names: tuple[str, ...]) -> None:
    rows = "".join(f"{n}.jpg,{name}\n" for n, name in enumerate(names, start=1))
    assert read_dataset(write_table(folder, "path,labels\n" + rows)).labels == tuple(sorted(names))


def test_labels_with_commas_survive_a_written_split(folder: Path) -> None:
    text = 'path,labels,split\n1.jpg,"red, dark",train\n2.jpg,"[\'é\']",val\n3.jpg,b,test\n'
    written = read_dataset(write_table(folder, text), separator=";")
    write_split(written, folder / "split.csv")
    assert read_dataset(folder / "split.csv").digest() == written.digest()
    assert written.labels == ("b", "red, dark", "é")


@pytest.mark.parametrize(
    "text",
    [
        "labels, path\na, 1.jpg\nb, 2.jpg\n",
        'path, labels\n1.jpg, "a"\n2.jpg, "b"\n',
        "path,label\n1.jpg,a\n2.jpg,b\n",
        "Image Path,Tags\n1.jpg,a\n2.jpg,b\n",
        "image_id,label\n1,a\n2,b\n",
        "id,class\n1,a\n2,b\n",
        "Image Index,Finding Labels,Follow-up #,Patient ID\n1.jpg,a,0,1\n2.jpg,b,1,1\n",
        "Id,Genre,a,b\n1,\"['a']\",1,0\n2,\"['b']\",0,1\n",
        "id_code,diagnosis\n1,a\n2,b\n",
        "filename,a,b\n1.jpg,1,0\n2.jpg,0,1\n",
        "filename,label,fold,index\n1.jpg,a,0,1\n2.jpg,b,1,2\n",
        "Unnamed: 0,filename,a,b,fold,index,id\n0,1.jpg,1,0,0,1,1\n1,2.jpg,0,1,1,0,0\n",
    ],
)
def test_columns_are_known_by_their_usual_names(folder: Path, text: str) -> None:
    dataset = read_dataset(write_table(folder, text))
    assert labels_by_path(dataset) == {"1.jpg": ("a",), "2.jpg": ("b",)}


@pytest.mark.parametrize("written", [r"images\1.jpg", "images/1", "1.jpg", "1", " images/1.jpg"])
def test_an_image_is_found_by_what_the_table_means(tmp_path: Path, written: str) -> None:
    touch(tmp_path, "images/1.jpg", "images/2.jpg")
    dataset = read_dataset(write_table(tmp_path, f"path,labels\n{written},a\nimages/2.jpg,b\n"))
    assert labels_by_path(dataset) == {"images/1.jpg": ("a",), "images/2.jpg": ("b",)}


@pytest.mark.parametrize("name", ["1", "1.jpg"])
def test_an_image_that_may_be_two_files_is_refused(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "2.jpg", "images/1.jpg", "images/1.png", "train/1.jpg")
    with pytest.raises(DataError, match="there is no image"):
        read_dataset(write_table(tmp_path, f"path,labels\n{name},a\n2.jpg,b\n"))


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("split", ("train", "valid", "test")),
        ("Split", ("Training", "validation", "testing")),
        ("subset", ("train", "val", "test")),
    ],
)
def test_sides_are_known_by_their_usual_names(
    folder: Path, column: str, cells: tuple[str, ...]
) -> None:
    rows = "".join(f"{n}.jpg,{'ab'[n % 2]},{cell}\n" for n, cell in enumerate(cells, start=1))
    dataset = read_dataset(write_table(folder, f"path,labels,{column}\n{rows}"))
    assert dataset.split == ("train", "val", "test")


def test_is_valid_is_a_split_and_no_label(folder: Path) -> None:
    text = "filename,cat,dog,is_valid\n1.jpg,1,0,False\n2.jpg,0,1,0\n3.jpg,1,1,True\n"
    dataset = read_dataset(write_table(folder, text))
    assert dataset.labels == ("cat", "dog")
    assert dataset.split == ("train", "train", "val")


def test_labels_can_be_chosen_and_left_out(folder: Path) -> None:
    table = write_table(folder, "path,a,b,odd,fold\n1.jpg,1,0,7,1\n2.jpg,0,1,8,0\n")
    with pytest.raises(DataError, match="--ignore-labels"):
        read_dataset(table)
    assert read_dataset(table, ignore_labels=["odd"]).labels == ("a", "b")
    assert read_dataset(table, labels=["a", "fold"]).labels == ("a", "fold")
    table = write_table(folder, "path,labels,dataset\n1.jpg,a,web\n2.jpg,b,shop\n")
    with pytest.raises(DataError, match="--ignore-labels"):
        read_dataset(table)
    assert read_dataset(table, ignore_labels=["dataset"]).split is None
    text = "path,labels\n1.jpg,a;b\n2.jpg,b;c\n3.jpg,c\n"
    table = write_table(folder, text)
    assert labels_by_path(read_dataset(table, labels=["a", "b"]))["3.jpg"] == ()
    assert read_dataset(table, ignore_labels=["a"]).labels == ("b", "c")
    for option in ("labels", "ignore_labels"):
        with pytest.raises(DataError, match="'nosuch'"):
            read_dataset(table, **{option: ["a", "nosuch"]})


def test_rows_of_one_image_with_a_label_each_are_joined(folder: Path) -> None:
    text = "path,labels\n1.jpg,red\n1.jpg,shirt\n2.jpg,blue\n./2.jpg,shirt\n3.jpg,red\n"
    show = Lines()
    dataset = read_dataset(write_table(folder, text), progress=show)
    assert labels_by_path(dataset) == {
        "1.jpg": ("red", "shirt"), "2.jpg": ("blue", "shirt"), "3.jpg": ("red",)
    }  # fmt: skip
    assert "labels: blue, red, shirt, from the column 'labels'" in show.lines
    assert any("5 rows" in line and "3" in line for line in show.lines)


def test_a_confidence_of_zero_means_absent(folder: Path) -> None:
    text = "ImageID,Source,LabelName,Confidence\n1,verification,a,1\n1,verification,b,0\n2,x,b,1\n"
    dataset = read_dataset(write_table(folder, text))
    assert labels_by_path(dataset) == {"1.jpg": ("a",), "2.jpg": ("b",)}


def test_the_labels_line_has_at_most_a_dozen_names(folder: Path) -> None:
    show = Lines()
    names = [f"n{number:02}" for number in range(40)]
    text = f"path,labels\n1.jpg,{';'.join(names)}\n2.jpg,n00\n"
    read_dataset(write_table(folder, text), progress=show)
    assert show.lines == [f"labels: {', '.join(names[:12])} and 28 more, from the column 'labels'"]


def test_the_command_prints_the_labels_on_stderr(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = str(write_table(folder, PLANT))
    out = str(folder / "split.csv")
    words = ["data", "split", table, "--out", out, "--ignore-labels", "healthy"]
    assert run_command(words, monkeypatch) == 2
    assert "--separator ' '" in capsys.readouterr().err
    run_command([*words, "--separator", " "], monkeypatch)
    assert "labels: complex, frog_eye, scab, from the column 'labels'" in capsys.readouterr().err

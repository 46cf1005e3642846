"""Names of labels in the files of other tools: one reader for every format."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeml.errors import SpecError
from edgeml.spec.foreign.label_names import read_labels

ABC = ["a", "b", "c"]
CRANES = ["crane 0", "maillot 1", "crane 2", "maillot 3", "dog"]


def labels_of(folder: Path, name: str, text: str) -> list[str]:
    (folder / name).write_bytes(text.encode())
    return read_labels(folder / name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.txt", "crane\nmaillot\ncrane\nmaillot\ndog\n"),
        ("l.json", '["crane","maillot","crane","maillot","dog"]'),
        ("l.json", '{"0":"crane","1":"maillot","2":"crane","3":"maillot","4":"dog"}'),
        ("l.csv", "label\ncrane\nmaillot\ncrane\nmaillot\ndog\n"),
        ("l.yaml", "names: [crane, maillot, crane, maillot, dog]\n"),
    ],
)
def test_a_name_that_occurs_twice_gets_its_number_in_every_format(
    tmp_path: Path, name: str, text: str
) -> None:
    pytest.importorskip("yaml")
    assert labels_of(tmp_path, name, text) == CRANES


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.txt", "\ufeffa\r\nb\r\nc\r\n"),
        ("l.txt", "0 a\n1 b\n2 c\n"),
        ("l.txt", "2: c\n0: a\n1: b\n"),
        ("l.txt", "1 a\n2 b\n3 c\n"),
        ("l.txt", "{0: 'a',\n 1: 'b',\n 2: 'c'}"),
        ("l.txt", "n01440764 a\nn01443537 b\nn01484850 c\n"),
        ("class_indices.json", '{"b": 1, "a": 0, "c": 2}'),
        ("index.json", '{"0": ["n01", "a"], "1": ["n02", "b"], "2": ["n03", "c"]}'),
        ("l.json", '{"id2label": {"2": "c", "0": "a", "1": "b"}, "x": 3}'),
        ("l.json", '[{"id": 2, "name": "b"}, {"id": 0, "name": "c"}, {"id": 1, "name": "a"}]'),
        ("l.csv", "index,label\n0,a\n1,b\n2,c\n"),
        ("l.csv", "2,c\n0,a\n1,b\n"),
        ("l.csv", "a\nb\nc\n"),
        ("l.tsv", "id\tmid\tname\n0\t/m/1\ta\n1\t/m/2\tb\n2\t/m/3\tc\n"),
        ("data.yaml", "train: x\nnames:\n  0: a\n  1: b\n  2: c\n"),
        ("data.yaml", "names:\n- a\n- b\n- c\n"),
        ("l.yaml", "a: 0\nc: 2\nb: 1\n"),
    ],
)
def test_names_are_read_in_the_order_of_their_numbers(tmp_path: Path, name: str, text: str) -> None:
    pytest.importorskip("yaml")
    expected = ["c", "a", "b"] if text.startswith('[{"id": 2') else ABC
    assert labels_of(tmp_path, name, text) == expected


@pytest.mark.parametrize(
    ("name", "text", "labels"),
    [
        ("l.txt", "3 stripes\n2 dots\n", ["3 stripes", "2 dots"]),
        ("l.txt", "n01440764 tench\nb;x\n", ["n01440764 tench", "b;x"]),
        ("l.csv", 'id,name\n0,"tench, Tinca tinca"\n1,b\n', ["tench, Tinca tinca", "b"]),
        ("l.json", '{"0": 0, "1": 1, "10": 2}', ["0", "1", "10"]),
        ("l.yaml", "names: [no, on, 3]\n", ["no", "on", "3"]),
    ],
)
def test_numbers_and_marks_that_belong_to_a_name_stay(
    tmp_path: Path, name: str, text: str, labels: list[str]
) -> None:
    pytest.importorskip("yaml")
    assert labels_of(tmp_path, name, text) == labels


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.txt", "a\n\nc\n"),
        ("l.txt", ""),
        ("l.json", '{"a": 0, "b": 2}'),
        ("l.json", '{"0": "a", "2": "b"}'),
        ("l.json", '{"0": "1", "1": "2", "2": "0"}'),
        ("l.json", '{"21": "fire lily", "3": "canterbury bells"}'),
        ("l.json", '[["cat", "Katze"], ["dog", "Hund"]]'),
        ("l.json", "{}"),
        ("l.json", "3"),
        ("l.csv", "x,y\na,b\nc,d\n"),
        ("l.csv", "0,tench, Tinca tinca\n1,b\n"),
        ("l.csv", ""),
        ("l.csv", "label\n"),
        ("l.yaml", "names: {0: a"),
    ],
)
def test_a_file_without_a_name_for_each_output_is_refused(
    tmp_path: Path, name: str, text: str
) -> None:
    pytest.importorskip("yaml")
    with pytest.raises(SpecError, match=name):
        labels_of(tmp_path, name, text)


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_bytes("a\né\n".encode("latin-1"))
    with pytest.raises(SpecError, match="UTF-8"):
        read_labels(tmp_path / "l.txt")

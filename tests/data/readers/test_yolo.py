"""YOLO data sets in the usual layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeml.data import Dataset, read_dataset
from edgeml.errors import DataError
from tests.data.readers.sets import touch

BOX = "0.5 0.5 0.25 0.25"


def label(root: Path, name: str, *classes: object) -> None:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{number} {BOX}\n" for number in classes), "utf-8")


def by_name(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    return {path.name: dataset.labels_of(row) for row, path in enumerate(dataset.paths)}


def roboflow(root: Path, sides: tuple[str, ...] = ("train", "valid", "test")) -> Path:
    """Write an export like Roboflow's: paths that lead one folder too high, and three sides."""
    for side in sides:
        touch(root, f"{side}/images/{side}1.jpg", f"{side}/images/{side}2.jpg")
        label(root, f"{side}/labels/{side}1.txt", 0, 1, 1)
        label(root, f"{side}/labels/{side}2.txt", 1)
    (root / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\n"
        "names: ['cat', 'dog']\n\nroboflow:\n  workspace: w\n  version: 3\n",
        "utf-8",
    )
    return root


@pytest.mark.parametrize("name", ["", "data.yaml"])
def test_roboflows_export_is_read_with_its_sides(tmp_path: Path, name: str) -> None:
    dataset = read_dataset(roboflow(tmp_path / "export") / name)
    assert dataset.labels == ("cat", "dog")
    assert by_name(dataset)["valid1.jpg"] == ("cat", "dog")
    assert by_name(dataset)["valid2.jpg"] == ("dog",)
    assert dataset.split == ("train", "train", "val", "val", "test", "test")
    assert dataset.known.all()


def test_a_missing_test_folder_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = read_dataset(roboflow(tmp_path / "export", ("train", "valid")))
    assert dataset.split == ("train", "train", "val", "val")
    assert "data.yaml, line 3: there is no" in caplog.text


def test_ultralytics_layout_is_read(tmp_path: Path) -> None:
    touch(
        tmp_path, "coco8/images/train/1.jpg", "coco8/images/train/2.jpg", "coco8/images/val/3.jpg"
    )
    label(tmp_path, "coco8/labels/train/1.txt", 5)
    label(tmp_path, "coco8/labels/val/3.txt", 0, 5)
    file = tmp_path / "coco8.yaml"
    file.write_text(
        "# Ultralytics\npath: coco8 # dataset root dir\ntrain: images/train\nval: images/val\n"
        "test: # test images (optional)\n\nnames:\n  0: person\n  5: bus\n\n"
        "download: https://example.com/coco8.zip\n",
        "utf-8",
    )
    dataset = read_dataset(file)
    assert by_name(dataset) == {"1.jpg": ("bus",), "2.jpg": (), "3.jpg": ("bus", "person")}
    assert dataset.split == ("train", "train", "val")


def test_images_may_be_listed_in_a_file(tmp_path: Path) -> None:
    touch(tmp_path, "images/a/1.jpg", "images/a/2.jpg", "images/b/3.jpg")
    for name, number in (("a/1", 0), ("a/2", 1), ("b/3", 1)):
        label(tmp_path, f"labels/{name}.txt", number)
    (tmp_path / "train.txt").write_text("./images/a/1.jpg\n\nimages/a/2.jpg\r\n", "utf-8")
    (tmp_path / "data.yaml").write_text(
        "train: train.txt\nval: [images/b]\nnames: [cat, dog]\n", "utf-8"
    )
    dataset = read_dataset(tmp_path)
    assert by_name(dataset) == {"1.jpg": ("cat",), "2.jpg": ("dog",), "3.jpg": ("dog",)}
    (tmp_path / "train.txt").write_text("./images/a/1.jpg\nimages/a/gone.jpg\n", "utf-8")
    with pytest.raises(DataError, match=r"train\.txt, line 2: there is no image"):
        read_dataset(tmp_path)


def test_unlisted_images_are_ignored(tmp_path: Path) -> None:
    touch(tmp_path, "images/1.jpg", "images/2.jpg", "images/3.JPG")
    for name in "123":
        label(tmp_path, f"labels/{name}.txt", int(name) % 2)
    (tmp_path / "train.txt").write_text("images/1.jpg\nimages/2.jpg\n", "utf-8")
    (tmp_path / "data.yaml").write_text("train: train.txt\nnames: [a, b]\n", "utf-8")
    assert by_name(read_dataset(tmp_path)) == {"1.jpg": ("b",), "2.jpg": ("a",)}


def test_one_folder_for_train_and_val_is_no_split(tmp_path: Path) -> None:
    touch(tmp_path, "images/1.jpg", "images/2.jpg")
    label(tmp_path, "labels/1.txt", 0)
    label(tmp_path, "labels/2.txt", 1)
    (tmp_path / "data.yaml").write_text("train: images\nval: images\nnames: [a, b]\n", "utf-8")
    dataset = read_dataset(tmp_path)
    assert (len(dataset), dataset.split) == (2, None)


@pytest.mark.parametrize("names", ["classes.txt", "labels/classes.txt"])
@pytest.mark.parametrize(
    ("folders", "split"),
    [
        (("images/", "labels/", "images/", "labels/"), None),
        (("images/train/", "labels/train/", "images/val/", "labels/val/"), ("train", "val")),
        (("train/images/", "train/labels/", "val/images/", "val/labels/"), ("train", "val")),
    ],
)
def test_folders_without_a_yaml_are_read(
    tmp_path: Path, folders: tuple[str, ...], split: tuple[str, ...] | None, names: str
) -> None:
    touch(tmp_path, folders[0] + "1.jpg", folders[2] + "2.jpg")
    label(tmp_path, folders[1] + "1.txt", 0)
    label(tmp_path, folders[3] + "2.txt", 1, 0)
    (tmp_path / names).parent.mkdir(exist_ok=True)
    (tmp_path / names).write_bytes("\ufeffKatze\r\nHünd chen\r\n\r\n".encode())
    dataset = read_dataset(tmp_path)
    assert by_name(dataset) == {"1.jpg": ("Katze",), "2.jpg": ("Hünd chen", "Katze")}
    assert dataset.split == split


def test_text_files_may_be_next_to_the_images(tmp_path: Path) -> None:
    touch(tmp_path, "obj/1.jpg", "obj/2.jpg")
    label(tmp_path, "obj/1.txt", 0)
    label(tmp_path, "obj/2.txt", 1)
    (tmp_path / "data.yaml").write_text("train: obj\nnames: [a, b]\n", "utf-8")
    assert by_name(read_dataset(tmp_path)) == {"1.jpg": ("a",), "2.jpg": ("b",)}


@pytest.mark.parametrize(
    "line", ["1 0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8", "1", "1.0 .5 .5 .1 .1", " 1\t.5 .5 .1 .1 \r"]
)
def test_outlines_rotated_boxes_and_bare_classes_are_read(tmp_path: Path, line: str) -> None:
    root = roboflow(tmp_path / "export")
    (root / "train/labels/train1.txt").write_bytes(line.encode() + b"\n")
    assert by_name(read_dataset(root))["train1.jpg"] == ("dog",)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("-1 .5 .5 .1 .1", "the class -1 is not among"),
        ("0.5 .5 .5 .1 .1", "not an integer"),
        ("0 nan .5 .1 .1", "NaN or infinity"),
        ("1e400 .5 .5 .1 .1", "NaN or infinity"),
        ("0 .5\0.5", "is not a class and numbers"),
        ("0,.5,.5", "is not a class and numbers"),
    ],
)
def test_a_bad_line_is_named_and_the_other_lines_count(
    tmp_path: Path, line: str, words: str
) -> None:
    root = roboflow(tmp_path / "export")
    file = root / "train/labels/train1.txt"
    file.write_text(f"1 {BOX}\n{line}\n", "utf-8")
    with pytest.raises(DataError, match=rf"train1\.txt, line 2: .*{words}"):
        read_dataset(root)
    dataset = read_dataset(root, skip_bad=True)
    assert len(dataset) == 6
    np.testing.assert_array_equal(dataset.targets[0], [-1, 1])
    (skipped,) = dataset.skipped
    assert skipped.where == f"{file}, line 2"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: train/images\n", "line 1: names must list"),
        ("train: train/images\nnames: []\n", "line 2: names must list"),
        ("train: train/images\nnames: {x: a}\n", "line 2: 'x' in names is not the number"),
        ("train: train/images\nnames: {0: a, 1: [b]}\n", "line 2: the name of class 1"),
        ("train: train/images\nnames: [a, ' ']\n", "line 2: the name of class 1 .* empty"),
        ("train: train/images\nnames: [a, b;c]\n", "line 2: the name of class 1 .* ';'"),
        ("train: train/images\nnames: [a]\nnames: [b]\n", "line 3: 'names' is duplicated"),
        ("train: train/images\nnames:\n  0: a\n  0: b\n", "line 4: '0' is duplicated"),
        ("train: {a: b}\nnames: [a, b]\n", "line 1: train must be a folder"),
        ("train: data.yaml\nnames: [a, b]\n", r"line 1: .*data\.yaml' is neither"),
        ("- a\n- b\n", "line 1: expected keys"),
        ("", "line 1: expected keys"),
        ("names: [a, b\ntrain: x\n", r"data\.yaml, line 2"),
        ("names: !!python/object/apply:os.system [ls]\ntrain: x\n", r"data\.yaml, line 1"),
        ("x: " + "[" * 200_000 + "\n", "line 1: it is nested too deeply"),
        ("x: 2026-99-99\nnames: [a]\n", r"data\.yaml"),
    ],
)
def test_a_bad_yaml_is_refused_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    root = roboflow(tmp_path / "export")
    (root / "data.yaml").write_text(text, "utf-8")
    with pytest.raises(DataError, match=words):
        read_dataset(root)


def test_incomplete_names_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "images/1.jpg", "images/2.jpg")
    label(tmp_path, "labels/1.txt", 0)
    with pytest.raises(DataError, match=r"neither a data\.yaml nor a classes\.txt"):
        read_dataset(tmp_path)
    (tmp_path / "classes.txt").write_text("a\n\nb\n", "utf-8")
    with pytest.raises(DataError, match=r"classes\.txt, line 2: it does not name a class"):
        read_dataset(tmp_path)

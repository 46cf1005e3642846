"""Folders as people and tools arrange them: the labels are read, or an error names the folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeml.data import find_images, read_dataset
from edgeml.errors import DataError
from tests.data.readers.sets import encoded, labels_by_path, put, run_command, touch

JXL, JP2, HEIC = b"\xff\x0a0", b"\0\0\0\x0cjP  \r\n\x87\n", b"\0\0\0\x1cftypheic\0\0\0\0"


@pytest.mark.parametrize(
    ("files", "split"),
    [
        (("train/cat/1.jpg", "train/dog/2.jpg", "test/3.jpg"), None),
        (("train/cat/1.jpg", "train/dog/2.jpg", "test/images/3.jpg", "test/4.txt"), None),
        (("train/images/cat/1.jpg", "train/images/dog/2.jpg"), None),
        (("images/cat/1.jpg", "images/dog/2.jpg", "annotations/1.xml"), None),
        (("data/train/cat/1.jpg", "data/train/dog/2.jpg", "data/README.txt"), None),
        (("Training/cat/1.jpg", "Testing/dog/2.jpg"), ("test", "train")),
        (("train_images/cat/1.jpg", "train_images/dog/2.jpg"), None),
    ],
)
def test_folders_that_arrange_data_are_no_labels(
    tmp_path: Path, files: tuple[str, ...], split: tuple[str, ...] | None
) -> None:
    touch(tmp_path, *files)
    dataset = read_dataset(tmp_path)
    assert dataset.labels == ("cat", "dog")
    assert {path.stem for path in dataset.paths} == {"1", "2"}
    assert split is None or sorted(dataset.split or ()) == list(split)


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (("train/cat/1.jpg", "val/dog/2.jpg", "sample_images/3.jpg"), "sample_images"),
        (("train/cat/1.jpg", "train/dog/2.jpg", "unsorted/3.jpg"), "unsorted"),
        (("JPEGImages/1.jpg", "SegmentationClass/1.png", "Annotations/1.xml"), "JPEGImages"),
        (("train/1.jpg", "val/2.jpg"), "train"),
        (("images/1.jpg", "cat/2.jpg", "dog/3.jpg"), "images"),
        (("train/cat/1.jpg", "train/images/2.jpg"), "images"),
    ],
)
def test_a_folder_that_may_be_no_label_is_named(
    tmp_path: Path, files: tuple[str, ...], name: str
) -> None:
    touch(tmp_path, *files)
    with pytest.raises(DataError) as caught:
        read_dataset(tmp_path)
    assert f"/{name}: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_in_the_way_may_be_a_label_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "valid/1.jpg", "invalid/2.jpg")
    with pytest.raises(DataError, match="--labels valid"):
        read_dataset(tmp_path)
    assert read_dataset(tmp_path, labels=["valid", "invalid"]).labels == ("invalid", "valid")


@pytest.mark.parametrize("name", ["noext", "2.jfif", "2.dat", "2.JPG"])
def test_files_are_images_by_their_bytes(tmp_path: Path, name: str) -> None:
    put(tmp_path / "cat/1.png", encoded(1))
    put(tmp_path / "dog" / name, encoded(2))
    put(tmp_path / "dog/notes.txt", "BM, not an image")
    put(tmp_path / "dog/film.mp4", b"\0\0\0\x18ftypisom\0\0\0\0")
    dataset = read_dataset(tmp_path)
    assert set(labels_by_path(dataset)) == {"cat/1.png", f"dog/{name}"}
    assert dict(dataset.left_out) == {".txt": 1, ".mp4": 1}
    assert tmp_path / "dog" / name in find_images(tmp_path)


def test_images_of_other_formats_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, name in enumerate(["cat/1.png", "dog/1.png"]):
        put(tmp_path / name, encoded(seed))
    for name, data in {"a.jxl": JXL, "b": JXL, "c.jp2": JP2}.items():
        put(tmp_path / "dog" / name, data)
    with pytest.raises(DataError, match="2 JPEG XL, 1 JPEG 2000"):
        read_dataset(tmp_path)
    assert run_command(["data", "audit", str(tmp_path), "--json"], monkeypatch) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["left_out"] == {"JPEG XL": 2, "JPEG 2000": 1}
    assert "2 JPEG XL, 1 JPEG 2000" in printed.err


def test_ultralytics_folders_of_classes_with_a_yaml_are_read(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{s}/{c}/{s}{c}.jpg" for s in ("train", "val") for c in ("cat", "dog")))
    put(tmp_path / "data.yaml", "path: .\ntrain: train\nval: val\nnc: 2\nnames: [cat, dog]\n")
    dataset = read_dataset(tmp_path)
    assert labels_by_path(dataset) == {
        f"{side}/{name}/{side}{name}.jpg": (name,)
        for side in ("train", "val")
        for name in ("cat", "dog")
    }
    assert dict(zip(map(str, dataset.paths), dataset.split or (), strict=True)) == {
        str(path): path.parts[-3] for path in dataset.paths
    }

"""COCO files in the usual layouts."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeml.data import read_dataset
from edgeml.errors import DataError
from tests.data.readers.sets import labels_by_path, touch


def document(*names: str, **changes: Any) -> dict[str, Any]:
    """Return a COCO document: the first image has a cat and a dog, the second a dog."""
    return {
        "info": {"year": 2017},
        "images": [{"id": 10 + i, "file_name": n, "width": 640} for i, n in enumerate(names)],
        "annotations": [
            {"id": 1, "image_id": 10, "category_id": 3, "bbox": [1, 2, 3, 4], "iscrowd": 0},
            {"id": 2, "image_id": 10, "category_id": 7, "segmentation": [[1.5, 2.5]], "area": 2.0},
            {"id": 3, "image_id": 10, "category_id": 7, "iscrowd": 1},
            {"id": 4, "image_id": 11, "category_id": 7},
        ],
        "categories": [
            {"id": 3, "name": "cat", "supercategory": "animal"},
            {"id": 7, "name": "dog", "supercategory": "animal"},
        ],
        **changes,
    }


def write(file: Path, what: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(what), "utf-8")
    return file


EXPECTED = {"1.jpg": ("cat", "dog"), "2.jpg": ("dog",), "3.jpg": ()}


@pytest.mark.parametrize(
    ("file", "folder", "named"),
    [
        ("labels.json", "", ""),
        ("labels.json", "images/", ""),
        ("labels.json", "photos/", "photos/"),
        ("labels.json", "photos/", "photos\\"),
        ("instances_train2017.json", "train2017/", ""),
        ("annotations/instances_train2017.json", "train2017/", ""),
        ("annotations/instances_train2017.json", "images/train2017/", ""),
        ("annotations/labels.json", "images/", ""),
    ],
)
def test_images_are_found_in_the_usual_folders(
    tmp_path: Path, file: str, folder: str, named: str
) -> None:
    touch(tmp_path, *(folder + name for name in EXPECTED))
    path = write(tmp_path / file, document(*(named + name for name in EXPECTED)))
    dataset = read_dataset(path)
    assert {p.name: dataset.labels_of(row) for row, p in enumerate(dataset.paths)} == EXPECTED
    assert dataset.labels == ("cat", "dog")
    assert dataset.known.all()
    assert dataset.split is None


def test_the_sides_of_a_coco_folder_are_its_files(tmp_path: Path) -> None:
    for side in ("train", "val"):
        touch(tmp_path, f"{side}2017/{side}1.jpg", f"{side}2017/{side}2.jpg")
        names = (f"{side}1.jpg", f"{side}2.jpg")
        write(tmp_path / f"annotations/instances_{side}2017.json", document(*names))
        write(tmp_path / f"annotations/captions_{side}2017.json", {"images": []})
    dataset = read_dataset(tmp_path)
    assert dataset.split == ("train", "train", "val", "val")
    assert labels_by_path(dataset)["val2017/val1.jpg"] == ("cat", "dog")


def test_roboflows_export_is_read_with_its_sides(tmp_path: Path) -> None:
    above = {"id": 0, "name": "animals", "supercategory": "none"}
    below = [{"id": 3, "name": "cat", "supercategory": "animals"},
             {"id": 7, "name": "dog", "supercategory": "animals"}]  # fmt: skip
    for side in ("train", "valid", "test"):
        touch(tmp_path, f"{side}/{side}1.jpg", f"{side}/{side}2.jpg")
        content = document(f"{side}1.jpg", f"{side}2.jpg", categories=[above, *below])
        write(tmp_path / side / "_annotations.coco.json", content)
    dataset = read_dataset(tmp_path)
    assert dataset.labels == ("cat", "dog")
    assert sorted(dataset.split or ()) == ["test", "test", "train", "train", "val", "val"]


def test_a_category_without_an_image_is_a_label_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "1.jpg", "2.jpg")
    content = document("1.jpg", "2.jpg")
    content["categories"].append({"id": 99, "name": "owl", "supercategory": "animal"})
    assert read_dataset(write(tmp_path / "c.json", content)).labels == ("cat", "dog", "owl")
    assert "no image has owl" in caplog.text


def test_categories_of_one_name_are_one_label(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.jpg")
    content = document("1.jpg", "2.jpg")
    content["categories"].append({"id": 99, "name": " dog "})
    content["annotations"].append({"id": 5, "image_id": 11, "category_id": 99})
    assert read_dataset(write(tmp_path / "c.json", content)).labels == ("cat", "dog")


def test_ids_may_be_text(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.jpg")
    content = {
        "images": [{"id": "x", "file_name": "1.jpg"}, {"id": "y", "file_name": "2.jpg"}],
        "annotations": [{"image_id": "x", "category_id": "c"}, {"image_id": "y", "category_id": 1}],
        "categories": [{"id": "c", "name": "cat"}, {"id": 1, "name": "dog"}],
    }
    assert labels_by_path(read_dataset(write(tmp_path / "c.json", content))) == {
        "1.jpg": ("cat",), "2.jpg": ("dog",),
    }  # fmt: skip


def test_an_image_with_a_bad_annotation_has_unknown_labels(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    content = document("1.jpg", "2.jpg", "3.jpg")
    content["annotations"].append({"id": 5, "image_id": 11, "category_id": 404})
    dataset = read_dataset(write(tmp_path / "c.json", content), skip_bad=True)
    np.testing.assert_array_equal(dataset.targets, [[1, 1], [-1, 1], [0, 0]])
    (skipped,) = dataset.skipped
    assert skipped.where == "c.json, annotation 5"
    assert "category with the id 404" in skipped.why


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../../etc/passwd", "leads out of the folder"),
        ("/etc/passwd", "leads out of the folder"),
        ("C:\\windows\\1.jpg", "leads out of the folder"),
        ("images/..\\..\\1.jpg", "leads out of the folder"),
        ("1\0.jpg", "NUL"),
        ("1\ud800.jpg", "not UTF-8"),
        ("", "no file_name"),
        (7, "no file_name"),
    ],
)
def test_file_names_that_lead_elsewhere_are_refused_with_the_image(
    tmp_path: Path, name: object, words: str
) -> None:
    touch(tmp_path, "data/2.jpg", "1.jpg", "etc/passwd")
    content = document("1.jpg", "2.jpg")
    content["images"][0]["file_name"] = name
    with pytest.raises(DataError, match=rf"c\.json, image 10: .*{words}"):
        read_dataset(write(tmp_path / "data" / "c.json", content))


def test_the_number_of_images_without_annotations_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    with caplog.at_level(logging.INFO):
        read_dataset(write(tmp_path / "c.json", document("1.jpg", "2.jpg", "3.jpg")))
    assert "1 images have no annotation" in caplog.text

"""An audit finds planted faults, reports them with stable keys, and finds none in clean data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeml.data import Dataset, read_dataset
from edgeml.data.audit import Audit, audit
from edgeml.errors import DataError
from tests.data.dirty import make_dirty, scene


@pytest.fixture(scope="module")
def dirty(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    return audit(make_dirty(tmp_path_factory.mktemp("dirty")))


def test_every_fault_is_found(dirty: Audit) -> None:
    report = dirty.to_dict()
    assert report["images"] == 50
    assert [one["where"] for one in report["skipped"]] == [
        "labels.csv, line 54",
        "labels.csv, line 53",
    ]
    assert [one["where"] for one in report["unreadable"]] == ["images/cut.jpg"]
    assert "damaged or cut short" in report["unreadable"][0]["why"]
    assert report["unnamed"] == ["images/no-row.jpg"]
    assert report["wrong_extension"] == [{"path": "images/liar.jpg", "format": "png"}]
    assert report["formats"] == {"jpeg": 46, "png": 4}
    assert report["odd"] == {
        "cmyk": ["images/cmyk.jpg"],
        "rgba": ["images/rgba.png"],
        "palette": ["images/palette.png"],
        "grey": [],
        "16-bit": ["images/sixteen.png"],
        "rotated": ["images/rotated.jpg"],
    }
    assert report["duplicates"] == {
        "exact": [["images/000.jpg", "images/exact-twin.jpg"]],
        "near": [
            ["images/000.jpg", "images/exact-twin.jpg"],
            ["images/002.jpg", "images/near-twin.jpg"],
            ["images/004.jpg", "images/conflict.jpg"],
        ],
        "across_sides": [],
    }
    assert report["conflicts"] == [
        {
            "paths": ["images/004.jpg", "images/conflict.jpg"],
            "labels": [["dog", "night"], ["cat", "night"]],
        }
    ]
    assert report["rare"] == ["zebra"]
    assert report["labels"]["zebra"] == {"positives": 1, "negatives": 49, "unknown": 0}
    assert report["without_positives"] == report["without_negatives"] == []
    together = report["cooccurrence"]
    assert together["labels"] == ["cat", "day", "dog", "night", "zebra"]
    assert together["counts"][0] == [27, 26, 0, 1, 0]
    assert report["sizes"]["height"] == {"min": 72, "p5": 96, "median": 96, "p95": 96, "max": 96}
    assert report["split"] is None


def test_the_keys_are_stable_and_fit_json(dirty: Audit) -> None:
    report = dirty.to_dict()
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert list(report) == [
        "schema", "source", "images", "skipped", "unreadable", "unnamed", "left_out", "labels",
        "rare", "without_positives", "without_negatives", "unknown_share", "labels_per_image",
        "formats",
        "wrong_extension", "odd", "duplicates", "conflicts", "sizes", "cooccurrence",
        "exclusive", "split",
    ]  # fmt: skip
    assert report["schema"] == "edgeml.audit/1"


def test_the_summary_names_the_findings(dirty: Audit) -> None:
    lines = dict(dirty.summary())
    assert lines["Images"] == "50 usable"
    assert lines["Rows left out"].startswith("2, the first: labels.csv, line 54")
    assert lines["Unreadable images"].startswith("1: ")
    assert lines["Images that no row names"] == "1: images/no-row.jpg"
    assert lines["Odd images"] == "1 cmyk, 1 rgba, 1 palette, 1 16-bit, 1 rotated"
    assert lines["Exact duplicates"] == "1 in addition to the first of 1 group"
    assert "'images/conflict.jpg' is cat+night" in lines["Label conflicts"]
    assert lines["Labels with fewer than 20 positives"] == "zebra"


def test_unknown_targets_and_labels_without_negatives_are_counted(tmp_path: Path) -> None:
    paths = tuple(tmp_path / f"{row}.png" for row in range(4))
    for row, path in enumerate(paths):
        cv2.imwrite(str(path), scene(row))
    targets = np.array([[1, 1], [1, 0], [1, -1], [-1, -1]], np.int8)
    dataset = Dataset(root=tmp_path, paths=paths, labels=("a", "b"), targets=targets)
    report = audit(dataset).to_dict()
    assert report["labels"]["b"] == {"positives": 1, "negatives": 1, "unknown": 2}
    assert report["unknown_share"] == 0.375
    assert report["without_negatives"] == ["a"]
    assert report["labels_per_image"] == 1.0


def test_near_duplicates_on_two_sides_of_a_split_are_listed(tmp_path: Path) -> None:
    table = make_dirty(tmp_path / "data")
    dataset = read_dataset(table, skip_bad=True)
    sides = np.array(["train"] * len(dataset), dtype=object)
    sides[[path.name == "near-twin.jpg" for path in dataset.paths]] = "test"
    report = audit(replace(dataset, split=tuple(sides)))
    across = report.to_dict()["duplicates"]["across_sides"]
    assert across == [["images/002.jpg", "images/near-twin.jpg"]]
    assert dict(report.summary())["Near duplicates on two sides"] == "1 groups"
    assert report.to_dict()["split"] == {"train": 49, "test": 1}


def test_images_that_are_all_broken_are_listed(tmp_path: Path) -> None:
    paths = (tmp_path / "a.jpg", tmp_path / "b.jpg")
    paths[0].write_bytes(b"nothing")
    targets = np.eye(2, dtype=np.int8)
    report = audit(Dataset(root=tmp_path, paths=paths, labels=("a", "b"), targets=targets))
    assert [one.where for one in report.unreadable] == ["a.jpg", "b.jpg"]
    assert report.to_dict()["images"] == 0
    assert report.summary()


def test_a_missing_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        audit(tmp_path / "absent")


@pytest.mark.slow
def test_the_real_photos_are_clean_but_for_rare_labels(clothing: Path, tmp_path: Path) -> None:
    report = audit(clothing / "labels.csv").to_dict()
    assert report["images"] == 3211
    for nothing in ("skipped", "unreadable", "unnamed", "wrong_extension", "conflicts"):
        assert report[nothing] == []
    assert report["rare"] == ["blouse", "skip", "top"]
    assert report["duplicates"] == {"exact": [], "near": [], "across_sides": []}
    assert report["sizes"]["height"]["min"] == report["sizes"]["width"]["min"] == 160

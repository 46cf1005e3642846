"""Files are known by their bytes; images of formats that are not read are counted by format."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgeml.image.file_kinds import image_kind
from edgeml.predict.many_files import list_files
from tests.command import Command, colour_pictures
from tests.field.heic_file import HEIC
from tests.field.test_images import UNREAD
from tests.image.corpus import encoded, picture

JXL, JP2 = (UNREAD[name][0] for name in ("jxl", "jp2"))


@pytest.fixture(autouse=True)
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let HEIC be a format that is not read."""
    for module in ("edgeml.image.heif", "edgeml.image.file_kinds"):
        monkeypatch.setattr(f"{module}.heif_library", lambda: None)


def write_phone(folder: Path) -> Path:
    """Write a folder as it comes from phones and cameras: six images and four that are not read."""
    folder.mkdir(parents=True)
    jpeg = encoded(picture(), "JPEG")
    for name, data in {
        "1.jpg": jpeg, "2.JPG": jpeg, "3.jfif": jpeg, "4": jpeg, "5.dat": encoded(picture(), "PNG"),
        "6.ppm": encoded(picture(), "PPM"),
        "a.HEIC": HEIC, "b.jpg": HEIC, "c.jxl": JXL, "d.jp2": JP2,
        "notes.txt": b"a note", "clip.mov": UNREAD["mp4"][0], "BMW": b"a car", ".hidden.jpg": jpeg,
    }.items():  # fmt: skip
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def phone(tmp_path: Path) -> Path:
    return write_phone(tmp_path / "data" / "cat")


COUNTS = ("2 HEIC", "1 JPEG XL", "1 JPEG 2000")


@pytest.mark.runtime
def test_predict_lists_every_image_of_a_folder_and_counts_the_rest(
    phone: Path, tiny_onnx: Path, edgeml: Command
) -> None:
    result = edgeml("predict", tiny_onnx, phone, "--json")
    entries: Any = result.json
    errors = {Path(entry["source"]).name: entry["error"] for entry in entries}
    assert [name for name, error in errors.items() if not error] == [
        *("1.jpg", "2.JPG", "3.jfif", "4", "5.dat", "6.ppm")
    ]
    for name, kind in (
        ("a.HEIC", "HEIC"), ("b.jpg", "HEIC"), ("c.jxl", "JPEG XL"), ("d.jp2", "JPEG 2000"),
    ):  # fmt: skip
        assert errors[name].startswith("unsupported: ")
        assert kind in errors[name]
    assert result.status == 2
    for text in (*COUNTS, "1 .txt", "1 .mov", "1 without a suffix"):
        assert text in result.err


@pytest.mark.runtime
def test_stream_reads_the_images_of_a_folder_and_counts_the_others_as_errors(
    phone: Path, tiny_onnx: Path, edgeml: Command
) -> None:
    summary: Any = edgeml("stream", tiny_onnx, phone, "--json").json
    assert (summary["frames_in"], summary["frames_done"], summary["errors"]) == (10, 6, 4)
    for name in ("4", "5.dat"):
        summary = edgeml("stream", tiny_onnx, phone / name, "--json").json
        assert (summary["kind"], summary["frames_done"]) == ("folder", 1)


def test_an_audit_counts_other_formats_by_their_bytes(phone: Path, edgeml: Command) -> None:
    write_phone(phone.parent / "dog")
    result = edgeml("data", "audit", phone.parent, "--json")
    found: Any = result.json
    assert found["images"] == 12
    assert found["left_out"] == {
        "HEIC": 4, "JPEG XL": 2, "JPEG 2000": 2, ".txt": 2, ".mov": 2, "no suffix": 2,
    }  # fmt: skip
    assert "4 HEIC" in result.err


def test_images_without_suffixes_in_a_split_are_read(tmp_path: Path, edgeml: Command) -> None:
    for side, label in itertools.product(("train", "val"), ("cat", "dog")):
        colour_pictures(tmp_path / side / label, 4)
    for path in tmp_path.rglob("*.png"):
        path.rename(path.with_suffix(""))
    found: Any = edgeml("data", "audit", tmp_path, "--json").json
    assert found["split"] == {"train": 8, "val": 8}
    assert list(found["labels"]) == ["cat", "dog"]


def test_a_folder_without_folders_of_labels_is_refused_with_what_to_do(
    phone: Path, edgeml: Command
) -> None:
    message = edgeml.refused("data", "audit", phone)
    assert "6 images" in message
    assert all(text in message for text in COUNTS)
    assert "labels.csv" in message


def test_a_video_of_jpegs_is_not_taken_for_an_image(tmp_path: Path) -> None:
    jpeg = encoded(picture(), "JPEG")
    for name, kind in (("a.mjpg", None), ("a.mjpeg", None), ("a", ""), ("a.bin", "")):
        (tmp_path / name).write_bytes(2 * jpeg)
        assert image_kind(tmp_path / name) == kind


def test_kinds_of_names_and_bytes(tmp_path: Path) -> None:
    for name, data, kind in (
        ("broken.jpg", b"no image", ""),
        ("text", b"no image", None),
        ("BMX", b"BMX is a sport", ""),  # no suffix, and as a BMP begins: to be found damaged
        ("bm.txt", b"BM is not always a bitmap", None),
        ("scan.tif", encoded(picture(), "TIFF"), ""),
        ("photo.nef", encoded(picture(), "TIFF"), "camera raw"),
        ("drawing.png", UNREAD["svg"][0], "SVG"),
        ("clip.jpg", UNREAD["mp4"][0], "a video (MP4 or QuickTime)"),
        ("clip.mp4", UNREAD["mp4"][0], None),
        ("page.jpg", b"<!doctype html><title>404</title>", ""),
    ):
        (tmp_path / name).write_bytes(data)
        assert image_kind(tmp_path / name) == kind, name
    assert image_kind(tmp_path / "missing.jpg") == ""
    assert image_kind(tmp_path) is None


def test_a_pipe_in_a_folder_does_not_make_a_command_wait(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("there are no pipes with names here")
    os.mkfifo(tmp_path / "pipe")
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4, 3), np.uint8))
    assert [Path(name).name for name in list_files([tmp_path])] == ["a.png"]

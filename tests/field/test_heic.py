"""HEIC is read as Pillow reads it with pillow-heif or pi-heif; without them the extra is named."""

from __future__ import annotations

import importlib
import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ImageOps

from edgeml.errors import ImageError
from edgeml.image import heif
from edgeml.image.file_kinds import image_kind
from edgeml.image.frame import Frame
from edgeml.image.headers import read_header
from edgeml.image.reading import MAX_PIXELS, read_image
from tests.command import Command, colour_pictures
from tests.conftest import SHARED
from tests.field.heic_file import HEIC, turned_heic
from tests.image.corpus import picture


@pytest.fixture
def library() -> Any:
    name = heif.heif_library()
    if name is None:
        pytest.skip("neither pi-heif nor pillow-heif is installed")
    return importlib.import_module(name)


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("edgeml.image.heif", "edgeml.image.file_kinds"):
        monkeypatch.setattr(f"{module}.heif_library", lambda: None)


def by_pillow(data: bytes, library: Any) -> Frame:
    image = ImageOps.exif_transpose(library.HeifImageFile(io.BytesIO(data)))
    return np.asarray(image.convert("RGB"))[..., ::-1]


def test_a_heic_is_read_as_pillow_reads_it(library: Any, tmp_path: Path) -> None:
    frame = read_image(HEIC)
    assert np.array_equal(frame, by_pillow(HEIC, library))
    drawn = np.asarray(picture(64, 80))[..., ::-1].astype(int)
    assert np.abs(frame - drawn).mean() < 8
    (tmp_path / "a.jpg").write_bytes(HEIC)
    assert np.array_equal(read_image(tmp_path / "a.jpg"), frame)
    assert np.array_equal(read_image(library.HeifImageFile(io.BytesIO(HEIC))), frame)
    for name in ("a.jpg", "a", "a.HEIC"):
        (tmp_path / name).write_bytes(HEIC)
        assert image_kind(tmp_path / name) == ""


@pytest.mark.parametrize("angle", range(4))
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_a_heic_is_turned_once(angle: int, axis: int | None, library: Any) -> None:
    data = turned_heic(angle, axis)
    frame = read_image(data)
    assert np.array_equal(frame, by_pillow(data, library))
    turned = np.rot90(read_image(HEIC), angle)  # anticlockwise
    flipped = turned if axis is None else turned[::-1] if axis == 0 else turned[:, ::-1]
    assert np.array_equal(frame, flipped)


def test_a_damaged_or_hostile_heic_is_refused(library: Any) -> None:
    bomb = bytearray(HEIC)
    size = HEIC.index(b"ispe") + 8
    for sides, reason in (((30_000, 30_000), "too_large"), ((16, 16), "damaged")):
        struct.pack_into(">II", bomb, size, *sides)
        with pytest.raises(ImageError) as caught:
            read_image(bytes(bomb))
        assert caught.value.reason == reason
    for share in (0.9, 0.5, 0.1):
        with pytest.raises(ImageError) as caught:
            read_image(HEIC[: int(len(HEIC) * share)])
        assert caught.value.reason == "damaged"
    assert MAX_PIXELS < 30_000**2


def test_the_frame_of_a_heic_is_memory_of_its_own(library: Any) -> None:
    frames = [read_image(HEIC) for _ in range(20)]
    assert all(np.array_equal(frame, frames[0]) for frame in frames)
    assert all(frame.flags.owndata for frame in frames)


def test_without_a_library_the_extra_is_named(
    no_library: None, tmp_path: Path, edgeml: Command
) -> None:
    with pytest.raises(ImageError, match=r"edgeml\[heif\]") as caught:
        read_image(HEIC)
    assert caught.value.reason == "unsupported"
    with pytest.raises(ImageError):
        read_header(HEIC)
    for label in ("red", "blue"):
        colour_pictures(tmp_path / "data" / label, 4)
    (tmp_path / "data" / "red" / "IMG_1.jpg").write_bytes(HEIC)
    assert "edgeml[heif]" in edgeml.refused("data", "split", tmp_path / "data", "--out", "s.csv")
    result = edgeml("data", "audit", tmp_path / "data", "--json")
    assert result.json["left_out"] == {"HEIC": 1}  # type: ignore[index]


def test_with_a_library_a_heic_is_an_image_of_the_data(
    library: Any, tmp_path: Path, edgeml: Command
) -> None:
    for label in ("red", "blue"):
        colour_pictures(tmp_path / "data" / label, 4)
    (tmp_path / "data" / "red" / "IMG_1.HEIC").write_bytes(HEIC)
    found: Any = edgeml("data", "audit", tmp_path / "data", "--json").json
    assert (found["images"], found["formats"]) == (9, {"png": 8, "heif": 1})
    assert found["left_out"] == {}
    assert found["wrong_extension"] == []


def test_a_photo_from_a_phone_is_read_as_pillow_reads_it(library: Any) -> None:
    path = SHARED / "field" / "data" / "mixphone" / "IMG_1.HEIC"
    if not path.exists():
        pytest.skip("field is not beside the checkout, in ../shared")
    data = path.read_bytes()
    assert np.array_equal(read_image(data), by_pillow(data, library))

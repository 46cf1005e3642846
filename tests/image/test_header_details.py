"""The format, colours, bits and rotation in a header are those that Pillow wrote."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, features

from edgeml.image.headers import Header, header_or_none

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def written(mode: str, form: str, **options: Any) -> bytes:
    image = Image.fromarray(RGB).convert(mode)
    if mode.endswith("A"):
        image.putalpha(100)
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def rotation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


@pytest.mark.parametrize(
    ("mode", "form", "options", "expected"),
    [
        ("RGB", "JPEG", {}, ("jpeg", "rgb", 8, 1)),
        ("L", "JPEG", {}, ("jpeg", "grey", 8, 1)),
        ("CMYK", "JPEG", {}, ("jpeg", "cmyk", 8, 1)),
        ("RGB", "JPEG", {"progressive": True, "exif": rotation(8)}, ("jpeg", "rgb", 8, 8)),
        ("RGB", "PNG", {}, ("png", "rgb", 8, 1)),
        ("RGB", "PNG", {"exif": rotation(3)}, ("png", "rgb", 8, 3)),
        ("RGBA", "PNG", {}, ("png", "rgba", 8, 1)),
        ("LA", "PNG", {}, ("png", "rgba", 8, 1)),
        ("L", "PNG", {"transparency": 0}, ("png", "rgba", 8, 1)),
        ("P", "PNG", {}, ("png", "palette", 8, 1)),
        ("P", "GIF", {}, ("gif", "palette", 8, 1)),
        ("RGB", "BMP", {}, ("bmp", "rgb", 8, 1)),
        ("P", "BMP", {}, ("bmp", "palette", 8, 1)),
        ("RGBA", "BMP", {}, ("bmp", "rgba", 8, 1)),
        ("RGB", "WEBP", {}, ("webp", "rgb", 8, 1)),
        ("RGB", "WEBP", {"lossless": True}, ("webp", "rgb", 8, 1)),
        ("RGBA", "WEBP", {"lossless": True}, ("webp", "rgba", 8, 1)),
        ("RGB", "WEBP", {"exif": rotation(6)}, ("webp", "rgb", 8, 6)),
        ("RGB", "TIFF", {}, ("tiff", "rgb", 8, 1)),
        ("L", "TIFF", {}, ("tiff", "grey", 8, 1)),
        ("RGBA", "TIFF", {}, ("tiff", "rgba", 8, 1)),
        ("CMYK", "TIFF", {}, ("tiff", "cmyk", 8, 1)),
        ("P", "TIFF", {}, ("tiff", "palette", 8, 1)),
        ("RGB", "TIFF", {"exif": rotation(5)}, ("tiff", "rgb", 8, 5)),
    ],
)
def test_a_header_says_what_pillow_wrote(
    mode: str, form: str, options: dict[str, Any], expected: tuple[str, str, int, int]
) -> None:
    if form == "WEBP" and not features.check("webp"):
        pytest.skip("this Pillow writes no WebP")
    header = header_or_none(written(mode, form, **options))
    assert header is not None
    assert (header.format, header.colours, header.bits, header.orientation) == expected
    assert header.size == (20, 30)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize(("channels", "colours"), [(1, "grey"), (3, "rgb")])
def test_sixteen_bits_are_seen(suffix: str, channels: int, colours: str) -> None:
    data = cv2.imencode(suffix, RGB[..., :channels].astype(np.uint16) * 257)[1].tobytes()
    header = header_or_none(data)
    assert header is not None
    assert (header.bits, header.colours) == (16, colours)


def test_a_name_promises_a_format() -> None:
    header = Header(format="jpeg", height=1, width=1, memory=6)
    assert header.matches(Path("a/b.JPG"))
    assert header.matches(Path("b.jpeg"))
    assert not header.matches(Path("b.png"))
    assert not header.matches(Path("b"))


def test_what_is_no_picture_has_no_kind() -> None:
    for data in (b"", b"text", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"II*\0\xff\xff\xff\xff"):
        assert header_or_none(data) is None


@given(
    form=st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "TIFF"]),
    at=st.integers(0, 2000),
    byte=st.integers(0, 255),
    keep=st.integers(0, 5000),
)
def test_a_damaged_header_is_read_or_not_but_never_raises(
    form: str, at: int, byte: int, keep: int
) -> None:
    data = bytearray(written("P" if form == "GIF" else "RGB", form)[:keep])
    if at < len(data):
        data[at] = byte
    header = header_or_none(bytes(data))
    assert header is None or min(header.size) >= 0

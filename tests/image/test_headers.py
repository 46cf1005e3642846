"""What is read of a header against Pillow, and against what decoding really takes."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from edgeml.errors import ImageError
from edgeml.image.headers import read_header
from edgeml.image.png import strip_animation
from edgeml.image.reading import MAX_MEMORY, MAX_PIXELS, read_image
from tests.image.corpus import encoded, picture, png, png_header, resized_jpeg

ROOT = Path(__file__).parents[2]

KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "jpeg": ("JPEG", "RGB", {}),
    "jpeg progressive": ("JPEG", "RGB", {"progressive": True}),
    "jpeg full chroma": ("JPEG", "RGB", {"progressive": True, "subsampling": 0}),
    "jpeg cmyk": ("JPEG", "CMYK", {}),
    "png": ("PNG", "RGB", {}),
    "png 16": ("PNG", "I;16", {}),
    "png animated": ("PNG", "RGBA", {"save_all": True}),
    "gif": ("GIF", "P", {}),
    "gif animated": ("GIF", "P", {"save_all": True}),
    "bmp": ("BMP", "RGB", {}),
    "webp": ("WEBP", "RGB", {"method": 0}),
    "webp alpha": ("WEBP", "RGBA", {"method": 0}),
    "webp lossless": ("WEBP", "RGB", {"lossless": True, "method": 0, "quality": 0}),
    "webp animated": ("WEBP", "RGB", {"save_all": True, "method": 0}),
    "tiff": ("TIFF", "RGB", {}),
    "tiff packed": ("TIFF", "RGB", {"compression": "tiff_deflate"}),
    "tiff of one strip": ("TIFF", "RGBA", {"compression": "tiff_lzw", "strip_size": 1 << 30}),
    "tiff fax": ("TIFF", "1", {"compression": "group4"}),
    "avif": ("AVIF", "RGB", {"speed": 10}),
    "avif full chroma": ("AVIF", "RGB", {"speed": 10, "subsampling": "4:4:4"}),
    "avif alpha": ("AVIF", "RGBA", {"speed": 10}),
    "avif animated": ("AVIF", "RGB", {"speed": 10, "save_all": True}),
}


def made(name: str, height: int, width: int) -> bytes:
    kind, mode, options = KINDS[name]
    image = picture(height, width)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image)[..., 0].astype(np.uint16) * 257)
    elif mode != "RGB":
        image = image.convert(mode)
    if options.get("save_all"):
        options = {**options, "append_images": [image.transpose(Image.Transpose.ROTATE_180)] * 2}
    return encoded(image, kind, **options)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("sides", [(1, 1), (3, 500), (97, 33)])
def test_the_size_is_that_which_pillow_reads(name: str, sides: tuple[int, int]) -> None:
    data = made(name, *sides)
    header = read_header(data)
    with Image.open(io.BytesIO(data)) as image:
        assert (header.width, header.height) == image.size
        assert header.format == str(image.format).lower()
    assert header.memory <= MAX_MEMORY


@pytest.mark.nightly
@pytest.mark.parametrize("name", KINDS)
def test_decoding_takes_no_more_memory_than_the_header_lets_expect(
    name: str, tmp_path: Path
) -> None:
    data = made(name, 3000, 3500)
    (tmp_path / "large").write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-m", "tests.image.corpus", str(tmp_path)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)["large, bytes"]
    assert found["verdict"] == [3000, 3500]
    own = 20 << 20  # code that is loaded when it is first used, and buffers of any picture
    assert found["megabytes"] * (1 << 20) <= read_header(data).memory + own


@pytest.mark.parametrize("name", [name for name in KINDS if name.startswith("avif")])
def test_an_avif_is_as_large_as_the_stream_in_it(name: str) -> None:
    data = bytearray(made(name, 300, 400))
    at = -1
    while (at := data.find(b"ispe", at + 1)) >= 0:
        struct.pack_into(">II", data, at + 8, 7, 9)
    header = read_header(bytes(data))
    assert (header.height, header.width) == (300, 400)


def test_a_large_camera_photo_is_within_the_limits() -> None:
    # 50 megapixels, as several telephones take them; baseline, and progressive with subsampling.
    for options in ({}, {"progressive": True}):
        header = read_header(resized_jpeg(7071, **options))
        assert header.height * header.width <= MAX_PIXELS
        assert header.memory <= MAX_MEMORY


def test_a_jpeg_of_as_many_scans_as_any_encoder_writes_is_read() -> None:
    data = encoded(picture(), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    for scans, good in ((40, True), (80, False)):
        many = data[:last] + data[last:-2] * (scans - data.count(b"\xff\xda") + 1) + data[-2:]
        assert many.count(b"\xff\xda") == scans
        if good:
            assert read_header(many).height == 40
        else:
            with pytest.raises(ImageError, match="80 scans"):
                read_header(many)


def test_texts_that_are_not_compressed_do_not_count() -> None:
    plain = b"XML:com.adobe.xmp\0\0\0\0\0<x/>"
    rows = (b"IDAT", zlib.compress(bytes(8 * 25)))
    data = png(png_header(8, 8), *[(b"iTXt", plain)] * 20, rows, (b"IEND", b""))
    assert read_image(data).shape == (8, 8, 3)
    packed = b"a\0\1\0\0\0" + zlib.compress(b"b")
    data = png(png_header(8, 8), *[(b"iTXt", packed)] * 20, rows, (b"IEND", b""))
    with pytest.raises(ImageError, match="20 compressed texts"):
        read_image(data)


def test_of_a_png_with_an_animation_that_is_something_else_the_still_picture_is_taken() -> None:
    first, second = picture(), picture().transpose(Image.Transpose.ROTATE_180)
    data = encoded(first, "PNG", save_all=True, append_images=[second], default_image=True)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image.convert("RGB"))[..., ::-1]
    assert np.array_equal(read_image(data), expected)
    still = strip_animation(data)
    assert len(still) < len(data)
    assert not any(kind in still for kind in (b"acTL", b"fcTL", b"fdAT"))
    assert np.array_equal(cv2.imdecode(np.frombuffer(still, np.uint8), 1), expected)


@pytest.mark.parametrize("head", [b"\xff\xd8" + b"\xff\xe0\0\2" * 10_001, b"\xff" * 20_001])
def test_what_would_take_long_to_walk_through_is_refused(head: bytes) -> None:
    data = encoded(picture(), "JPEG")
    head = head if head.startswith(b"\xff\xd8") else b"\xff\xd8" + head
    with pytest.raises(ImageError, match="segments"):
        read_header(head + data[2:])
    rows = (b"IDAT", zlib.compress(bytes(8 * 25)))
    many = png(png_header(8, 8), rows, *[(b"IDAT", b"")] * 66_000, (b"IEND", b""))
    with pytest.raises(ImageError, match="chunks"):
        read_header(many)

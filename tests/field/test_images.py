"""Kinds of image files as users have them: the pixels that Pillow reads, or a refusal by name."""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from edgeml.errors import ImageError
from edgeml.image.frame import Frame
from edgeml.image.reading import read_image
from tests.field.image_files import (
    Order,
    exif,
    raw_profile,
    tiff,
    with_chunks,
    with_segments,
    xmp,
)
from tests.image.corpus import encoded, picture

RGB = np.asarray(picture(24, 37))
ALPHA = (np.arange(RGB[..., 0].size) * 7 % 256).astype(np.uint8).reshape(*RGB.shape[:2], 1)
RGBA = np.concatenate([RGB, ALPHA], 2)
MULTIPLIED = np.concatenate([(RGB.astype(int) * ALPHA // 255).astype(np.uint8), ALPHA], 2)
GREY, GREY_ALPHA = RGB[..., :1], RGBA[..., [0, 3]]
LAYOUTS: dict[str, dict[str, Any]] = {
    "strips": {},
    "tiles": {"tile": 16},
    "strips of planes": {"planar": True},
    "tiles of planes": {"planar": True, "tile": 16},
}


def sixteen(samples: NDArray[np.uint8]) -> NDArray[np.uint16]:
    return samples.astype(np.uint16) * np.uint16(257)


def by_pillow(data: bytes) -> Frame:
    """Decode to upright BGR."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    return np.asarray(image.convert("RGB"))[..., ::-1]


def assert_same(data: bytes, expected: Frame, limit: int = 1) -> None:
    frame = read_image(data)
    assert frame.shape == expected.shape
    assert int(np.abs(frame.astype(int) - expected).max()) <= limit


def assert_refused(data: bytes, name: str) -> None:
    with pytest.raises(ImageError) as caught:
        read_image(data)
    assert caught.value.reason == "unsupported"
    assert name in str(caught.value)


@pytest.mark.parametrize("compression", [1, 5, 8])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_alpha_of_a_tiff_does_not_change_its_colours(layout: str, compression: int) -> None:
    options = {"compression": compression, **LAYOUTS[layout]}
    for samples in (RGBA, sixteen(RGBA)):
        for extra in ((2,), (0,), (), (999,)):
            data = tiff(samples, 2, extra=extra, **options)
            assert_same(data, RGB[..., ::-1])
    for extra in ((2,), (0,)):
        data = tiff(GREY_ALPHA, 1, extra=extra, **options)
        assert_same(data, np.repeat(GREY, 3, axis=2))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("layout", ["strips", "tiles"])
def test_a_tiff_with_alpha_is_read_as_pillow_reads_it(layout: str, order: Order) -> None:
    for compression in (1, 5, 8):
        options = {"compression": compression, "order": order, **LAYOUTS[layout]}
        for deep in (False, True):
            for samples, extra in ((RGBA, 2), (RGBA, 0), (MULTIPLIED, 1)):
                made = sixteen(samples) if deep else samples
                data = tiff(made, 2, extra=(extra,), **options)
                assert_same(data, by_pillow(data))
    data = tiff(MULTIPLIED, 2, extra=(1,), planar=True, compression=5)
    assert_same(data, by_pillow(data))
    data = tiff(RGBA, 2, extra=(2,), big=True, order=order)
    assert_same(data, RGB[..., ::-1])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("compression", [1, 5])
def test_a_tiff_without_alpha_has_its_samples_in_every_layout(
    layout: str, compression: int
) -> None:
    options = {"compression": compression, **LAYOUTS[layout]}
    colours = [int(v) for v in np.arange(768) * 9973 % 65536]
    palette = (np.reshape(colours, (3, 256)).T[GREY[..., 0]] >> 8).astype(np.uint8)
    cases: Sequence[tuple[bytes, NDArray[np.uint8]]] = [
        (tiff(RGB, 2, **options), RGB),
        (tiff(sixteen(RGB), 2, **options), RGB),
        (tiff(GREY, 1, **options), np.repeat(GREY, 3, axis=2)),
        (tiff(GREY, 0, **options), 255 - np.repeat(GREY, 3, axis=2)),
        (tiff(sixteen(GREY), 1, **options), np.repeat(GREY, 3, axis=2)),
        (tiff(GREY, 3, tags=[(320, 3, colours)], **options), palette),
    ]
    for data, expected in cases:
        assert_same(data, expected[..., ::-1])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_turned_in_every_layout(orientation: int) -> None:
    for order, kind in (("<", 3), (">", 3), ("<", 4), (">", 4)):
        tags = [(274, kind, [orientation])]
        for options in ({}, {"tile": 16}, {"compression": 5, "tile": 16}):
            data = tiff(RGB, 2, order=order, tags=tags, **options)  # type: ignore[arg-type]
            assert_same(data, by_pillow(data))
        data = tiff(sixteen(MULTIPLIED), 2, extra=(1,), order=order, tags=tags)  # type: ignore[arg-type]
        assert_same(data, by_pillow(data))


def test_a_tiff_that_cannot_be_read_correctly_is_refused_by_what_it_is() -> None:
    floats = (GREY / 255).astype(np.float32)
    five = np.concatenate([RGBA, ALPHA], 2)
    for data, name in (
        (tiff(RGB, 8), "L*a*b*"),
        (tiff(RGB, 9), "L*a*b*"),
        (encoded(picture().convert("LAB"), "TIFF"), "L*a*b*"),
        (tiff(GREY, 1, sample_format=2), "signed"),
        (tiff(sixteen(GREY), 1, sample_format=2), "signed"),
        (tiff(floats, 1, sample_format=3), "floating-point"),
        (tiff(floats.astype(np.float16), 1, sample_format=3), "floating-point"),
        (tiff(GREY.astype(np.uint32), 1), "32 bits"),
        (tiff(sixteen(RGBA), 5), "CMYK of 16 bits"),
        (tiff(five, 2, extra=(2, 0)), "5 samples"),
        (tiff(five, 5, extra=(0,)), "5 samples"),
        (tiff(GREY_ALPHA, 1, extra=(1,)), "premultiplied"),
        (tiff(GREY >> 4, 1, bits=4), "4 bits"),
        (tiff(sixteen(GREY), 32803), "sensor"),
        (tiff(RGB, 2, compression=50000), "ZSTD"),
        (tiff(RGB, 2, compression=50001), "WebP"),
        (tiff(RGB, 2, compression=50002), "JPEG XL"),
        (tiff(RGB, 2, compression=34925), "LZMA"),
        (tiff(RGB, 2, compression=34712), "JPEG 2000"),
        (tiff(RGB, 2, compression=6), "JPEG"),
        (tiff(RGB, 2, compression=12345), "12345"),
    ):
        assert_refused(data, name)


EXIF = b"Exif\0\0"
XMP_IN_JPEG = b"http://ns.adobe.com/xap/1.0/\0"
XMP_IN_PNG = b"XML:com.adobe.xmp\0"


def turned_jpegs() -> dict[str, bytes]:
    jpeg = encoded(picture(), "JPEG", quality=95)
    made = {
        f"{order} {kind}": with_segments(jpeg, EXIF + exif(value, kind, order))
        for order in ("<", ">")
        for kind, value in ((3, 6), (4, 6), (8, 8), (9, 3), (11, 6.0), (12, 5.0), (1, 6), (3, 9))
    }
    block = exif(6, 4)
    return made | {
        "two of it": with_segments(jpeg, EXIF + exif(6, count=2)),
        "in two parts": with_segments(jpeg, EXIF + block[:11], EXIF + block[11:]),
        "twice marked": with_segments(jpeg, EXIF + EXIF + block),
        "xmp": with_segments(jpeg, XMP_IN_JPEG + xmp(6)),
        "xmp element": with_segments(jpeg, XMP_IN_JPEG + xmp(8, element=True)),
        "xmp of none": with_segments(jpeg, XMP_IN_JPEG + xmp(0)),
        "two xmp": with_segments(jpeg, XMP_IN_JPEG + xmp(6), XMP_IN_JPEG + xmp(3)),
        "exif before xmp": with_segments(jpeg, XMP_IN_JPEG + xmp(6), EXIF + exif(1)),
        "exif without it": with_segments(
            jpeg, EXIF + exif(6).replace(b"\x01\x12", b"\x01\x13"), XMP_IN_JPEG + xmp(6)
        ),
        "progressive": with_segments(
            encoded(picture(), "JPEG", progressive=True), XMP_IN_JPEG + xmp(6)
        ),
    }


def turned_pngs() -> dict[str, bytes]:
    png, packed = encoded(picture(), "PNG"), zlib.compress(xmp(6))
    raw = b"Raw profile type exif\0"
    return {
        "long": with_chunks(png, (b"eXIf", exif(6, 4))),
        "little": with_chunks(png, (b"eXIf", exif(8, 4, "<"))),
        "at the end": with_chunks(png, (b"eXIf", exif(6)), last=True),
        "marked": with_chunks(png, (b"eXIf", EXIF + exif(6))),
        "text": with_chunks(png, (b"tEXt", raw + raw_profile(EXIF + exif(6)))),
        "packed text": with_chunks(
            png, (b"zTXt", raw + b"\0" + zlib.compress(raw_profile(EXIF + exif(5, 4))))
        ),
        "APP1": with_chunks(
            png, (b"tEXt", b"Raw profile type APP1\0" + raw_profile(EXIF + exif(6)))
        ),
        "xmp": with_chunks(png, (b"iTXt", XMP_IN_PNG + bytes(4) + xmp(6))),
        "packed xmp": with_chunks(png, (b"iTXt", XMP_IN_PNG + b"\1\0\0\0" + packed)),
        "xmp as text": with_chunks(png, (b"tEXt", XMP_IN_PNG + xmp(3))),
        "both": with_chunks(png, (b"tEXt", raw + raw_profile(EXIF + exif(6))), (b"eXIf", exif(3))),
    }


def turned_others() -> dict[str, bytes]:
    made = {}
    for kind in (3, 4):
        for order in ("<", ">"):
            block = exif(6, kind, order)  # type: ignore[arg-type]
            made[f"webp {kind} {order}"] = encoded(picture(), "WEBP", lossless=True, exif=block)
            tags = [(274, kind, [8])]
            made[f"tiff {kind} {order}"] = tiff(RGB, 2, order=order, tags=tags)  # type: ignore[arg-type]
    made["webp xmp"] = encoded(picture(), "WEBP", lossless=True, xmp=xmp(6))
    silent = bytearray(encoded(picture(), "WEBP", lossless=True, exif=exif(6)))
    silent[20] &= ~8
    made["webp, not announced"] = bytes(silent)
    made["tiff xmp"] = tiff(RGB, 2, tags=[(700, 1, list(xmp(6)))])
    made["tiff xmp of 16 bits"] = tiff(sixteen(RGBA), 2, extra=(2,), tags=[(700, 1, list(xmp(5)))])
    made["tiff, signed"] = tiff(RGB, 2, tags=[(274, 8, [6])])
    made["avif xmp"] = encoded(picture(), "AVIF", speed=10, quality=100, xmp=xmp(6))
    return made


TURNED = {
    **{f"jpeg {name}": data for name, data in turned_jpegs().items()},
    **{f"png {name}": data for name, data in turned_pngs().items()},
    **turned_others(),
}


@pytest.mark.parametrize("name", TURNED)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_an_image_is_turned_as_pillow_turns_it(name: str) -> None:
    data = TURNED[name]
    expected = by_pillow(data)
    assert_same(data, expected)
    image = Image.open(io.BytesIO(data))
    assert int(np.abs(read_image(image).astype(int) - expected).max()) <= 1

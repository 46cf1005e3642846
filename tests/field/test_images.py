"""Kinds of image files as users have them: the pixels that Pillow reads, or a refusal by name."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from edgeml.errors import ImageError
from edgeml.image.frame import Frame
from edgeml.image.reading import read_image
from tests.field.image_files import Order, tiff
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

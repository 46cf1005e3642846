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
    lossless_jpeg,
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


def container(*brands: bytes) -> bytes:
    """Give the start of an ISO media file; its first brand is the main one."""
    content = b"ftyp" + brands[0] + bytes(4) + b"".join(brands)
    return (len(content) + 4).to_bytes(4, "big") + content + bytes(100)


def of_process(marker: int, bits: int = 8) -> bytes:
    """Give a JPEG that claims another process of ITU-T T.81, table B.1."""
    data = bytearray(encoded(picture(), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 1], data[at + 4] = marker, bits
    return bytes(data)


FIVE = np.concatenate([RGBA, ALPHA], 2)[:8, :8]
CAMERA = [(254, 4, [1]), (271, 1, list(b"A make")), (330, 4, [8])]
UNREAD: dict[str, tuple[bytes, str]] = {
    "jxl": (b"\xff\x0a\x7f\x00" + bytes(60), "JPEG XL"),
    "jxl box": (b"\0\0\0\x0cJXL \r\n\x87\n" + container(b"jxl ")[:20], "JPEG XL"),
    "jp2": (encoded(picture(), "JPEG2000"), "JPEG 2000"),
    "j2k": (encoded(picture(), "JPEG2000", no_jp2=True), "JPEG 2000"),
    "jpeg of five": (lossless_jpeg(FIVE), "5 components"),
    "jpeg of two": (lossless_jpeg(FIVE[..., :2]), "2 components"),
    "lossless grey": (lossless_jpeg(FIVE[..., :1]), "lossless JPEG"),
    "lossless arithmetic": (of_process(0xCB), "lossless JPEG"),
    "hierarchical": (of_process(0xC5), "hierarchical"),
    "jpeg of 12 bits": (of_process(0xC1, bits=12), "12 bits"),
    "jpeg-ls": (of_process(0xF7), "JPEG-LS"),
    "avis": (container(b"avis", b"msf1"), "AVIF"),
    "mp4": (container(b"isom", b"mp42"), "video"),
    "ico": (encoded(picture(), "ICO", sizes=[(16, 16)]), "ICO"),
    "psd": (b"8BPS\0\1" + bytes(60), "PSD"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "SVG"),
    "svg after xml": (
        b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- a <b> c -->\n<!DOCTYPE svg PUBLIC "-//W3C">\n'
        b'<svg width="9"></svg>', "SVG",
    ),
    "pdf": (encoded(picture(), "PDF"), "PDF"),
    "eps": (encoded(picture(), "EPS"), "PostScript"),
    "dds": (encoded(picture(), "DDS"), "DDS"),
    "icns": (encoded(picture(), "ICNS"), "ICNS"),
    "pcx": (encoded(picture(), "PCX"), "PCX"),
    "sgi": (encoded(picture(), "SGI"), "SGI"),
    "pfm": (b"PF\n2 2\n-1.0\n" + bytes(48), "PFM"),
    "exr": (b"\x76\x2f\x31\x01" + bytes(60), "OpenEXR"),
    "cr3": (container(b"crx "), "camera raw"),
    "cr2": (b"II*\0\x10\0\0\0CR\2\0" + bytes(4) + tiff(RGB, 2)[8:], "camera raw"),
    "nef": (tiff(RGB, 2, tags=CAMERA), "camera raw"),
    "dng": (tiff(RGB, 2, tags=[(50706, 1, [1, 4, 0, 0])]), "camera raw"),
    "raf": (b"FUJIFILMCCD-RAW 0201" + bytes(60), "camera raw"),
    "orf": (b"IIRO\x08\0\0\0" + bytes(60), "camera raw"),
    "rw2": (b"IIU\0\x18\0\0\0" + bytes(60), "camera raw"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNREAD)
def test_an_intact_file_of_another_format_is_refused_by_its_name(name: str) -> None:
    assert_refused(*UNREAD[name])


def test_a_damaged_file_is_not_taken_for_another_format() -> None:
    for data, reason in (
        (encoded(picture(), "JPEG")[:300], "damaged"),
        (encoded(picture(), "PNG")[:300], "damaged"),
        (b"GIF89a\4\0\4\0", "damaged"),
        (b"GIF89a\4\0\4\0\0\0\0!\xf9\4", "damaged"),
        (b"<!doctype html><title>svg</title><body><svg></svg>", "unknown_format"),
        (b"This is text about <svg> files.", "unknown_format"),
    ):
        with pytest.raises(ImageError) as caught:
            read_image(data)
        assert caught.value.reason == reason


def test_a_lossless_jpeg_in_colour_is_exact() -> None:
    assert_same(lossless_jpeg(RGB), RGB[..., ::-1], limit=0)


@pytest.mark.parametrize("kind", range(1, 7))
@pytest.mark.parametrize("largest", [255, 65535])
def test_a_file_of_netpbm_is_read_as_pillow_reads_it(kind: int, largest: int) -> None:
    samples = RGB if kind in (3, 6) else GREY
    if kind in (1, 4):
        bits = samples[..., 0] < 128
        expected = np.where(bits, 0, 255).astype(np.uint8)[..., None]
        numbers, body = bits.astype(int).ravel(), np.packbits(bits, axis=1).tobytes()
    else:
        expected = samples
        numbers = samples.astype(int).ravel() * (largest // 255)
        body = numbers.astype(">u2" if largest > 255 else "u1").tobytes()
    if kind < 4:
        body = " ".join(map(str, numbers.tolist())).encode()
    end = b"" if kind in (1, 4) else b"%d\n" % largest
    data = b"P%d\n# a comment\n%d %d\n" % (kind, RGB.shape[1], RGB.shape[0]) + end + body
    assert_same(data, np.broadcast_to(expected, RGB.shape)[..., ::-1])
    if largest == 255 or kind in (3, 6):
        assert_same(data, by_pillow(data))
    with pytest.raises(ImageError) as caught:
        read_image(data[: len(data) // 2])
    assert caught.value.reason == "damaged"


def test_a_file_of_netpbm_with_another_range_is_refused() -> None:
    assert_refused(b"P5 2 2 100\n" + bytes(4), "values up to 100")
    assert_refused(b"P6 2 2 1023\n" + bytes(24), "values up to 1023")


def test_the_transparent_colour_of_a_gif_is_shown_as_pillow_shows_it() -> None:
    palette = picture().convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    others = {"save_all": True, "append_images": [palette.rotate(180)]}
    four = picture()
    four.putalpha(Image.fromarray(np.arange(40 * 61).reshape(40, 61).astype(np.uint8)))
    for data in (
        encoded(palette, "GIF", transparency=3),
        encoded(palette, "GIF", transparency=3, comment=b"a comment"),
        encoded(palette, "GIF", transparency=3, **others),
        encoded(picture().convert("L"), "GIF", transparency=100),
        encoded(four, "GIF"),
    ):
        assert_same(data, by_pillow(data), limit=0)

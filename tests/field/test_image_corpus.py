"""Some 400 images of every kind are read as Pillow reads them, or refused by what they are."""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
import pytest
from PIL import Image, ImageOps

from edgeml.errors import ImageError
from edgeml.image.frame import Frame
from edgeml.image.reading import read_image
from tests.field.bmp_files import bmp, bmp_files, masked
from tests.field.image_corpus import INDICES, MODES, READ, RGB
from tests.field.image_files import tiff
from tests.image.corpus import encoded

KINDS = {**READ, "bmp": bmp_files}


def by_pillow(data: bytes) -> Frame | None:
    """Decode to upright BGR; of 16 bits the high byte. None where no range of values is known."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode.startswith("I;16"):
        return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode in ("I", "F"):
        return None
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))[..., ::-1]


def difference(frame: Frame, expected: Frame) -> int:
    if frame.shape != expected.shape:
        return 999
    return int(np.abs(frame.astype(int) - expected).max())


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.filterwarnings("ignore:Saving I mode images:DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_read_as_pillow_reads_it_or_refused_by_its_variant(kind: str) -> None:
    wrong, read = [], 0
    for name, data in KINDS[kind]():
        expected = by_pillow(data)
        try:
            frame = read_image(data)
        except ImageError as err:
            if err.reason != "unsupported":
                wrong.append(f"{name}: {err.reason}: {err}")
            continue
        read += 1
        if expected is None:
            if kind != "netpbm":  # in which the largest value is stated, and Pillow's mode is I
                wrong.append(f"{name}: it has no known range")
            continue
        same = read_image(Image.open(io.BytesIO(data)))
        for how, found in (("file", frame), ("PIL image", same)):
            if (apart := difference(found, expected)) > 1:
                wrong.append(f"{name}, {how}: {apart} apart")
    assert not wrong, "\n".join(wrong)
    assert read > 10


def test_a_bmp_of_any_masks_has_the_colours_that_they_select() -> None:
    for name, data, colours in masked():
        assert difference(read_image(data), colours[..., ::-1]) == 0, name
        try:
            image = by_pillow(data)
        except OSError:
            continue  # Pillow knows only some layouts
        if image is not None and not (name.endswith("info") and "abgr" in name):
            assert difference(read_image(data), image) == 0, name


def refused() -> Iterable[tuple[bytes, str]]:
    """Give images of formats and variants that are not read, and their names."""
    samples = np.asarray(RGB)
    for kind, name in (
        ("ICO", "ICO"), ("TGA", "TGA"), ("PCX", "PCX"), ("SGI", "SGI"), ("JPEG2000", "JPEG 2000"),
        ("DDS", "DDS"), ("ICNS", "ICNS"), ("PDF", "PDF"), ("EPS", "PostScript"), ("QOI", "QOI"),
        ("DIB", "DIB"),
    ):  # fmt: skip
        yield encoded(RGB, kind), name
    for kind, name in (("PCX", "PCX"), ("MSP", "MSP"), ("XBM", "XBM"), ("DIB", "DIB")):
        yield encoded(MODES["1"], kind), name
    yield encoded(MODES["F"], "PPM"), "PFM"
    yield encoded(RGB, "TGA").removesuffix(b"TRUEVISION-XFILE.\0"), "TGA"
    yield b"\0\0\2\0\1\0" + encoded(RGB, "ICO")[6:], "CUR"
    for mode, name in (
        ("LAB", "L*a*b*"),
        ("I", "signed"),
        ("F", "floating-point"),
        ("PA", "2 s"),
    ):
        yield encoded(MODES[mode], "TIFF"), name
    for method, name in (("zstd", "ZSTD"), ("lzma", "LZMA")):
        yield encoded(RGB, "TIFF", compression=method), name
    for data, name in (
        (bmp(2, bytes(14 * 37), palette=4), "2 bits"),
        (bmp(0, encoded(RGB, "JPEG"), method=4), "JPEG"),
        (bmp(0, encoded(RGB, "PNG"), method=5), "PNG"),
        (tiff(np.dstack([samples, samples[..., 0]]), 5, tags=[(332, 3, [2])]), "inks"),
        (tiff((INDICES % 4)[..., None], 1, bits=2), "2 bits"),
        (b"GIF89a\x1e\0\x14\0\0\0\0,\0\0\0\0\x1e\0\x14\0\0\x08\1\0\0;", "colours"),
        (b"8BPS\0\1" + bytes(60), "PSD"),
        (b"Image type: RGB image\r\n" + bytes(60), "IM"),
        (b"\xff\x0a" + bytes(60), "JPEG XL"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"\1\0\0\0\x6c\0\0\0" + bytes(32) + b" EMF" + bytes(60), "EMF"),
    ):
        yield data, name


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_an_image_that_is_not_read_is_refused_by_its_name() -> None:
    for data, name in refused():
        with pytest.raises(ImageError) as caught:
            read_image(data)
        assert caught.value.reason == "unsupported", name
        assert name in str(caught.value)


@pytest.mark.parametrize(
    "page", [b"<!DOCTYPE html><html>", b"\xef\xbb\xbf\n<html lang='en'>", b"<HTML><svg>"]
)
def test_a_web_page_in_the_place_of_an_image_is_named(page: bytes) -> None:
    with pytest.raises(ImageError, match="HTML") as caught:
        read_image(page + bytes(500))
    assert caught.value.reason == "unknown_format"


def test_a_file_that_is_cut_short_is_damaged() -> None:
    whole = [encoded(RGB, kind) for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM")]
    whole += [data for _, data, _ in masked()][:3]
    for data in whole:
        for share in (0.97, 0.5, 0.02):
            with pytest.raises(ImageError) as caught:
                read_image(data[: int(len(data) * share)])
            assert caught.value.reason in ("damaged", "unknown_format")


def test_a_damaged_bmp_or_gif_is_an_image_error_wherever_the_damage_is() -> None:
    random = np.random.default_rng(0)
    seeds = [data for _, data, _ in masked()][::7] + [data for _, data in READ["gif"]()][-12:]
    for seed in seeds:
        for _ in range(60):
            data = bytearray(seed)
            for at in random.integers(0, min(len(data), 160), 3):
                data[at] = int(random.choice([0, 1, 127, 128, 255]))
            try:
                assert read_image(bytes(data)).dtype == np.uint8
            except ImageError:
                continue

"""read_image against Pillow: agreement on what can be read, words on what cannot."""

from __future__ import annotations

import io
import os
import platform
import struct
import subprocess
import sys
import time
import zlib
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from edgeml.errors import ImageError, InputError
from edgeml.image.frame import Frame
from edgeml.image.jpeg import encode_jpeg
from edgeml.image.reading import MAX_PIXELS, SUFFIXES, read_image
from edgeml.image.resample import resize

LOSSLESS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "BMP": {},
    "TIFF": {},
    "WEBP": {"lossless": True, "exact": True},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    "JPEG": {"quality": 95},  # lossy, but both sides decode with libjpeg-turbo
}


def smooth(height: int = 40, width: int = 61) -> Frame:
    """Give RGB without symmetry, so that every turn and flip shows."""
    rng = np.random.default_rng(3)
    picture = cv2.GaussianBlur(rng.uniform(0, 1, (height, width, 3)), (0, 0), 3)
    low, high = picture.min(), picture.max()
    return ((picture - low) / (high - low) * 255).astype(np.uint8)


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def by_pillow(data: bytes) -> Frame:
    """Decode as Pillow would, to BGR."""
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if picture.mode == "P":
        picture = picture.convert("RGBA")
    return np.asarray(picture.convert("RGB"))[..., ::-1]


def difference(a: Frame, b: Frame) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b).max())


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    error = float(((a.astype(float) - b) ** 2).mean())
    return 10 * np.log10(255**2 / error) if error else np.inf


def test_path_bytes_pathlike_pil_and_array_are_the_same_picture(tmp_path: Path) -> None:
    frame = cv2.imdecode(np.frombuffer(encoded(Image.fromarray(smooth()), "PNG"), np.uint8), 1)
    path = tmp_path / "a shirt – grün, größe 38.png"
    data = encoded(Image.fromarray(smooth()), "PNG")
    path.write_bytes(data)
    with Image.open(path) as picture:
        from_pil = read_image(picture)
    for same in (str(path), path, data, bytearray(data), memoryview(data), frame):
        assert np.array_equal(read_image(same), frame)
    assert np.array_equal(from_pil, frame)


@pytest.mark.parametrize("kind", LOSSLESS)
def test_each_format_is_read_as_pillow_reads_it(kind: str) -> None:
    data = encoded(Image.fromarray(smooth()), kind, **LOSSLESS[kind])
    assert difference(read_image(data), by_pillow(data)) <= (1 if kind in ("AVIF", "JPEG") else 0)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied_to_files_and_to_pil_images(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(smooth()), kind, exif=exif, **LOSSLESS[kind])
    expected = by_pillow(data)
    assert expected.shape == ((40, 61, 3) if orientation < 5 else (61, 40, 3))
    assert difference(read_image(data), expected) <= 1
    assert difference(read_image(Image.open(io.BytesIO(data))), expected) <= 1


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_exif_rotation_is_applied_to_scaled_decoding_too(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(smooth(320, 480)), "JPEG", quality=95, exif=exif)
    expected = by_pillow(data)
    scaled = read_image(data, at_least=(40, 40))
    assert scaled.shape[0] * 4 == expected.shape[0]
    assert psnr(resize(scaled, (40, 40)), resize(expected, (40, 40))) >= 45


def _rgba() -> Image.Image:
    picture = Image.fromarray(smooth())
    picture.putalpha(Image.fromarray(np.arange(40 * 61).reshape(40, 61).astype(np.uint8)))
    return picture


def _palette() -> Image.Image:
    return Image.fromarray(smooth()).convert("P", palette=Image.Palette.ADAPTIVE, colors=16)


MODES: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "grey": (lambda: Image.fromarray(smooth()).convert("L"), "PNG", {}),
    "grey jpeg": (lambda: Image.fromarray(smooth()).convert("L"), "JPEG", {"quality": 95}),
    "one bit": (lambda: Image.fromarray(smooth()).convert("1"), "PNG", {}),
    "grey and alpha": (lambda: Image.fromarray(smooth()).convert("LA"), "PNG", {}),
    "alpha": (_rgba, "PNG", {}),
    "alpha webp": (_rgba, "WEBP", {"lossless": True, "exact": True}),
    "palette": (_palette, "PNG", {}),
    "palette gif": (_palette, "GIF", {}),
    "palette, one clear colour": (_palette, "PNG", {"transparency": 3}),
    "palette, alpha": (_palette, "PNG", {"transparency": bytes([0, 128] + [255] * 14)}),
    "cmyk": (lambda: Image.fromarray(smooth()).convert("CMYK"), "JPEG", {"quality": 95}),
    "progressive": (lambda: Image.fromarray(smooth()), "JPEG", {"progressive": True}),
    "group 4 fax": (
        lambda: Image.fromarray(smooth()).convert("1"),
        "TIFF",
        {"compression": "group4"},
    ),
}


@pytest.mark.parametrize("mode", MODES)
def test_each_colour_mode_is_read_as_pillow_reads_it_from_file_and_from_pil(mode: str) -> None:
    make, kind, options = MODES[mode]
    data = encoded(make(), kind, **options)
    expected = by_pillow(data)
    assert difference(read_image(data), expected) <= 1
    assert difference(read_image(Image.open(io.BytesIO(data))), expected) <= 1


def test_the_other_four_colours_of_a_jpeg_are_read_as_pillow_reads_them() -> None:
    data = bytearray(encoded(Image.fromarray(smooth()).convert("CMYK"), "JPEG", quality=95))
    transform = data.index(b"Adobe") + 11
    assert data[transform] == 0
    data[transform] = 2  # YCCK: luminance, two differences, black
    assert difference(read_image(bytes(data)), by_pillow(bytes(data))) <= 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_high_byte(kind: str) -> None:
    samples = (np.arange(40 * 61).reshape(40, 61) * 26).astype(np.uint16)
    data = encoded(Image.fromarray(samples), kind)
    expected = np.repeat((samples >> 8).astype(np.uint8)[..., None], 3, axis=2)
    assert np.array_equal(read_image(data), expected)
    assert np.array_equal(read_image(Image.open(io.BytesIO(data))), expected)
    colour = np.stack([samples, samples[::-1], samples // 3], axis=2)
    ok, data16 = cv2.imencode(f".{kind.lower()}", colour)
    assert ok
    # OpenCV rounds the samples of a TIFF in colour.
    limit = 1 if kind == "TIFF" else 0
    assert difference(read_image(data16.tobytes()), (colour >> 8).astype(np.uint8)) <= limit


def test_of_an_animation_the_first_picture_is_taken() -> None:
    first = Image.fromarray(smooth())
    others = [ImageOps.invert(first)]
    for kind, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})):
        data = encoded(first, kind, save_all=True, append_images=others, **options)  # type: ignore[arg-type]
        assert difference(read_image(data), by_pillow(data)) <= 1


@pytest.mark.parametrize("kind", [*LOSSLESS, "GIF"])
@pytest.mark.parametrize("share", [0.999, 0.9, 0.5, 0.1])
def test_a_picture_cut_short_is_refused_with_its_name(
    kind: str, share: float, tmp_path: Path
) -> None:
    data = encoded(Image.fromarray(smooth()), kind, **LOSSLESS.get(kind, {}))
    path = tmp_path / "cut short.img"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match=r"cut short\.img") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [*LOSSLESS, "GIF"])
def test_what_stands_after_a_picture_does_not_matter(kind: str) -> None:
    data = encoded(Image.fromarray(smooth()), kind, **LOSSLESS.get(kind, {}))
    assert np.array_equal(read_image(data + b"made with love " * 9), read_image(data))


@pytest.mark.parametrize(
    "data", [b"", b"x", b"This is not a picture.\n" * 50, b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"BM"]
)
def test_what_is_no_picture_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        read_image(data)
    assert "\n" not in str(caught.value)


def test_a_missing_file_a_folder_and_a_nul_are_refused(tmp_path: Path) -> None:
    for path, words, reason in (
        (tmp_path / "gone.jpg", "No such file", "missing"),
        (tmp_path, "Is a directory", "unreadable"),
        ("a\0b.jpg", "null", "unreadable"),
    ):
        with pytest.raises(ImageError, match=words) as caught:
            read_image(path)
        assert caught.value.reason == reason
        assert caught.value.source == str(path)


@pytest.mark.parametrize("thing", [None, 7, 1.5, ["a.jpg"], object()])
def test_what_cannot_be_an_image_is_refused(thing: object) -> None:
    with pytest.raises(ImageError, match="An image is") as caught:
        read_image(thing)
    assert caught.value.reason == "not_an_image"


def test_an_array_that_is_no_frame_is_refused() -> None:
    with pytest.raises(InputError):
        read_image(np.zeros((4, 4), np.uint8))


def test_pil_images_without_a_known_range_are_refused() -> None:
    for mode in ("I", "F"):
        with pytest.raises(ImageError, match="range") as caught:
            read_image(Image.new(mode, (4, 4)))
        assert caught.value.reason == "unsupported"


def _png(*chunks: tuple[bytes, bytes]) -> bytes:
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, content in chunks:
        parts += [struct.pack(">I", len(content)), kind, content]
        parts += [struct.pack(">I", zlib.crc32(kind + content))]
    return b"".join(parts)


@lru_cache
def _bombs() -> dict[str, bytes]:
    """Give small files that claim 30,000 x 30,000 pixels, one a format."""
    side = 30_000
    rows = zlib.compress(bytes((side // 8 + 1) * side), 9)
    png = _png(
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)),
        (b"IDAT", rows),
        (b"IEND", b""),
    )
    small = Image.fromarray(smooth())
    jpeg = bytearray(encoded(small, "JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", side, side)
    # The same, with garbage between the segments, which libjpeg skips.
    detour = bytes(jpeg[:2]) + b"\x00garbage" + bytes(jpeg[2:])
    gif = bytearray(encoded(small, "GIF"))
    gif[6:10] = struct.pack("<HH", side, side)
    bmp = bytearray(encoded(small, "BMP"))
    bmp[18:26] = struct.pack("<ii", side, -side)
    tiff = bytearray(encoded(small, "TIFF"))
    at = struct.unpack_from("<I", tiff, 4)[0] + 2
    for tag in (256, 257):
        while struct.unpack_from("<H", tiff, at)[0] != tag:
            at += 12
        struct.pack_into("<HII", tiff, at + 2, 4, 1, side)
    avif = bytearray(encoded(small, "AVIF"))
    at = avif.index(b"ispe")
    avif[at + 8 : at + 16] = struct.pack(">II", side, side)
    extended = b"VP8X" + struct.pack("<I", 10) + bytes(4) + 2 * (side - 1).to_bytes(3, "little")
    webp = b"RIFF" + struct.pack("<I", 4 + len(extended)) + b"WEBP" + extended
    return {
        "PNG": png,
        "JPEG": bytes(jpeg),
        "JPEG with garbage": detour,
        "GIF": bytes(gif),
        "BMP": bytes(bmp),
        "TIFF": bytes(tiff),
        "AVIF": bytes(avif),
        "WEBP": webp,
    }


@pytest.mark.parametrize("kind", _bombs())
def test_a_bomb_is_refused_by_its_header_in_no_time(kind: str) -> None:
    data = _bombs()[kind]
    assert len(data) < 150_000
    assert MAX_PIXELS < 30_000**2
    start = time.perf_counter()
    with pytest.raises(ImageError, match="30000 x 30000"):
        read_image(data)
    assert time.perf_counter() - start < 1  # it takes 4 to 14 s otherwise


def test_a_bomb_as_a_pil_image_is_refused_before_it_is_loaded() -> None:
    class Bomb:
        height = width = 30_000

        def getexif(self) -> dict[int, int]:
            return {}

        def convert(self, mode: str) -> None:
            raise AssertionError("It must not be decoded.")

    with pytest.raises(ImageError, match="30000 x 30000"):
        read_image(Bomb())


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFFFFF, 1 << 20])
def test_a_png_with_a_chunk_of_gigabytes_is_refused_fast(length: int) -> None:
    data = bytearray(encoded(Image.fromarray(smooth()), "PNG"))
    data[33:37] = struct.pack(">I", length)
    start = time.perf_counter()
    with pytest.raises(ImageError, match="chunk"):
        read_image(bytes(data))
    assert time.perf_counter() - start < 1  # it takes 4 to 14 s otherwise


def test_a_file_without_end_is_read_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/zero").exists():
        pytest.skip("there is no /dev/zero on this system")
    monkeypatch.setattr("edgeml.image.reading.MAX_BYTES", 1 << 20)
    with pytest.raises(ImageError, match="bytes; refused") as caught:
        read_image("/dev/zero")
    assert caught.value.reason == "too_many_bytes"


def test_a_large_file_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(Image.fromarray(smooth()), "PNG")
    path = tmp_path / "shirt.png"
    path.write_bytes(data)
    monkeypatch.setattr("edgeml.image.reading.MAX_BYTES", len(data))
    assert read_image(path).shape == (40, 61, 3)
    with open(path, "ab") as file:
        file.truncate(1 << 40)  # a terabyte of nothing, which takes no room
    with pytest.raises(ImageError, match="bytes; refused"):
        read_image(path)


def test_a_pipe_is_read_to_its_end() -> None:
    if not Path("/dev/fd").exists():
        pytest.skip("there is no /dev/fd on this system")
    data = encode_jpeg(smooth(100, 150))
    ours, theirs = os.pipe()
    assert len(data) < 65536  # what a pipe holds
    os.write(theirs, data)
    os.close(theirs)
    try:
        assert np.array_equal(read_image(f"/dev/fd/{ours}"), read_image(data))
    finally:
        os.close(ours)


@pytest.mark.parametrize(
    ("size", "at_least", "factor"),
    [
        ((960, 1280), (224, 224), 2),
        ((960, 1280), (120, 64), 4),
        ((960, 1280), (60, 60), 8),
        ((960, 1280), (241, 100), 1),
        ((447, 1280), (224, 224), 1),
        ((961, 1280), (64, 64), 1),
        ((1000, 1004), (64, 64), 4),
    ],
)
def test_scaled_decoding_keeps_twice_the_size_and_the_picture(
    size: tuple[int, int], at_least: tuple[int, int], factor: int
) -> None:
    data = encode_jpeg(smooth(*size), 92)
    full, scaled = read_image(data), read_image(data, at_least=at_least)
    assert scaled.shape[:2] == (size[0] // factor, size[1] // factor)
    assert psnr(resize(scaled, at_least), resize(full, at_least)) >= 46


def test_scaled_decoding_of_real_photos_keeps_45_db(clothing: Path) -> None:
    for path in sorted((clothing / "images").glob("*.jpg"))[::400]:
        photo = cv2.imread(str(path))
        assert photo is not None
        large = cv2.resize(photo, (1280, 960), interpolation=cv2.INTER_CUBIC)
        data = encode_jpeg(large, 92)
        for side in (64, 128, 224):
            scaled = read_image(data, at_least=(side, side))
            assert scaled.shape[0] < 960
            expected = resize(read_image(data), (side, side))
            assert psnr(resize(scaled, (side, side)), expected) >= 45


def test_only_jpegs_are_decoded_scaled() -> None:
    data = encoded(Image.fromarray(smooth(480, 640)), "PNG")
    assert read_image(data, at_least=(10, 10)).shape == (480, 640, 3)


def test_every_suffix_that_counts_as_a_picture_can_be_read(tmp_path: Path) -> None:
    kinds = {".jpg": "JPEG", ".tif": "TIFF"}
    for suffix in SUFFIXES:
        path = tmp_path / f"picture{suffix}"
        Image.fromarray(smooth()).save(path, kinds.get(suffix))
        assert read_image(path).shape == (40, 61, 3)


@pytest.fixture(scope="module")
def seeds() -> list[bytes]:
    small = Image.fromarray(smooth(24, 31))
    kinds = [("JPEG", {"quality": 80}), ("JPEG", {"progressive": True}), ("PNG", {})]
    kinds += [("BMP", {}), ("GIF", {}), ("WEBP", {}), ("TIFF", {}), ("AVIF", {"speed": 10})]
    return [encoded(small, kind, **options) for kind, options in kinds]  # type: ignore[arg-type]


@settings(
    max_examples=400, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
@pytest.mark.slow
def test_a_damaged_picture_gives_a_frame_or_an_image_error(
    seeds: list[bytes], capfd: pytest.CaptureFixture[str], data: st.DataObject
) -> None:
    picture = bytearray(data.draw(st.sampled_from(seeds)))
    kind = data.draw(st.sampled_from(["cut", "head", "anywhere", "insert", "delete"]))
    if kind == "cut":
        del picture[data.draw(st.integers(0, len(picture))) :]
    for _ in range(data.draw(st.integers(1, 6)) if kind != "cut" else 0):
        reach = min(64, len(picture)) if kind == "head" else len(picture)
        at = data.draw(st.integers(0, reach - 1))
        if kind == "insert":
            picture[at:at] = data.draw(st.binary(min_size=1, max_size=8))
        elif kind == "delete":
            del picture[at : at + data.draw(st.integers(1, 4))]
        else:
            picture[at] = data.draw(st.sampled_from([0, 255, 127, 128]) | st.integers(0, 255))
    at_least = data.draw(st.sampled_from([None, (1, 1), (3, 5)]))
    with suppress(ImageError):
        frame = read_image(bytes(picture), at_least=at_least)
        assert frame.dtype == np.uint8
        assert frame.ndim == 3
    # OpenCV's log is silenced; libpng and libjpeg write past it.
    assert "OpenCV" not in capfd.readouterr().err


def test_opencvs_log_level_is_restored_after_a_damaged_picture() -> None:
    # In a process of its own: the level is one for the process.
    code = (
        "from cv2.utils import logging as log\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from edgeml.image.reading import read_image\n"
        "from edgeml.errors import ImageError\n"
        "def read(data):\n"
        "    try: read_image(data)\n"
        "    except ImageError: pass\n"
        "before = log.getLogLevel()\n"
        "bad = b'GIF89a' + bytes([9, 0, 9, 0]) + bytes(40)\n"
        "with ThreadPoolExecutor(8) as pool: list(pool.map(read, [bad] * 400))\n"
        "print(before, log.getLogLevel())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = done.stdout.split()
    assert before == after
    assert done.stderr == ""


def test_the_memory_of_a_picture_is_kept_for_the_next_one(tmp_path: Path) -> None:
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        pytest.skip("only glibc is asked to keep it")
    path = tmp_path / "large.jpg"
    path.write_bytes(encode_jpeg(smooth(1080, 1920)))
    code = (
        "import resource, sys\n"
        "from edgeml.image.memory import raise_mmap_threshold\n"
        "from edgeml.image.reading import read_image\n"
        "raise_mmap_threshold()\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(5): read_image(sys.argv[1])\n"
        "before = faults()\n"
        "for _ in range(10): read_image(sys.argv[1])\n"
        "print(faults() - before)\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    # A frame of 6 MB has 1519 pages, and OpenCV holds it twice.
    assert int(done.stdout) < 10 * 300


def test_encode_jpeg_comes_back_as_nearly_the_same_picture() -> None:
    frame = smooth(64, 80)
    assert psnr(read_image(encode_jpeg(frame, 95)), frame) >= 38
    with pytest.raises(InputError):
        encode_jpeg(frame[..., 0])

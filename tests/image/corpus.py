"""Files that an image reader meets, good, bad and hostile, with what has to come of each.

All are made here by Pillow and struct. Run as a program, it reads each file of a folder in a
process of its own and prints what came of it, the CPU time and the memory:

    python -m tests.image.corpus FOLDER
"""

from __future__ import annotations

import io
import json
import os
import resource
import struct
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgeml.errors import ImageError

Chunk = tuple[bytes, bytes]


def picture(height: int = 40, width: int = 61) -> Image.Image:
    """Give a picture without symmetry, so that every turn and flip shows."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = [np.sin(5 * x + 9 * y * y), np.sin(11 * x * x + 2 * y), np.sin(7 * x * y + 3 * y)]
    return Image.fromarray((127.5 + 127.5 * np.stack(waves, axis=2)).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png(*chunks: Chunk) -> bytes:
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, content in chunks:
        parts += [struct.pack(">I", len(content)), kind, content]
        parts += [struct.pack(">I", zlib.crc32(kind + content))]
    return b"".join(parts)


def png_header(height: int, width: int, bits: int = 8, kind: int = 2, adam7: int = 0) -> Chunk:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, adam7)


def _turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture(), "JPEG", quality=95, exif=exif)


def _interlaced() -> bytes:
    """Write the seven passes of Adam7 (PNG 3rd ed., 8.1)."""
    samples, rows = np.asarray(picture()), b""
    for y, x, down, across in (
        (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
        (1, 0, 2, 1),
    ):  # fmt: skip
        rows += b"".join(b"\0" + row.tobytes() for row in samples[y::down, x::across])
    return png(png_header(40, 61, adam7=1), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))


def _animated(kind: str) -> bytes:
    first = picture()
    others = [first.rotate(90), first.rotate(180)]
    return encoded(first, kind, save_all=True, append_images=others)


def _sixteen(colour: bool) -> bytes:
    samples = (np.arange(40 * 61).reshape(40, 61) * 26).astype(">u2")
    rows = np.stack([samples, samples[::-1], samples // 3], axis=2) if colour else samples
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = png_header(40, 61, bits=16, kind=2 if colour else 0)
    return png(header, (b"IDAT", zlib.compress(raw)), (b"IEND", b""))


def _half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _bad_checksum() -> bytes:
    data = bytearray(encoded(picture(), "PNG"))
    at = data.index(b"IDAT")
    data[at + 4 + struct.unpack_from(">I", data, at - 4)[0]] ^= 0xFF
    return bytes(data)


def _endless_chunk() -> bytes:
    data = bytearray(encoded(picture(), "PNG"))
    struct.pack_into(">I", data, 33, 0xFFFFFFF0)
    return bytes(data)


def _one_bit_bomb(side: int = 30_000) -> bytes:
    rows = zlib.compress(bytes((side // 8 + 1) * side), 9)
    return png(png_header(side, side, bits=1, kind=0), (b"IDAT", rows), (b"IEND", b""))


def _texts() -> bytes:
    text = b"a\0\0" + zlib.compress(bytes(7 << 20), 9)
    rows = zlib.compress(bytes(64 * (3 * 64 + 1)))
    return png(png_header(64, 64), *[(b"zTXt", text)] * 200, (b"IDAT", rows), (b"IEND", b""))


def _scans(count: int = 3000) -> bytes:
    data = bytearray(encoded(picture(), "JPEG", progressive=True))
    at = data.index(b"\xff\xc2")
    struct.pack_into(">HH", data, at + 5, 6000, 6000)
    last = data.rindex(b"\xff\xda")
    return bytes(data[:last]) + bytes(data[last:-2]) * count + bytes(data[-2:])


def resized_jpeg(side: int, **options: Any) -> bytes:
    """Give a small JPEG whose header says that it has `side` x `side` pixels."""
    data = bytearray(encoded(picture(), "JPEG", **options))
    at = data.index(b"\xff\xc2" if options.get("progressive") else b"\xff\xc0")
    struct.pack_into(">HH", data, at + 5, side, side)
    return bytes(data)


def avif_of_two_sizes(inside: int = 5000, outside: int = 64) -> bytes:
    """Give an AVIF whose container names another size than the AV1 stream in it."""
    data = bytearray(encoded(Image.new("RGB", (inside, inside), (9, 8, 7)), "AVIF", speed=10))
    at = data.index(b"ispe")
    struct.pack_into(">II", data, at + 8, outside, outside)
    return bytes(data)


def _crash() -> bytes:
    """Give an APNG whose still picture is no part of its animation, which is damaged.

    A row of it names a filter that there is not. OpenCV 4.14 and 5.0 end the process on it.
    """
    rows = [[bytes([f * (y == 5), *range(93)]) for y in range(24)] for f in (0, 9)]
    still, damaged = (zlib.compress(b"".join(one)) for one in rows)
    control = b"fcTL", struct.pack(">IIIIIHHBB", 1, 31, 24, 0, 0, 1, 10, 0, 0)
    start = b"acTL", struct.pack(">II", 2, 0)
    moving = b"fdAT", struct.pack(">I", 2) + damaged
    return png(png_header(24, 31), start, (b"IDAT", still), control, moving, (b"IEND", b""))


def _webp_canvas(side: int) -> bytes:
    """Give an animated WebP of one small frame on a large canvas."""
    still = encoded(picture(), "WEBP", lossless=True)[12:]
    place = bytes(6) + (60).to_bytes(3, "little") + (39).to_bytes(3, "little") + bytes(4)
    canvas = b"\2\0\0\0" + 2 * (side - 1).to_bytes(3, "little")
    body = b"WEBP"
    for kind, content in ((b"VP8X", canvas), (b"ANIM", bytes(6)), (b"ANMF", place + still)):
        body += kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _tiff_of_one_strip(side: int = 7000) -> bytes:
    """Give a TIFF of 16-bit RGBA in one packed strip that holds nothing."""
    tags = [(256, side), (257, side), (258, 16), (259, 8), (262, 2), (273, 8), (277, 4)]
    tags += [(278, side), (279, 100)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(200)


def _gif(side: int) -> bytes:
    data = bytearray(encoded(picture(), "GIF"))
    struct.pack_into("<HH", data, 6, side, side)
    return bytes(data)


def _rgba() -> Image.Image:
    alpha = Image.fromarray((np.arange(40 * 61).reshape(40, 61) % 256).astype(np.uint8))
    image = picture()
    image.putalpha(alpha)
    return image


def _palette() -> Image.Image:
    return picture().convert("P", palette=Image.Palette.ADAPTIVE, colors=16)


_random = np.random.default_rng(0)

# What a reader has to make of each: a frame of that (height, width), or why it is refused.
CORPUS: dict[str, tuple[Callable[[], bytes], tuple[int, int] | str]] = {
    "baseline.jpg": (lambda: _turned(1), (40, 61)),
    "turned2.jpg": (lambda: _turned(2), (40, 61)),
    "turned3.jpg": (lambda: _turned(3), (40, 61)),
    "turned4.jpg": (lambda: _turned(4), (40, 61)),
    "turned5.jpg": (lambda: _turned(5), (61, 40)),
    "turned6.jpg": (lambda: _turned(6), (61, 40)),
    "turned7.jpg": (lambda: _turned(7), (61, 40)),
    "turned8.jpg": (lambda: _turned(8), (61, 40)),
    "progressive.jpg": (lambda: encoded(picture(), "JPEG", progressive=True), (40, 61)),
    "full_chroma.jpg": (lambda: encoded(picture(), "JPEG", subsampling=0), (40, 61)),
    "grey.jpg": (lambda: encoded(picture().convert("L"), "JPEG"), (40, 61)),
    "cmyk.jpg": (lambda: encoded(picture().convert("CMYK"), "JPEG"), (40, 61)),
    "rgb.png": (lambda: encoded(picture(), "PNG"), (40, 61)),
    "alpha.png": (lambda: encoded(_rgba(), "PNG"), (40, 61)),
    "grey_alpha.png": (lambda: encoded(picture().convert("LA"), "PNG"), (40, 61)),
    "palette.png": (lambda: encoded(_palette(), "PNG"), (40, 61)),
    "clear_palette.png": (lambda: encoded(_palette(), "PNG", transparency=3), (40, 61)),
    "one_bit.png": (lambda: encoded(picture().convert("1"), "PNG"), (40, 61)),
    "grey16.png": (lambda: _sixteen(colour=False), (40, 61)),
    "rgb16.png": (lambda: _sixteen(colour=True), (40, 61)),
    "interlaced.png": (_interlaced, (40, 61)),
    "animated.png": (lambda: _animated("PNG"), (40, 61)),
    "crash.png": (_crash, (24, 31)),
    "rgb.bmp": (lambda: encoded(picture(), "BMP"), (40, 61)),
    "still.gif": (lambda: encoded(picture(), "GIF"), (40, 61)),
    "animated.gif": (lambda: _animated("GIF"), (40, 61)),
    "lossy.webp": (lambda: encoded(picture(), "WEBP"), (40, 61)),
    "animated.webp": (lambda: _animated("WEBP"), (40, 61)),
    "rgb.tif": (lambda: encoded(picture(), "TIFF", compression="tiff_lzw"), (40, 61)),
    "rgb.avif": (lambda: encoded(picture(), "AVIF", speed=10), (40, 61)),
    "animated.avif": (lambda: _animated("AVIF"), (40, 61)),
    "float.tif": (lambda: encoded(Image.new("F", (61, 40), 0.5), "TIFF"), "unsupported"),
    "photo.jp2": (lambda: encoded(picture(), "JPEG2000"), "unsupported"),
    "empty.jpg": (lambda: b"", "empty"),
    "text.jpg": (lambda: b"This is not a picture.\n" * 50, "unknown_format"),
    "page.jpg": (lambda: b"<!doctype html><title>404</title>\n", "unknown_format"),
    "random.jpg": (lambda: _random.bytes(5000), "unknown_format"),
    "half.jpg": (lambda: _half(encoded(picture(), "JPEG")), "damaged"),
    "half.png": (lambda: _half(encoded(picture(), "PNG")), "damaged"),
    "half.webp": (lambda: _half(encoded(picture(), "WEBP")), "damaged"),
    "checksum.png": (_bad_checksum, "damaged"),
    "endless_chunk.png": (_endless_chunk, "damaged"),
    "one_bit_bomb.png": (_one_bit_bomb, "too_large"),
    "texts.png": (_texts, "damaged"),
    "scans.jpg": (_scans, "damaged"),
    "hollow.jpg": (lambda: resized_jpeg(7000), "damaged"),
    "two_sizes.avif": (avif_of_two_sizes, "too_large"),
    "canvas.webp": (lambda: _webp_canvas(7000), "too_large"),
    "one_strip.tif": (_tiff_of_one_strip, "too_large"),
    "screen.gif": (lambda: _gif(7000), "too_large"),
    "line.png": (lambda: encoded(Image.new("L", (70_000, 1)), "PNG"), "too_large"),
}  # fmt: skip


@cache
def corpus() -> dict[str, tuple[bytes, tuple[int, int] | str]]:
    """Make all files: their bytes, and what has to come of each."""
    return {name: (make(), expected) for name, (make, expected) in CORPUS.items()}


def write_corpus(folder: Path) -> Sequence[Path]:
    for name, (data, _) in corpus().items():
        (folder / name).write_bytes(data)
    return [folder / name for name in corpus()]


def measured(read: Callable[[], object]) -> dict[str, Any]:
    """Call `read` in a fork of this process; give what came, the seconds of CPU, and the MB."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        found: dict[str, Any] = {"verdict": "crashed"}
        try:
            before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
            try:
                frame = read()
                found["verdict"] = list(getattr(frame, "shape", ()))[:2]
            except ImageError as err:
                found["verdict"] = err.reason
            except Exception as err:
                found["verdict"] = f"foreign {type(err).__name__}: {err}"
            found["seconds"] = time.process_time() - start
            after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            found["megabytes"] = (after - before) / 1024
            os.write(theirs, json.dumps(found).encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with open(ours, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return json.loads(answer) if answer else {"verdict": "crashed"}  # type: ignore[no-any-return]


def main() -> None:
    """Read each file of a folder as path, bytes and PathLike, and print a JSON object of all."""
    from edgeml.image.preprocess import Preprocess
    from edgeml.image.reading import read_image

    fit = Preprocess(size=(32, 32))
    fit([read_image(picture())])  # what is loaded at the first use is not the files' cost
    results = {}
    for path in sorted(Path(sys.argv[1]).iterdir()):
        data = path.read_bytes()
        for way, image in (("path", str(path)), ("bytes", data), ("PathLike", path)):
            results[f"{path.name}, {way}"] = measured(lambda image=image: read_image(image))  # type: ignore[misc]
        batch = [str(path), data, picture()]
        results[f"{path.name}, batch"] = measured(
            lambda batch=batch: fit([read_image(one) for one in batch])  # type: ignore[misc]
        )
    print(json.dumps(results))


if __name__ == "__main__":
    main()

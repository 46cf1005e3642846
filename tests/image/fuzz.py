"""Damage real files in ways that hurt decoders, and see what reading them costs.

    python -m tests.image.fuzz SEED COUNT

Reads COUNT mutants of pictures of all formats, in forks of 100 with a limit of memory and of time,
and prints a JSON object: what killed a fork, what raised something else than ImageError, what took
more than 300 MB, and the worst of seconds and megabytes.
"""

from __future__ import annotations

import io
import json
import os
import random
import resource
import struct
import sys
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from PIL import Image

from edgeml.errors import ImageError
from edgeml.image.reading import read_image
from tests.field.image_files import tiff
from tests.image.corpus import encoded, picture

_FORK = 100
_MEMORY, _SECONDS, _LIMIT = (
    4 << 30,
    60,
    300,
)  # bytes a fork may map, CPU time, MB a picture may take

_SIDES = (
    (7000, 7000), (5000, 5000), (3000, 4000), (65535, 760), (760, 65535), (1, 65535), (65535, 1),
    (2, 20_000_000),
)  # fmt: skip


def seeds() -> list[tuple[str, bytes]]:
    """Encode two pictures in every way that a decoder has code of its own for."""
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("BMP", {}), ("GIF", {}),
        ("JPEG", {"progressive": True, "subsampling": 0}), ("WEBP", {}),
        ("WEBP", {"lossless": True}), ("AVIF", {"speed": 10}), ("TIFF", {}),
        *(("TIFF", {"compression": c}) for c in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits")),
    ]  # fmt: skip
    found = []
    for image in (picture(24, 31), picture(200, 300)):
        exif = Image.Exif()
        exif[0x0112] = 6
        found += [(kind, encoded(image, kind, **options)) for kind, options in kinds]
        moving = {"save_all": True, "append_images": [image.rotate(9), image.rotate(20)]}
        four = ("GIF", "WEBP", "PNG", "AVIF")
        found += [(f"{k} moving", encoded(image, k, **moving)) for k in four]
        found += [(f"{k} RGBA", encoded(image.convert("RGBA"), k)) for k in ("WEBP", "AVIF", "PNG")]
        found += [(f"{k} P", encoded(image.convert("P"), k)) for k in ("BMP", "PNG")]
        found += [(f"{k} 1", encoded(image.convert("1"), k)) for k in ("BMP", "PNG")]
        found.append(("TIFF fax", encoded(image.convert("1"), "TIFF", compression="group4")))
        found.append(("JPEG turned", encoded(image, "JPEG", exif=exif)))
        found.append(("JPEG CMYK", encoded(image.convert("CMYK"), "JPEG")))
        deep = Image.fromarray(np.asarray(image)[..., 0].astype(np.uint16) * 257)
        found += [(f"{k} 16", encoded(deep, k)) for k in ("PNG", "TIFF")]
        found += [(f"PPM {m}", encoded(image.convert(m), "PPM")) for m in ("RGB", "1")]
        found += _tiffs(image)
    return found  # fmt: skip


def _tiffs(image: Image.Image) -> list[tuple[str, bytes]]:
    """Write the layouts for which OpenCV needs another directory."""
    four = np.asarray(image.convert("RGBA"))
    deep = four.astype(np.uint16) * np.uint16(257)
    grey = four[..., [0, 3]]
    return [
        ("TIFF tiles", tiff(four[..., :3], tile=16)),
        ("TIFF tiles, planes", tiff(four[..., :3], tile=32, planar=True, order=">")),
        ("TIFF alpha", tiff(four, extra=(1,), compression=5, tags=[(274, 3, [6])])),
        ("TIFF alpha 16", tiff(deep, extra=(1,), compression=8, tile=16)),
        ("TIFF grey, planes", tiff(grey, 1, extra=(2,), planar=True, big=True)),
    ]


def mutant(data: bytes, rng: random.Random) -> bytes:
    """Damage a file here and there, most often its head, and perhaps announce other sides."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        reach = (
            len(found) if rng.random() < 0.4 else min(len(found), rng.choice((32, 64, 256, 700)))
        )
        at, way = rng.randrange(reach), rng.random()
        if way < 0.3:
            found[at] = rng.choice((0, 1, 16, 64, 127, 128, 255, rng.randrange(256)))
        elif way < 0.65:
            size = rng.choice((2, 4))
            value = rng.choice((0, 1, 7000, 20_000, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1))
            value = value % (1 << 8 * size) if rng.random() < 0.9 else rng.getrandbits(8 * size)
            found[at : at + size] = value.to_bytes(size, rng.choice(("big", "little")))
        elif way < 0.75:
            del found[at : at + rng.choice((1, 2, 4, 16))]
        elif way < 0.85:
            found[at:at] = bytes(rng.choice((1, 2, 4, 64)))
        else:
            start = rng.randrange(len(found))
            found[at:at] = found[start : start + rng.choice((4, 16, 100))] * rng.choice((1, 3, 100))
        found = found or bytearray(b"x")
    done = _with_other_sides(data, bytes(found), rng) if rng.random() < 0.35 else bytes(found)
    return _with_checksums(done) if rng.random() < 0.85 else done


def _with_other_sides(original: bytes, data: bytes, rng: random.Random) -> bytes:
    """Replace the sides wherever they stand in a way that one of the formats has."""
    width, height = Image.open(io.BytesIO(original)).size
    tall, wide = rng.choice(_SIDES)
    for code in (">H", "<H", ">I", "<I"):
        pairs = [((height, width), (tall, wide)), ((width, height), (wide, tall))]
        for before, after in pairs:
            with suppress(struct.error):
                old, new = (b"".join(struct.pack(code, n) for n in two) for two in (before, after))
                data = data.replace(old, new, rng.choice((1, 2)))
    for tag, old_side, new_side in ((256, width, wide), (257, height, tall), (278, height, tall)):
        for order in "<>":
            entry = struct.pack(order + "HHI", tag, 4, 1) + struct.pack(order + "I", new_side)
            for kind, code in ((4, "I"), (3, "H")):
                head = struct.pack(order + "HHI" + code, tag, kind, 1, old_side)
                data = data.replace(head + bytes(12 - len(head)), entry)
    old, new = (
        b"".join((side - 1).to_bytes(4, "little")[:3] for side in two)
        for two in ((width, height), (wide, tall))
    )
    return data.replace(old, new)


def _with_checksums(data: bytes) -> bytes:
    """Give the chunks of a PNG right checksums, without which no damage is looked at."""
    found, position = bytearray(data), 8
    while data.startswith(b"\x89PNG") and position + 12 <= len(found):
        end = position + 8 + struct.unpack_from(">I", found, position)[0]
        if end + 4 > len(found):
            break
        struct.pack_into(">I", found, end, zlib.crc32(found[position + 4 : end]))
        position = end + 4
    return bytes(found)


def _read_all(mutants: Sequence[bytes], pipe: int) -> None:
    """Read mutants in a fork, and tell of each: a line before it, a line after it."""
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libpng and libjpeg write past OpenCV's log
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    base = peak
    for data in mutants:
        os.write(pipe, b"started\n")
        start, foreign = time.process_time(), ""
        try:
            read_image(data)
        except ImageError:
            pass
        except Exception as err:
            foreign = f"{type(err).__name__}: {err}"
        now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        grown = (now - base) / 1024 if now > peak else 0.0
        peak = now
        found = [foreign, time.process_time() - start, grown]
        os.write(pipe, json.dumps(found).encode() + b"\n")


def fuzz(seed: int, count: int) -> dict[str, Any]:
    """Read `count` mutants; give what went wrong, with the mutants themselves as hex."""
    rng, originals = random.Random(seed), seeds()
    result: dict[str, Any] = {"mutants": 0, "wrong": [], "seconds": 0.0, "megabytes": 0.0}
    while result["mutants"] < count:
        chosen = [rng.choice(originals) for _ in range(_FORK)]
        mutants = [mutant(data, rng) for _, data in chosen]
        ours, theirs = os.pipe()
        child = os.fork()
        if not child:
            try:
                _read_all(mutants, theirs)
            finally:
                os._exit(0)
        os.close(theirs)
        with open(ours, "rb") as pipe:
            lines = pipe.read().splitlines()
        status = os.waitpid(child, 0)[1]
        for index, line in enumerate(lines[1::2]):
            foreign, seconds, megabytes = json.loads(line)
            result["seconds"] = max(result["seconds"], seconds)
            result["megabytes"] = max(result["megabytes"], megabytes)
            if foreign or megabytes > _LIMIT:
                what = foreign or f"{megabytes:.0f} MB"
                result["wrong"].append([chosen[index][0], what, mutants[index].hex()])
        if status or len(lines) % 2:
            index = len(lines) // 2
            result["wrong"].append([chosen[index][0], f"status {status}", mutants[index].hex()])
        result["mutants"] += _FORK
    return result


if __name__ == "__main__":
    print(json.dumps(fuzz(int(sys.argv[1]), int(sys.argv[2]))))

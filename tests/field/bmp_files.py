"""BMPs of every header, depth and layout of bits."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.field.image_corpus import (
    COLOURS,
    HEIGHT,
    INDICES,
    RGB,
    WIDTH,
    in_all_modes,
    in_odd_sizes,
)

_HEADERS = {"core": 12, "info": 40, "v2": 52, "v3": 56, "v4": 108, "v5": 124}
_random = np.random.default_rng(1)
_NUMBERS = _random.integers(0, 2**32, (HEIGHT, WIDTH))
MASKS_16 = {
    "565": (0xF800, 0x7E0, 0x1F, 0), "555": (0x7C00, 0x3E0, 0x1F, 0),
    "1555": (0x7C00, 0x3E0, 0x1F, 0x8000), "4444": (0xF00, 0xF0, 0xF, 0xF000),
}  # fmt: skip
MASKS_32 = {
    "bgrx": (0xFF0000, 0xFF00, 0xFF, 0), "bgra": (0xFF0000, 0xFF00, 0xFF, 0xFF000000),
    "rgba": (0xFF, 0xFF00, 0xFF0000, 0xFF000000), "abgr": (0xFF000000, 0xFF0000, 0xFF00, 0xFF),
    "argb": (0xFF00, 0xFF0000, 0xFF000000, 0xFF), "10 bits": (0x3FF00000, 0xFFC00, 0x3FF, 0),
}  # fmt: skip


def bmp(
    bits: int, rows: bytes, *, header: str = "info", method: int = 0, top: bool = False,
    masks: tuple[int, ...] = (), palette: int = 0,
) -> bytes:  # fmt: skip
    """Write a BMP of rows that are already laid out."""
    size = _HEADERS[header]
    colours = COLOURS[:palette, ::-1]
    if header == "core":
        head, table = struct.pack("<IHHHH", size, WIDTH, HEIGHT, 1, bits), colours.tobytes()
    else:
        height = -HEIGHT if top else HEIGHT
        head = struct.pack(
            "<IiiHHIIiiII", size, WIDTH, height, 1, bits, method, len(rows), 0, 0, palette, 0
        )
        packed = struct.pack(f"<{len(masks)}I", *masks)
        head += packed.ljust(size - 40, b"\0")[: size - 40] if size > 40 else packed[:12]
        table = np.pad(colours, ((0, 0), (0, 1))).tobytes()
    start = 14 + len(head) + len(table)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + head + table + rows


def _rows(samples: NDArray[Any], top: bool = False) -> bytes:
    """Lay out rows from the bottom, each padded to four bytes."""
    rows = samples if top else samples[::-1]
    return b"".join(row.tobytes() + bytes(-row.nbytes % 4) for row in rows)


def _packed(bits: int) -> NDArray[np.uint8]:
    spread = (INDICES % 2**bits)[..., None] >> np.arange(bits - 1, -1, -1) & 1
    return np.packbits(spread.reshape(HEIGHT, -1).astype(np.uint8), axis=1)


def masked() -> Iterator[tuple[str, bytes, NDArray[np.uint8]]]:
    """Give files of 16 and 32 bits with masks, and their colours (H, W, 3), RGB."""
    for bits, kinds in ((16, MASKS_16), (32, MASKS_32)):
        numbers = _NUMBERS % 2**bits
        for (name, masks), header in ((k, h) for k in kinds.items() for h in _HEADERS):
            if header == "core":
                continue
            shares = [(numbers & m) // (m & -m) * 255 // (m // (m & -m)) for m in masks[:3]]
            data = bmp(bits, _rows(numbers.astype(f"<u{bits // 8}")), header=header, method=3,
                       masks=masks)  # fmt: skip
            yield f"{bits} {name} {header}", data, np.stack(shares, 2).astype(np.uint8)


def bmp_files() -> Iterator[tuple[str, bytes]]:
    yield from in_all_modes("BMP")
    yield from in_odd_sizes("BMP")
    bgr, short = np.asarray(RGB)[..., ::-1], (_NUMBERS % 65536).astype("<u2")
    for top in (False, True):
        yield f"16 {top}", bmp(16, _rows(short, top), top=top)
        yield f"24 {top}", bmp(24, _rows(bgr, top), top=top)
        yield f"8 {top}", bmp(8, _rows(INDICES, top), top=top, palette=256)
    yield "32", bmp(32, _rows(_NUMBERS.astype("<u4")))
    yield "24 v5", bmp(24, _rows(bgr), header="v5")
    for bits in (1, 4, 8):
        for header in ("core", "info"):
            rows = _rows(_packed(bits) if bits < 8 else INDICES)
            yield f"{bits} {header}", bmp(bits, rows, header=header, palette=2**bits)
    yield "8 of 16 colours", bmp(8, _rows(INDICES), palette=16)
    yield "24 core", bmp(24, _rows(bgr), header="core")
    yield "rle8", bmp(8, _rle(8), method=1, palette=256)
    yield "rle8 with gaps", bmp(8, _gaps(), method=1, palette=256)
    yield "rle4", bmp(4, _rle(4), method=2, palette=16)


def _rle(bits: int) -> bytes:
    """Pack rows in runs of one or two pixels, some of 8 bits in runs as they are."""
    out = b""
    for row in INDICES[::-1].tolist():
        if bits == 4:
            pairs = [(row[i], (row[i + 1 : i + 2] or [0])[0]) for i in range(0, WIDTH, 2)]
            counts = [2] * (WIDTH // 2) + [1] * (WIDTH % 2)
            runs = zip(counts, pairs, strict=True)
            out += b"".join(bytes([n, (a << 4) | b]) for n, (a, b) in runs)
        else:
            out += bytes([0, 4, *row[:4]]) + b"".join(bytes([1, one]) for one in row[4:])
        out += b"\0\0"
    return out + b"\0\1"


def _gaps() -> bytes:
    """Give runs with a jump between them, and rows that end early."""
    return b"".join(bytes([10, 3, 0, 2, 5, 0, 20, 7, 0, 0]) for _ in range(HEIGHT)) + b"\0\1"

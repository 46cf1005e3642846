"""Write small image files of kinds that Pillow does not write: TIFF of any layout, XMP, EXIF."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

_CODES = {1: "B", 2: "B", 3: "H", 4: "I", 7: "B", 8: "h", 9: "i", 11: "f", 12: "d", 16: "Q"}

Order = Literal["<", ">"]
Tag = tuple[int, int, Sequence[Any]]
"""Its number, its type, its values."""


def directory(tags: Sequence[Tag], order: Order, start: int = 8, big: bool = False) -> bytes:
    """Give a TIFF's head and first directory (TIFF 6.0, section 2); long values follow it."""
    mark = b"II" if order == "<" else b"MM"
    if big:
        start = 16
        head = mark + struct.pack(order + "HHHQ", 43, 8, 0, start)
        count, room, entry, code = struct.pack(order + "Q", len(tags)), 8, 20, "Q"
    else:
        head = mark + struct.pack(order + "HI", 42, start)
        count, room, entry, code = struct.pack(order + "H", len(tags)), 4, 12, "I"
    after = start + len(count) + entry * len(tags) + room
    entries, rest = b"", b""
    for tag, kind, values in sorted(tags):
        content = struct.pack(f"{order}{len(values)}{_CODES[kind]}", *values)
        entries += struct.pack(order + "HH" + code, tag, kind, len(values))
        if len(content) > room:
            entries += struct.pack(order + code, after + len(rest))
            rest += content + bytes(len(content) % 2)
        else:
            entries += content.ljust(room, b"\0")
    return head.ljust(start, b"\0") + count + entries + bytes(room) + rest


def lzw(data: bytes) -> bytes:
    """Pack as TIFF's LZW without ever using its table: codes of 9 bits, cleared in time."""
    codes: list[int] = []
    for first in range(0, len(data), 200):
        codes += [256, *data[first : first + 200]]
    bits = np.array([*codes, 257])[:, None] >> np.arange(8, -1, -1) & 1
    return np.packbits(bits.astype(np.uint8)).tobytes()


_PACK: dict[int, Callable[[bytes], bytes]] = {
    1: bytes, 5: lzw, 8: zlib.compress, 32946: zlib.compress,
}  # fmt: skip


def tiff(
    samples: NDArray[Any], photometric: int = 2, *, extra: Sequence[int] = (), order: Order = "<",
    compression: int = 1, planar: bool = False, tile: int = 0, rows: int = 7, big: bool = False,
    sample_format: int = 0, bits: int = 0, tags: Sequence[Tag] = (),
) -> bytes:  # fmt: skip
    """Write samples (H, W, C) as a TIFF; `tile` is a side, `bits` an 8 or less to pack into."""
    height, width, channels = samples.shape
    depth = bits or 8 * samples.itemsize
    planes = np.split(samples, channels, axis=2) if planar else [samples]
    pieces = []
    for plane in planes:
        if tile:
            down, across = -(-height // tile) * tile, -(-width // tile) * tile
            full = np.pad(plane, ((0, down - height), (0, across - width), (0, 0)))
            parts = [
                full[y : y + tile, x : x + tile]
                for y in range(0, down, tile)
                for x in range(0, across, tile)
            ]
        else:
            parts = [plane[y : y + rows] for y in range(0, height, rows)]
        pieces += [_PACK.get(compression, bytes)(_raw(part, order, bits)) for part in parts]
    where = [(322, 4, [tile]), (323, 4, [tile])] if tile else [(278, 4, [rows])]
    place, length = (324, 325) if tile else (273, 279)
    entries: list[Tag] = [
        (256, 4, [width]), (257, 4, [height]), (258, 3, [depth] * channels),
        (259, 3, [compression]), (262, 3, [photometric]), (277, 3, [channels]),
        (284, 3, [2 if planar else 1]), (length, 4, [len(piece) for piece in pieces]), *where,
        *tags,
    ]  # fmt: skip
    if extra:
        entries.append((338, 3, list(extra)))
    if sample_format:
        entries.append((339, 3, [sample_format] * channels))
    head = b""
    for _ in range(2):  # the first time only to learn how long it is
        offsets = [len(head) + sum(map(len, pieces[:i])) for i in range(len(pieces))]
        head = directory([*entries, (place, 4, offsets)], order, big=big)
    return head + b"".join(pieces)


def _raw(part: NDArray[Any], order: Order, bits: int) -> bytes:
    if bits and bits < 8:
        rows = part.reshape(len(part), -1)
        spread = (rows[..., None] >> np.arange(bits - 1, -1, -1) & 1).reshape(len(part), -1)
        return np.packbits(spread.astype(np.uint8), axis=1).tobytes()
    return part.astype(part.dtype.newbyteorder(order)).tobytes()


def exif(value: Any, kind: int = 3, order: Order = ">", count: int = 1) -> bytes:
    """Give an EXIF block that holds only an orientation, of any type of number."""
    return directory([(274, kind, [value] * count)], order)


def xmp(value: int, element: bool = False) -> bytes:
    """Give an XMP packet with an orientation, as an attribute or an element."""
    name = f"<tiff:Orientation>{value}</tiff:Orientation>" if element else ""
    attribute = "" if element else f' tiff:Orientation="{value}"'
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description'
        f"{attribute}>{name}</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


def with_segments(jpeg: bytes, *contents: bytes) -> bytes:
    """Insert APP1 segments at the start of a JPEG."""
    parts = [b"\xff\xe1" + struct.pack(">H", len(one) + 2) + one for one in contents]
    return jpeg[:2] + b"".join(parts) + jpeg[2:]


def with_chunks(png: bytes, *chunks: tuple[bytes, bytes], last: bool = False) -> bytes:
    """Insert chunks after the header of a PNG, or before its end."""
    parts = [
        struct.pack(">I", len(content)) + kind + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    ]  # fmt: skip
    at = len(png) - 12 if last else 33
    return png[:at] + b"".join(parts) + png[at:]


def raw_profile(block: bytes) -> bytes:
    """Give the text in which ImageMagick keeps a block in a PNG."""
    lines = [block.hex()[i : i + 72] for i in range(0, 2 * len(block), 72)]
    return "\n".join(["", "exif", f"{len(block):8}", *lines, ""]).encode()


def lossless_jpeg(samples: NDArray[np.uint8]) -> bytes:
    """Write samples (H, W, C) as JPEG's process 14 (ITU-T T.81, annex H): each after its left."""
    values = samples.astype(int)
    before = np.empty_like(values)
    before[:, 1:], before[1:, 0], before[0, 0] = values[:, :-1], values[:-1, 0], 128
    bits = ""
    for change in (values - before).ravel().tolist():
        size = abs(change).bit_length()
        bits += f"{size:05b}"  # 17 sizes, each with a code of 5 bits
        bits += f"{change if change > 0 else change + (1 << size) - 1:0{size}b}" if size else ""
    bits += "1" * (-len(bits) % 8)
    body = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    height, width, count = samples.shape
    numbers = range(1, count + 1)
    frame = struct.pack(">BHHB", 8, height, width, count)
    frame += b"".join(bytes([n, 0x11, 0]) for n in numbers)
    codes = bytes([0, 0, 0, 0, 0, 17, *[0] * 11, *range(17)])
    scan = bytes([count, *(byte for n in numbers for byte in (n, 0)), 1, 0, 0])
    segments = b"".join(
        bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content
        for marker, content in ((0xC3, frame), (0xC4, codes), (0xDA, scan))
    )
    return b"\xff\xd8" + segments + body + b"\xff\xd9"

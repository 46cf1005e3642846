"""The size of an AVIF: of its container, and of the AV1 streams in it, which decide its cost.

libavif decodes a stream at the size in the stream's own header, and shrinks the result to the
container's: a file of 1 kB with 64 x 64 pixels may take gigabytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from edgeml.errors import ImageError
from edgeml.image.unread import unread_error

_MAX_ITEMS = 4096
_MAX_OBUS = 4096
_SEQUENCE_HEADER = 1
_PROPERTIES = (b"meta", b"iprp", b"ipco")


def avif_size(data: bytes) -> tuple[int, int, bool]:
    """Return the largest (height, width) that a decoder meets, and whether there is an alpha.

    Raises ImageError for a damaged file; struct.error or IndexError for one that is cut short.
    """
    sizes, alpha = item_sizes(data), False
    for kind, _, _ in _walk(data, 0, len(data), _PROPERTIES):
        alpha = alpha or kind == b"auxC"
    if not sizes and data[8:12] == b"avis":
        raise unread_error("an AVIF sequence without a still image")
    if not sizes:
        raise ImageError("it is an AVIF without a size")
    for stream in _streams(data):
        sizes += _sizes_in(stream)
    height, width = max(sizes, key=lambda size: size[0] * size[1])
    return height, width, alpha


def item_sizes(data: bytes) -> list[tuple[int, int]]:
    """Return the (height, width) of each image in a HEIF, as its container states them."""
    sizes = []
    for kind, start, end in _walk(data, 0, len(data), _PROPERTIES):
        if kind == b"ispe" and end - start >= 12:  # ISO/IEC 23008-12, 6.5.3
            width, height = struct.unpack_from(">II", data, start + 4)
            sizes.append((height, width))
    return sizes


def stated_turn(data: bytes) -> int:
    """Return how an AVIF's container states that it must be turned, as a value of EXIF's tag.

    `irot` turns anticlockwise, then `imir` flips (ISO/IEC 23008-12, 6.5.10 and 6.5.12).
    """
    places = [(kind, start) for kind, start, _ in _walk(data, 0, len(data), _PROPERTIES)]
    turn, axis = 0, None
    for index in _properties_of_primary(data):
        kind, start = places[index - 1] if 0 < index <= len(places) else (b"", 0)
        if kind == b"irot":
            turn = data[start] & 3
        elif kind == b"imir":
            axis = data[start] & 1
    if axis is None:
        return (1, 8, 3, 6)[turn]
    return ((4, 5, 2, 7), (2, 7, 4, 5))[axis][turn]


def _properties_of_primary(data: bytes) -> Iterator[int]:
    """Yield the numbers of the primary item's properties (ISO/IEC 23008-12, 9.3)."""
    primary = None
    for kind, start, _ in _walk(data, 0, len(data), (b"meta",)):
        if kind == b"pitm":
            primary = struct.unpack_from(">I" if data[start] else ">H", data, start + 4)[0]
    for kind, start, end in _walk(data, 0, len(data), (b"meta", b"iprp")):
        position = start + 8
        if kind != b"ipma":
            continue
        item, wide = (">I" if data[start] else ">H"), data[start + 3] & 1
        for _ in range(min(struct.unpack_from(">I", data, start + 4)[0], _MAX_ITEMS)):
            if position >= end:
                break
            number = struct.unpack_from(item, data, position)[0]
            position += struct.calcsize(item)
            count, position = data[position], position + 1
            found = struct.unpack_from(f">{count}{'H' if wide else 'B'}", data, position)
            position += count * (1 + wide)
            if number == primary:
                yield from (value & (0x7FFF if wide else 0x7F) for value in found)


def _walk(
    data: bytes, start: int, end: int, path: tuple[bytes, ...]
) -> Iterator[tuple[bytes, int, int]]:
    """Walk the boxes (ISO/IEC 14496-12, 4.2) under `path`: their kinds, where their content is."""
    while start + 8 <= end:
        length, kind = struct.unpack_from(">I4s", data, start)
        head = 8
        if length == 1:
            length, head = struct.unpack_from(">Q", data, start + 8)[0], 16
        elif length == 0:
            length = end - start
        if length < head:
            raise ImageError("it is a damaged AVIF: a box is shorter than its head")
        # A box that runs past the end may be one that no codec reads.
        stop = min(start + length, end)
        if not path:
            yield kind, start + head, stop
        elif kind == path[0]:
            head += 4 if kind == b"meta" else 0  # its version and flags
            yield from _walk(data, start + head, stop, path[1:])
        start = stop


def _streams(data: bytes) -> Iterator[memoryview]:
    """Yield the content of each item, and the start of each track of an animation."""
    boxes = list(_walk(data, 0, len(data), (b"meta",)))
    inside = next((start for kind, start, _ in boxes if kind == b"idat"), 0)
    for kind, start, _ in boxes:
        if kind == b"iloc":
            yield from _items(data, start, inside)
    table = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
    for kind, start, _ in _walk(data, 0, len(data), table):
        if kind in (b"stco", b"co64") and struct.unpack_from(">I", data, start + 4)[0]:
            first = struct.unpack_from(">I" if kind == b"stco" else ">Q", data, start + 8)[0]
            yield memoryview(data)[first:]


def _items(data: bytes, start: int, idat: int) -> Iterator[memoryview]:
    """Read the locations of items (ISO/IEC 14496-12, 8.11.3), and join the parts of each."""
    version, sizes = data[start], struct.unpack_from(">BB", data, start + 4)
    offset_size, length_size, base_size, index_size = (
        size for pair in sizes for size in (pair >> 4, pair & 15)
    )
    index_size = index_size if version else 0
    position, view = start + 6, memoryview(data)

    def number(size: int) -> int:
        nonlocal position
        position += size
        if position > len(data):
            raise IndexError
        return int.from_bytes(data[position - size : position], "big")

    count = number(2 if version < 2 else 4)
    if count > _MAX_ITEMS:
        raise ImageError(f"it is an AVIF of {count} items")
    for _ in range(count):
        number(2 if version < 2 else 4)
        method = number(2) & 15 if version else 0
        number(2)
        base = number(base_size) + (idat if method == 1 else 0)
        parts = []
        for _ in range(number(2)):
            number(index_size)
            offset, length = base + number(offset_size), number(length_size)
            parts.append(view[offset : offset + length] if length else view[offset:])
        yield parts[0] if len(parts) == 1 else memoryview(b"".join(parts))


def _sizes_in(stream: memoryview) -> Iterator[tuple[int, int]]:
    """Read the sizes in AV1's sequence headers (AV1 specification, 5.3 to 5.5), or a grid's.

    Another kind of stream, EXIF for example, has none.
    """
    if len(stream) in (8, 12) and not stream[0]:  # ISO/IEC 23008-12, 6.6.2.3.2
        width, height = struct.unpack_from(">II" if stream[1] & 1 else ">HH", stream, 4)
        yield height, width
    position = 0
    for _ in range(_MAX_OBUS):
        if position >= len(stream):
            return
        head = stream[position]
        position += 2 if head & 4 else 1
        length = len(stream) - position
        if head & 2:
            length = 0
            for shift in range(0, 56, 7):
                byte = stream[position] if position < len(stream) else 0
                position += 1
                length |= (byte & 127) << shift
                if byte < 128:
                    break
        if head >> 3 & 15 == _SEQUENCE_HEADER:
            yield _sequence_size(stream[position : position + min(length, 1024)])
        position += length


def _sequence_size(content: memoryview) -> tuple[int, int]:
    """Read the largest frame of a sequence header (AV1 specification, 5.5.1)."""
    bits, left = int.from_bytes(content, "big"), 8 * len(content)

    def read(count: int) -> int:
        nonlocal left
        left -= count
        if left < 0:
            raise IndexError
        return bits >> left & ((1 << count) - 1)

    read(4)  # the profile, and whether it is a still picture
    if read(1):  # a reduced header
        read(5)
    else:
        delay_bits = 0
        if read(1):  # timing
            read(64)
            if read(1):
                zeros = 0
                while not read(1):
                    zeros += 1
                read(zeros if zeros < 32 else 0)
            if read(1):  # a model of the decoder
                delay_bits = read(5) + 1
                read(42)
        delays = read(1)
        for _ in range(read(5) + 1):
            read(12)
            if read(5) > 7:
                read(1)
            if delay_bits and read(1):
                read(2 * delay_bits + 1)
            if delays and read(1):
                read(4)
    width_bits, height_bits = read(4) + 1, read(4) + 1
    width, height = read(width_bits) + 1, read(height_bits) + 1
    return height, width

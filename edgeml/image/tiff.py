"""The first directory of a TIFF, which is also the form of EXIF (TIFF 6.0, section 2; BigTIFF)."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeml.errors import ImageError

# Nobody writes so many; a damaged count would keep a processor busy for minutes.
_MAX_TAGS = 4096

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
(
    WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, STRIP_OFFSETS, ORIENTATION, SAMPLES, ROWS,
    STRIP_BYTES, PLANAR, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES, EXTRA_SAMPLES,
    SAMPLE_FORMAT, XMP,
) = (
    256, 257, 258, 259, 262, 273, 274, 277, 278, 279, 284, 322, 323, 324, 325, 338, 339, 700,
)  # fmt: skip
_INTEGERS = {1: "B", 3: "H", 4: "I", 7: "B", 16: "Q"}
_NUMBERS = {
    3: "H",
    4: "I",
    5: "II",
    6: "b",
    8: "h",
    9: "i",
    10: "ii",
    11: "f",
    12: "d",
    13: "I",
    16: "Q",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One tag: its type, how many values it has, and where in the file they are."""

    kind: int
    count: int
    at: int
    raw: bytes


@dataclass(frozen=True, slots=True)
class Directory:
    """The tags of a TIFF's first directory. Of a tag that is there twice, libtiff takes the first.

    Attributes:
        data: The file.
        order: "<" or ">", as `struct` calls it.
        big: Whether it is a BigTIFF.
        entries: All tags, each with its occurrences in the order of the file.
    """

    data: bytes
    order: str
    big: bool
    entries: Mapping[int, Sequence[Entry]]

    def values(self, tag: int, at_most: int) -> tuple[int, ...]:
        """Return the integers of a tag; none if it is absent or holds no integers.

        Raises ImageError if there are more than `at_most`, struct.error if they are not in the
        file.
        """
        entry = self.entries[tag][0] if tag in self.entries else None
        if entry is None or entry.kind not in _INTEGERS:
            return ()
        if entry.count > at_most:
            raise ImageError(f"it is a damaged TIFF: {entry.count} values of tag {tag}")
        code = _INTEGERS[entry.kind]
        if entry.at + entry.count * struct.calcsize(code) > len(self.data):
            raise struct.error
        return struct.unpack_from(f"{self.order}{entry.count}{code}", self.data, entry.at)

    def first(self, tag: int, default: int = 0) -> int:
        """Return the first value of a tag, the largest if there are several such tags."""
        found = []
        for entry in self.entries.get(tag, ()):
            if entry.kind in _INTEGERS:
                code = self.order + _INTEGERS[entry.kind]
                found.append(int(struct.unpack_from(code, self.data, entry.at)[0]))
        return max(found, default=default)

    def content(self, tag: int) -> bytes:
        """Return the bytes of a tag of bytes; none if it is absent."""
        entry = self.entries[tag][0] if tag in self.entries else None
        if entry is None or entry.kind not in (1, 2, 7):
            return b""
        return self.data[entry.at : entry.at + entry.count]

    def rewritten(
        self, changes: Mapping[int, Sequence[int] | None], after: bytes | memoryview = b""
    ) -> bytearray:
        """Return the file with `after` and a new first directory at its end.

        `changes` has the values of tags to set, as 32-bit integers (64-bit in a BigTIFF); None
        removes a tag. All else is where it was.
        """
        code, kind, room = ("Q", 16, 8) if self.big else ("I", 4, 4)
        out = bytearray(self.data)
        out += after
        out += bytes(-len(out) % 8)
        written = {tag: found[0].raw for tag, found in self.entries.items() if tag not in changes}
        for tag, values in changes.items():
            if values is None:
                continue
            content = struct.pack(f"{self.order}{len(values)}{code}", *values)
            head = struct.pack(self.order + "HH" + code, tag, kind, len(values))
            if len(content) > room:
                head += struct.pack(self.order + code, len(out))
                out += content
            else:
                head += content.ljust(room, b"\0")
            written[tag] = head
        struct.pack_into(self.order + code, out, 8 if self.big else 4, len(out))
        out += struct.pack(self.order + ("Q" if self.big else "H"), len(written))
        out += b"".join(written[tag] for tag in sorted(written)) + bytes(room)
        return out


def read_directory(data: bytes) -> Directory | None:
    """Read the first directory of a TIFF; None if `data` is not a TIFF.

    Raises ImageError if it claims an absurd number of tags, struct.error if it is cut short.
    """
    if not data.startswith(SIGNATURES):
        return None
    order = "<" if data.startswith(b"II") else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    if big:
        start = struct.unpack_from(order + "Q", data, 8)[0]
        count, first, step, value_at = struct.unpack_from(order + "Q", data, start)[0], 8, 20, 12
    else:
        start = struct.unpack_from(order + "I", data, 4)[0]
        count, first, step, value_at = struct.unpack_from(order + "H", data, start)[0], 2, 12, 8
    if count > _MAX_TAGS:
        raise ImageError(f"it is a TIFF that claims {count} tags")
    entries: dict[int, list[Entry]] = {}
    for position in range(start + first, start + first + count * step, step):
        tag, kind = struct.unpack_from(order + "HH", data, position)
        values = struct.unpack_from(order + "IQ"[big], data, position + 4)[0]
        at = position + value_at
        if values * _SIZES.get(kind, 1) > step - value_at:  # they are at another place
            at = struct.unpack_from(order + "IQ"[big], data, at)[0]
        entry = Entry(kind, values, at, data[position : position + step])
        entries.setdefault(tag, []).append(entry)
    return Directory(data, order, big, entries)


_SIZES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


def orientation_of(exif: bytes) -> int | None:
    """Return EXIF's orientation, 1 to 8, or None if the block is damaged or states none.

    As Pillow, it takes numbers of any type, though EXIF defines only the 16-bit one.
    """
    try:
        directory = read_directory(exif)
        entry = directory.entries[ORIENTATION][-1] if directory else None
        if directory is None or entry is None or entry.kind not in _NUMBERS or not entry.count:
            return None
        found = struct.unpack_from(directory.order + _NUMBERS[entry.kind], exif, entry.at)
        value = found[0] / found[1] if len(found) == 2 else found[0]
    except (struct.error, KeyError, OverflowError, ZeroDivisionError, ImageError):
        return None
    return int(value) if value in range(1, 9) else 1

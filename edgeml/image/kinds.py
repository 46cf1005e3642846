"""What kind of picture a file holds: format, colours, bits and rotation, by its header alone."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from edgeml.errors import ImageError
from edgeml.image.headers import Format, read_header

Colours = Literal["grey", "rgb", "rgba", "palette", "cmyk", "unknown"]
"""How a file stores colours; `rgba` is whatever has a transparency, grey pictures included."""

SUFFIXES_OF = {
    "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "png": (".png", ".apng"),
    "gif": (".gif",),
    "bmp": (".bmp", ".dib"),
    "webp": (".webp",),
    "tiff": (".tif", ".tiff"),
    "avif": (".avif",),
}


@dataclass(frozen=True)
class Kind:
    """What a header says of a picture.

    Attributes:
        format: Which codec it is for.
        size: (height, width) in pixels, before any EXIF rotation.
        colours: How they are stored.
        bits: Of a sample; 0 where the header was not asked.
        orientation: EXIF's, 1 to 8; 1 is upright.
    """

    format: Format
    size: tuple[int, int]
    colours: Colours
    bits: int
    orientation: int

    def matches(self, path: PurePath) -> bool:
        """Say whether the end of a file's name promises this format."""
        return path.suffix.lower() in SUFFIXES_OF[self.format]


def kind_of(data: bytes) -> Kind | None:
    """Read the header of an encoded picture; None if it has none that is understood."""
    try:
        header = read_header(data)
        match header.format:
            case "jpeg":
                colours, bits, orientation = _jpeg(data)
            case "png":
                colours, bits, orientation = _png(data)
            case "webp":
                colours, bits, orientation = _webp(data)
            case "tiff":
                colours, bits, orientation = _tiff(data)
            case "bmp":
                colours, bits, orientation = _bmp(data), 8, 1
            case "gif":
                colours, bits, orientation = "palette", 8, 1
            case _:
                colours, bits, orientation = "unknown", 0, 1
    except (ImageError, struct.error, IndexError):
        return None
    return Kind(header.format, (header.height, header.width), colours, bits, orientation)


def _jpeg(data: bytes) -> tuple[Colours, int, int]:
    """Walk the segments to the frame header (ITU-T T.81, B.2.2); EXIF stands in an APP1."""
    position, orientation = 2, 1
    while True:
        position = data.find(b"\xff", position) % (len(data) + 1)  # past the end if there is none
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            position += 2
            continue
        length = max(struct.unpack_from(">H", data, position + 2)[0], 2)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, samples = data[position + 4], data[position + 9]
            named: dict[int, Colours] = {1: "grey", 3: "rgb", 4: "cmyk"}
            return named.get(samples, "unknown"), bits, orientation
        content = data[position + 4 : position + 2 + length]
        if marker == 0xE1 and content.startswith(b"Exif\0\0"):
            orientation = _orientation(content[6:])
        position += 2 + length


def _png(data: bytes) -> tuple[Colours, int, int]:
    """Read IHDR, and look for transparency and EXIF among the chunks (PNG 3rd ed., 11.2, 11.3)."""
    bits, kind = data[24], data[25]
    named: dict[int, Colours] = {0: "grey", 2: "rgb", 3: "palette", 4: "rgba", 6: "rgba"}
    colours, orientation = named.get(kind, "unknown"), 1
    position = 8
    while position + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        if name == b"tRNS" and colours != "palette":
            colours = "rgba"
        elif name == b"eXIf":
            orientation = _orientation(data[position + 8 : position + 8 + length])
        position += 12 + length
    return colours, bits, orientation


def _webp(data: bytes) -> tuple[Colours, int, int]:
    """Read the first chunk and look for EXIF (RFC 9649, 2.7)."""
    kind = data[12:16]
    if kind == b"VP8L":
        return "rgba" if data[24] & 0x10 else "rgb", 8, 1
    if kind != b"VP8X":
        return "rgb", 8, 1
    position, orientation = 12, 1
    while position + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, position)
        if name == b"EXIF":
            content = data[position + 8 : position + 8 + length]
            orientation = _orientation(content.removeprefix(b"Exif\0\0"))
        position += 8 + length + length % 2
    return "rgba" if data[20] & 0x10 else "rgb", 8, orientation


def _tiff(data: bytes) -> tuple[Colours, int, int]:
    """Read the first directory (TIFF 6.0, section 8); of a BigTIFF only that it is one."""
    tags = _tags(data)
    samples = tags.get(277, 1)
    named: dict[int, Colours] = {0: "grey", 1: "grey", 2: "rgb", 3: "palette", 5: "cmyk", 6: "rgb"}
    colours = named.get(tags.get(262, -1), "unknown")
    if 338 in tags and colours in ("grey", "rgb"):
        colours = "rgba"
    bits = tags.get(258, 1 if tags else 0)
    if samples > 2 and 258 in tags:  # more than two shorts stand elsewhere
        order = "<" if data.startswith(b"II") else ">"
        bits = struct.unpack_from(order + "H", data, bits)[0]
    return colours, bits, _upright(tags.get(274, 1))


def _bmp(data: bytes) -> Colours:
    bits = struct.unpack_from("<H", data, 24 if data[14] == 12 else 28)[0]
    return "palette" if bits <= 8 else "rgba" if bits == 32 else "rgb"


def _orientation(exif: bytes) -> int:
    """Read the orientation from EXIF, which has the form of a TIFF; a damaged one has none."""
    try:
        return _upright(_tags(exif).get(274, 1))
    except (struct.error, IndexError):
        return 1


def _upright(orientation: int) -> int:
    return orientation if 1 <= orientation <= 8 else 1


def _tags(data: bytes) -> dict[int, int]:
    """Give tag and value, or where it stands, of the first directory; of the integer types."""
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return {}
    order = "<" if data.startswith(b"II") else ">"
    start = struct.unpack_from(order + "I", data, 4)[0]
    count = struct.unpack_from(order + "H", data, start)[0]
    tags: dict[int, int] = {}
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from(order + "HHI", data, entry)
        if kind == 3 and number <= 2:
            tags[tag] = struct.unpack_from(order + "H", data, entry + 8)[0]
        elif kind in (3, 4):
            tags[tag] = struct.unpack_from(order + "I", data, entry + 8)[0]
    return tags

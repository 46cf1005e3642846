"""The first image of a GIF, as Pillow shows it."""

from __future__ import annotations

import struct
from typing import NamedTuple

from edgeml.errors import ImageError
from edgeml.image.frame import Frame

_MAX_BLOCKS = 1 << 16


class GifFacts(NamedTuple):
    """What is known about the first image.

    Attributes:
        height, width: Of the screen, or of the image where that is larger.
        place: top, left, bottom and right of the image on the screen.
        around: The colour of the rest of the screen, BGR.
        flags: Where the flags of its control block are; None without one.
        end: Where its last block of data ends.
    """

    height: int
    width: int
    place: tuple[int, int, int, int]
    around: tuple[int, int, int]
    flags: int | None
    end: int


def read_gif(data: bytes) -> GifFacts:
    """Read the blocks up to the end of the first image (GIF89a, 17 to 23).

    Raises ImageError for a damaged file, or one without colours; struct.error or IndexError for
    one that is cut short.
    """
    screen_width, screen_height, packed = struct.unpack_from("<HHB", data, 6)
    palette, position = (13, 13 + (3 << (packed & 7) + 1)) if packed & 128 else (0, 13)
    flags = None
    for _ in range(_MAX_BLOCKS):
        if data[position] != 0x21:  # an image, or the end
            break
        if data[position + 1 : position + 3] == b"\xf9\x04":
            flags = position + 3  # the last one before an image counts
        position = _after_blocks(data, position + 2)
    if data[position] != 0x2C:
        raise ImageError("it is a damaged GIF: it has no image")
    left, top, width, height, packed = struct.unpack_from("<HHHHB", data, position + 1)
    position += 10
    if packed & 128:
        palette, position = position, position + (3 << (packed & 7) + 1)
    if not palette:
        raise ImageError("it is a GIF without colours, which is not read", reason="unsupported")
    clear = data[flags + 3] if flags is not None and data[flags] & 1 else 0
    red, green, blue = data[palette + 3 * clear : palette + 3 * clear + 3].ljust(3, b"\0")
    return GifFacts(
        height=max(screen_height, top + height),
        width=max(screen_width, left + width),
        place=(top, left, top + height, left + width),
        around=(blue, green, red),
        flags=flags,
        end=_after_blocks(data, position + 1),
    )


def readable_gif(data: bytes, facts: GifFacts) -> bytes:
    """Return a GIF of the first image alone, without a transparent colour.

    OpenCV shows the background's in its place; the colour itself is what Pillow's conversion to RGB
    gives. It refuses an image that is larger than the screen.
    """
    out = bytearray(data[: facts.end]) + b";"
    struct.pack_into("<HH", out, 6, facts.width, facts.height)
    if facts.flags is not None:
        out[facts.flags] &= ~1
    return bytes(out)


def paint_around(frame: Frame, facts: GifFacts) -> None:
    """Give the screen around the image the colour that Pillow gives it: the transparent one, or 0.

    OpenCV gives it the background's.
    """
    top, left, bottom, right = facts.place
    for part in (frame[:top], frame[bottom:], frame[:, :left], frame[:, right:]):
        part[:] = facts.around


def _after_blocks(data: bytes, position: int) -> int:
    """Return where a chain of data blocks ends: each has its length before it, the last has 0."""
    while length := data[position]:
        position += 1 + length
    return position + 1

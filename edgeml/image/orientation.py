"""How an image must be turned, from its EXIF or XMP, by the rules of Pillow's `exif_transpose`."""

from __future__ import annotations

import re
import zlib

from edgeml.image.tiff import orientation_of

_IN_XMP = re.compile(rb'tiff:Orientation(="|>)([0-9])')
MAX_TEXT = 1 << 20
"""The bytes of a text that are looked at, at most; Pillow's limit for compressed ones."""


def orientation_from(exif: bytes, xmp: bytes) -> int:
    """Return the orientation, 1 to 8: EXIF's, or XMP's if EXIF states none; 1 without either.

    `exif` is a TIFF, perhaps after "Exif" and two zeros.
    """
    for _ in range(2):
        exif = exif.removeprefix(b"Exif\0\0")
    stated = orientation_of(exif)
    if stated is None and (match := _IN_XMP.search(xmp)):
        stated = int(match[2])
    return stated if stated and stated <= 8 else 1


def png_text(kind: bytes, content: bytes) -> tuple[bytes, bytes]:
    """Return the keyword and the text of a PNG's tEXt, zTXt or iTXt (PNG 3rd ed., 11.3.3).

    The text is empty if it is damaged.
    """
    keyword, _, rest = content.partition(b"\0")
    packed = kind == b"zTXt"
    if packed:
        rest = rest[1:]
    elif kind == b"iTXt":
        packed = rest[:1] == b"\1"
        rest = rest[2:].split(b"\0", 2)[-1]
    if packed:
        try:
            rest = zlib.decompressobj().decompress(rest, MAX_TEXT)
        except zlib.error:
            rest = b""
    return keyword, rest


def raw_profile(text: bytes) -> bytes:
    """Return the bytes of ImageMagick's "Raw profile type": hexadecimal after three lines."""
    try:
        return bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii"))
    except ValueError:
        return b""

"""The chunks of a PNG, checked before OpenCV sees them."""

from __future__ import annotations

import struct
from typing import NamedTuple

from edgeml.errors import ImageError
from edgeml.image.orientation import MAX_TEXT, png_text, raw_profile

MAX_CHUNKS = 1 << 16
"""Nobody writes more chunks, and reading through them would take longer than decoding an image."""

# libpng unpacks each compressed text of a PNG, up to 8 MB and 30 ms, for which 8 kB are enough.
_MAX_PACKED_TEXTS = 8

_CHUNK = struct.Struct(">I4s")
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_XMP = b"XML:com.adobe.xmp"
_RAW_EXIF = b"Raw profile type exif"


class PngFacts(NamedTuple):
    """What a PNG states about itself; `exif` and `xmp` are empty if it has none."""

    height: int
    width: int
    bits: int
    colour_type: int
    animated: bool
    transparent: bool
    exif: bytes
    xmp: bytes


def read_png(data: bytes) -> PngFacts:
    """Read IHDR, and follow the chunks to IEND (PNG 3rd ed., 11.2 and 11.3).

    OpenCV trusts their lengths: 2 kB that announce a chunk of 4 GB cost it 4 GB of memory.

    Raises ImageError for a damaged file, and for one that would take long to read.
    """
    position, kind, texts, kinds = 8, b"", 0, set()
    found: dict[bytes, bytes] = {}
    for _ in range(MAX_CHUNKS):
        if position + 12 > len(data):
            raise ImageError("it is a PNG that ends early")
        length, kind = _CHUNK.unpack_from(data, position)
        if position == 8 and kind != b"IHDR":
            raise ImageError("it is a damaged PNG: its first chunk is not its header")
        start = position + 8
        position += 12 + length
        if position > len(data):
            raise ImageError("it is a damaged PNG: a chunk runs past its end")
        kinds.add(kind)
        head = data[start : start + min(length, 99)]
        texts += kind in (b"zTXt", b"iCCP") or (kind == b"iTXt" and _is_packed(head))
        if kind == b"eXIf":
            found[kind] = data[start : start + length]
        elif kind in _TEXTS and head.startswith((_XMP + b"\0", _RAW_EXIF + b"\0")):
            _check_texts(texts)
            keyword, text = png_text(kind, data[start : start + min(length, MAX_TEXT)])
            found[keyword] = text
        if kind == b"IEND":
            break
    else:
        raise ImageError(f"it is a PNG of more than {MAX_CHUNKS} chunks")
    _check_texts(texts)
    width, height, bits, colour_type = struct.unpack_from(">IIBB", data, 16)
    exif = found.get(b"eXIf") or raw_profile(found.get(_RAW_EXIF, b""))
    animated, transparent = b"acTL" in kinds, b"tRNS" in kinds
    xmp = found.get(_XMP, b"")
    return PngFacts(height, width, bits, colour_type, animated, transparent, exif, xmp)


def _check_texts(texts: int) -> None:
    if texts > _MAX_PACKED_TEXTS:
        raise ImageError(
            f"it is a PNG with {texts} compressed texts; more than {_MAX_PACKED_TEXTS} are refused"
        )


def strip_animation(data: bytes) -> bytes:
    """Remove what makes a checked PNG an animation (PNG 3rd ed., 11.3.6), and keep its first image.

    OpenCV 4.14 and 5.0 crash on some damaged animations, and take half as much memory again for
    the others.
    """
    parts, position, kind = [data[:8]], 8, b""
    while kind != b"IEND":
        length, kind = _CHUNK.unpack_from(data, position)
        if kind not in (b"acTL", b"fcTL", b"fdAT"):
            parts.append(data[position : position + 12 + length])
        position += 12 + length
    return b"".join(parts)


def _is_packed(text: bytes) -> bool:
    """Return whether an iTXt chunk is compressed: a flag after its keyword (11.3.3.4)."""
    return text[text.find(b"\0", 0, 80) + 1 :][:1] != b"\0"

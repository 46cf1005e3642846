"""How large an encoded picture says it is, read before a codec allocates anything for it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgeml.errors import ImageError
from edgeml.image.avif import avif_size

FORMATS = "JPEG, PNG, BMP, GIF, WebP, TIFF and AVIF"

Format = Literal["jpeg", "png", "bmp", "gif", "webp", "tiff", "avif"]

# What is beyond these is no picture that anybody made, and walking through it would take longer
# than decoding one: a segment or a chunk costs half a microsecond here.
_MOST_SEGMENTS = 10_000
_MOST_CHUNKS = 1 << 16
_MOST_TIFF_TAGS = 4096

# A scan goes over the whole picture, and may take 10 bytes: 17 ms each at 50 megapixels. Encoders
# write 10, those that search for the best order some 30.
_MOST_SCANS = 64

# libpng unpacks each compressed text of a PNG, up to 8 MB and 30 ms, which 8 kB are enough for.
_MOST_PACKED_TEXTS = 8


@dataclass(frozen=True, slots=True)
class Header:
    """What a header says of a picture.

    Attributes:
        format: Which codec it is for.
        height, width: In pixels, before any EXIF rotation.
        memory: The bytes that OpenCV takes to decode the picture: 6 a pixel, as it holds the frame
            twice, and what a format needs besides. Measured with OpenCV 5.0 on pictures of 1 to 49
            megapixels.
        least: The bytes that the file must have for a picture of that size.
        animated: A PNG that is to be decoded `without_animation`.
    """

    format: Format
    height: int
    width: int
    memory: int
    least: int = 0
    animated: bool = False


def read_header(data: bytes) -> Header:
    """Read what an encoded picture says of itself.

    Raises:
        ImageError: The format is not one of `FORMATS`, the header is damaged or cut short, or
            what it announces is not in the file or absurd: a chunk that runs past the end, a
            thousand scans. Says only what is wrong, not with which image.
    """
    try:
        header = _header(data)
    except (struct.error, IndexError, OverflowError) as err:  # an offset beyond all memory
        raise ImageError("its header is cut short") from err
    if header.height < 1 or header.width < 1:
        raise ImageError(f"its header says that it has {header.height} x {header.width} pixels")
    return header


def _header(data: bytes) -> Header:
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(data)
    if data.startswith((b"GIF87a", b"GIF89a")):
        width, height = struct.unpack_from("<HH", data, 6)
        return Header("gif", height, width, 8 * height * width)
    if data.startswith(b"BM"):
        return _bmp(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp(data)
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return _tiff(data)
    if data[4:8] != b"ftyp":
        raise ImageError(
            f"it is damaged or of no known format; {FORMATS} are read", reason="unknown_format"
        )
    if data[8:12] in _HEIC:
        raise ImageError(
            f"it is HEIC, which OpenCV does not read; {FORMATS} are read", reason="unsupported"
        )
    height, width, alpha = avif_size(data)
    return Header("avif", height, width, (28 if alpha else 19) * height * width)


_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")


def _jpeg(data: bytes) -> Header:
    """Find the frame header and the first scan (ITU-T T.81, B.2.2 and B.2.3)."""
    position, frame = 2, 0
    for _ in range(_MOST_SEGMENTS):
        # Codecs skip what stands between two segments, so a check that stopped there is no check.
        position = data.find(b"\xff", position)
        if position < 0:
            raise ImageError("it is a JPEG without a picture")
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # these carry no length
            position += 2
            continue
        if marker == 0xD9:
            raise ImageError("it is a JPEG that ends before its picture")
        if marker == 0xDA and frame:
            return _jpeg_of(data, frame, position)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and not frame:
            frame = position
        position += 2 + max(struct.unpack_from(">H", data, position + 2)[0], 2)
    raise ImageError(f"it is a JPEG with {_MOST_SEGMENTS} segments before its picture")


def _jpeg_of(data: bytes, frame: int, scan: int) -> Header:
    """Read the frame header; a picture of several scans is kept whole as 16-bit coefficients."""
    height, width, components = struct.unpack_from(">HHB", data, frame + 5)
    pixels = height * width
    memory = 6 * pixels
    factors = [data[frame + 11 + 3 * i] for i in range(components)]
    across, down = [one >> 4 for one in factors], [one & 15 for one in factors]
    samples = sum(a * b for a, b in zip(across, down, strict=True)) * pixels
    samples //= max([1, *across]) * max([1, *down])
    # A block of 64 samples takes a bit or more, unless it is coded arithmetically. libjpeg would
    # make up the rest in grey: 500 bytes could cost 300 MB.
    least = samples // 64 // 8 if data[frame + 1] < 0xC8 else 0
    if data[frame + 1] in (0xC2, 0xC6, 0xCA, 0xCE) or data[scan + 4] < components:
        scans = _scans(data, scan)
        if scans > _MOST_SCANS:
            raise ImageError(f"it is a JPEG of {scans} scans; more than {_MOST_SCANS} are refused")
        memory = max(memory, 3 * pixels + 2 * samples)
    return Header("jpeg", height, width, memory, least)


def _scans(data: bytes, start: int) -> int:
    """Count the markers of scans; inside of one the two bytes never follow each other."""
    values, count = np.frombuffer(data, np.uint8, offset=start), 0
    for first in range(0, len(values), 1 << 20):  # in pieces, as it takes memory
        part = values[first : first + (1 << 20) + 1]
        count += int(np.count_nonzero((part[:-1] == 0xFF) & (part[1:] == 0xDA)))
    return count


def _png(data: bytes) -> Header:
    """Read IHDR, and follow the chunks to IEND.

    OpenCV trusts their lengths: 2 kB that announce a chunk of 4 GB cost it 4 GB of memory.
    """
    position, kind, texts, animated = 8, b"", 0, False
    for _ in range(_MOST_CHUNKS):
        if position + 12 > len(data):
            raise ImageError("it is a PNG that ends early")
        length, kind = _CHUNK.unpack_from(data, position)
        if position == 8 and kind != b"IHDR":
            raise ImageError("it is a damaged PNG: its first chunk is not its header")
        if kind in (b"zTXt", b"iTXt", b"iCCP"):
            texts += kind != b"iTXt" or _is_packed(
                data[position + 8 : position + 8 + min(length, 99)]
            )
        elif kind == b"acTL":
            animated = True
        position += 12 + length
        if position > len(data):
            raise ImageError("it is a damaged PNG: a chunk runs past its end")
        if kind == b"IEND":
            break
    else:
        raise ImageError(f"it is a PNG of more than {_MOST_CHUNKS} chunks")
    if texts > _MOST_PACKED_TEXTS:
        raise ImageError(
            f"it is a PNG with {texts} compressed texts; more than {_MOST_PACKED_TEXTS} are refused"
        )
    width, height, bits = struct.unpack_from(">IIB", data, 16)
    memory = (8 if bits == 16 else 6) * height * width
    return Header("png", height, width, memory, animated=animated)


def without_animation(data: bytes) -> bytes:
    """Leave out of a PNG that was checked what makes it an animation (PNG 3rd ed., 11.3.6).

    What is left is its first picture. OpenCV 4.14 and 5.0 crash on some that are damaged, and take
    half as much memory again for the others.
    """
    parts, position, kind = [data[:8]], 8, b""
    while kind != b"IEND":
        length, kind = _CHUNK.unpack_from(data, position)
        if kind not in (b"acTL", b"fcTL", b"fdAT"):
            parts.append(data[position : position + 12 + length])
        position += 12 + length
    return b"".join(parts)


_CHUNK = struct.Struct(">I4s")


def _is_packed(text: bytes) -> bool:
    """Say whether an iTXt chunk is compressed: a flag after its keyword (PNG 3rd ed., 11.3.3.4)."""
    return text[text.find(b"\0", 0, 80) + 1 :][:1] != b"\0"


def _bmp(data: bytes) -> Header:
    if struct.unpack_from("<I", data, 14)[0] == 12:  # the header of OS/2 1.x
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    height, width = abs(height), abs(width)  # a negative height means rows from the top
    return Header("bmp", height, width, 6 * height * width)


def _webp(data: bytes) -> Header:
    """Read the first chunk (RFC 9649, 2.5 to 2.7). Codecs hold the sizes in it against the rest."""
    kind, factor = data[12:16], 6
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[i : i + 3], "little") + 1 for i in (24, 27))
        flags = data[20]
        factor = 14 if flags & 2 else 8 if flags & 16 else 6  # with a canvas for animation; alpha
    elif kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    else:
        raise ImageError("it is a WebP without a picture")
    return Header("webp", height, width, factor * height * width)


def _tiff(data: bytes) -> Header:
    """Read the first directory (TIFF 6.0, sections 2, 8 and 15; BigTIFF).

    A strip or a tile is unpacked as a whole, and held twice over if it was not packed.
    """
    order = "<" if data.startswith(b"II") else ">"
    if data[2:4] in (b"+\0", b"\0+"):
        start = struct.unpack_from(order + "Q", data, 8)[0]
        count, first, step, value_at = struct.unpack_from(order + "Q", data, start)[0], 8, 20, 12
    else:
        start = struct.unpack_from(order + "I", data, 4)[0]
        count, first, step, value_at = struct.unpack_from(order + "H", data, start)[0], 2, 12, 8
    if count > _MOST_TIFF_TAGS:
        raise ImageError(f"it is a TIFF that claims {count} tags")
    tags: dict[int, int] = {}
    for entry in range(start + first, start + first + count * step, step):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if tag in _TIFF_TAGS and kind in _TIFF_INTEGERS:
            code, at = order + _TIFF_INTEGERS[kind], entry + value_at
            values = struct.unpack_from(order + "IQ"[step == 20], data, entry + 4)[0]
            if values * struct.calcsize(code) > step - value_at:  # they stand elsewhere
                at = struct.unpack_from(order + "IQ"[step == 20], data, at)[0]
            tags[tag] = max(tags.get(tag, 0), struct.unpack_from(code, data, at)[0])
    height, width = tags.get(_HEIGHT, 0), tags.get(_WIDTH, 0)
    if not height or not width:
        raise ImageError("it is a TIFF without a size")
    if tags.get(_SAMPLE_FORMAT) == 3 or tags.get(_BITS, 1) > 16:
        raise ImageError(
            f"it is a TIFF with samples of {tags.get(_BITS, 1)} bits, floating-point numbers "
            "perhaps; 8 and 16 bits are read",
            reason="unsupported",
        )
    if _TILE_WIDTH in tags:
        piece = tags[_TILE_WIDTH] * tags.get(_TILE_HEIGHT, 0)
    else:
        piece = width * min(tags.get(_ROWS_A_STRIP) or height, height)
    unpacked = piece * tags.get(_SAMPLES, 1) * tags.get(_BITS, 1) // 8
    return Header("tiff", height, width, 6 * height * width + max(2 * unpacked, 4 * piece))


_WIDTH, _HEIGHT, _BITS, _SAMPLES, _ROWS_A_STRIP, _TILE_WIDTH, _TILE_HEIGHT, _SAMPLE_FORMAT = (
    _TIFF_TAGS
) = (256, 257, 258, 277, 278, 322, 323, 339)
_TIFF_INTEGERS = {3: "H", 4: "I", 16: "Q"}

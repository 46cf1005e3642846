"""How large an encoded picture says it is, read before a codec allocates anything for it."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from edgeml.errors import ImageError

FORMATS = "JPEG, PNG, BMP, GIF, WebP, TIFF and AVIF"

_MOST_TIFF_TAGS = 4096


def size_in_header(data: bytes) -> tuple[int, int]:
    """Read (height, width) in pixels, before any EXIF rotation.

    Raises:
        ImageError: The format is not one of `FORMATS`, the header is damaged or cut short, or a
            PNG's chunks run past its end. Says only what is wrong, not with which image.
    """
    try:
        return _size(data)
    except (struct.error, IndexError) as err:
        raise ImageError("its header is cut short") from err


def _size(data: bytes) -> tuple[int, int]:
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(data)
    if data.startswith((b"GIF87a", b"GIF89a")):
        width, height = struct.unpack_from("<HH", data, 6)
        return height, width
    if data.startswith(b"BM"):
        return _bmp(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp(data)
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return _tiff(data)
    if data[4:8] != b"ftyp":
        raise ImageError(f"it is damaged or of no known format; {FORMATS} are read")
    if data[8:12] in _HEIC:
        raise ImageError(f"it is HEIC, which OpenCV does not read; {FORMATS} are read")
    return _avif(data)


_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")


def _jpeg(data: bytes) -> tuple[int, int]:
    """Find the frame header (ITU-T T.81, B.2.2) and read its lines and samples per line."""
    position = 2
    while True:
        # Codecs skip what stands between two segments, so a check that stopped there is no check.
        position = data.find(b"\xff", position)
        if position < 0:
            raise ImageError("it is a JPEG without a frame header")
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, position + 5)
            return height, width
        elif marker == 0xD9:
            raise ImageError("it is a JPEG that ends before its picture")
        elif marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # these carry no length
            position += 2
        else:
            position += 2 + max(struct.unpack_from(">H", data, position + 2)[0], 2)


def _png(data: bytes) -> tuple[int, int]:
    """Read IHDR, and follow the chunks to IEND.

    OpenCV trusts their lengths: 2 kB that announce a chunk of 4 GB cost it 4 GB of memory.
    """
    position, kind = 8, b""
    while kind != b"IEND":
        if position + 12 > len(data):
            raise ImageError("it is a PNG that ends early")
        length, kind = struct.unpack_from(">I4s", data, position)
        if position == 8 and kind != b"IHDR":
            raise ImageError("it is a damaged PNG: its first chunk is not its header")
        position += 12 + length
        if position > len(data):
            raise ImageError("it is a damaged PNG: a chunk runs past its end")
    width, height = struct.unpack_from(">II", data, 16)
    return height, width


def _bmp(data: bytes) -> tuple[int, int]:
    if struct.unpack_from("<I", data, 14)[0] == 12:  # the header of OS/2 1.x
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return abs(height), abs(width)  # a negative height means rows from the top


def _webp(data: bytes) -> tuple[int, int]:
    """Read the first chunk (RFC 9649, 2.5 to 2.7)."""
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[i : i + 3], "little") + 1 for i in (24, 27))
        return height, width
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return height & 0x3FFF, width & 0x3FFF
    raise ImageError("it is a WebP without a picture")


def _tiff(data: bytes) -> tuple[int, int]:
    """Read ImageWidth and ImageLength of the first directory (TIFF 6.0, section 2; BigTIFF)."""
    order = "<" if data.startswith(b"II") else ">"
    if data[2:4] in (b"+\0", b"\0+"):
        start = struct.unpack_from(order + "Q", data, 8)[0]
        count, first, step, value_at = struct.unpack_from(order + "Q", data, start)[0], 8, 20, 12
    else:
        start = struct.unpack_from(order + "I", data, 4)[0]
        count, first, step, value_at = struct.unpack_from(order + "H", data, start)[0], 2, 12, 8
    if count > _MOST_TIFF_TAGS:
        raise ImageError(f"it is a TIFF that claims {count} tags")
    sides = {256: 0, 257: 0}
    for entry in range(start + first, start + first + count * step, step):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if tag in sides and kind in _TIFF_INTEGERS:
            code = order + _TIFF_INTEGERS[kind]
            sides[tag] = max(sides[tag], struct.unpack_from(code, data, entry + value_at)[0])
    if not all(sides.values()):
        raise ImageError("it is a TIFF without a size")
    return sides[257], sides[256]


_TIFF_INTEGERS = {3: "H", 4: "I", 16: "Q"}


def _avif(data: bytes) -> tuple[int, int]:
    """Read the largest `ispe` (ISO/IEC 23008-12, 6.5.3): a tiled picture has one a tile, too."""
    sizes = []
    for kind, start, end in _walk(data, 0, len(data), (b"meta", b"iprp", b"ipco")):
        if kind == b"ispe" and end - start >= 12:
            width, height = struct.unpack_from(">II", data, start + 4)
            sizes.append((height, width))
        elif kind == b"imir" or (kind == b"irot" and data[start] & 3):
            # The AVIF way of EXIF rotation. OpenCV 5.0 leaves it out without a word.
            raise ImageError("it is an AVIF that has to be turned, which OpenCV does not do")
    if not sizes:
        raise ImageError("it is an AVIF without a size")
    return max(sizes, key=lambda size: size[0] * size[1])


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
        # What runs past the end may be a tail that no one reads; the codec knows.
        stop = min(start + length, end)
        if not path:
            yield kind, start + head, stop
        elif kind == path[0]:
            head += 4 if kind == b"meta" else 0  # its version and flags
            yield from _walk(data, start + head, stop, path[1:])
        start = stop

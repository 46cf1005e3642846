"""The first directory of a TIFF, which is also the form of EXIF (TIFF 6.0, section 2; BigTIFF)."""

from __future__ import annotations

import struct

from edgeml.errors import ImageError

# Nobody writes so many; a damaged count would keep a processor busy for minutes.
_MAX_TAGS = 4096

(
    WIDTH, HEIGHT, BITS, PHOTOMETRIC, ORIENTATION, SAMPLES, ROWS_PER_STRIP, TILE_WIDTH,
    TILE_HEIGHT, EXTRA_SAMPLES, SAMPLE_FORMAT,
) = _TAGS = (256, 257, 258, 262, 274, 277, 278, 322, 323, 338, 339)  # fmt: skip
_INTEGERS = {3: "H", 4: "I", 16: "Q"}


def tiff_tags(data: bytes) -> dict[int, int]:
    """Return the tags above with their largest first values; none if `data` is not a TIFF.

    Raises ImageError if it claims an absurd number of tags, struct.error if it is cut short.
    """
    if not data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return {}
    order = "<" if data.startswith(b"II") else ">"
    if data[2:4] in (b"+\0", b"\0+"):
        start = struct.unpack_from(order + "Q", data, 8)[0]
        count, first, step, value_at = struct.unpack_from(order + "Q", data, start)[0], 8, 20, 12
    else:
        start = struct.unpack_from(order + "I", data, 4)[0]
        count, first, step, value_at = struct.unpack_from(order + "H", data, start)[0], 2, 12, 8
    if count > _MAX_TAGS:
        raise ImageError(f"it is a TIFF that claims {count} tags")
    tags: dict[int, int] = {}
    for entry in range(start + first, start + first + count * step, step):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if tag in _TAGS and kind in _INTEGERS:
            code, at = order + _INTEGERS[kind], entry + value_at
            values = struct.unpack_from(order + "IQ"[step == 20], data, entry + 4)[0]
            if values * struct.calcsize(code) > step - value_at:  # they are at another place
                at = struct.unpack_from(order + "IQ"[step == 20], data, at)[0]
            tags[tag] = max(tags.get(tag, 0), struct.unpack_from(code, data, at)[0])
    return tags


def orientation_of(exif: bytes) -> int:
    """Return EXIF's orientation, 1 to 8; 1, upright, if the block is damaged or has none."""
    try:
        orientation = tiff_tags(exif).get(ORIENTATION, 1)
    except (struct.error, OverflowError, ImageError):
        return 1
    return orientation if 1 <= orientation <= 8 else 1

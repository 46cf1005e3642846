"""A GIF whose first image has no transparent colour."""

from __future__ import annotations

_MAX_BLOCKS = 1 << 16


def opaque_gif(data: bytes) -> bytes:
    """Return a GIF whose first image shows the colour that is marked as transparent (GIF89a, 23).

    OpenCV shows the background's there; the colour itself is what Pillow's conversion to RGB gives.
    """
    if len(data) < 13:
        return data
    flagged = None
    position = 13 + (3 << (data[10] & 7) + 1 if data[10] & 128 else 0)
    for _ in range(_MAX_BLOCKS):
        if data[position : position + 1] != b"!":  # an image, or the end
            break
        if data[position + 1 : position + 3] == b"\xf9\x04" and len(data) > position + 3:
            flagged = position + 3  # the last one before an image counts
        position += 2
        while position < len(data) and data[position]:
            position += 1 + data[position]
        position += 1
    if flagged is None or not data[flagged] & 1:
        return data
    return data[:flagged] + bytes([data[flagged] & ~1]) + data[flagged + 1 :]

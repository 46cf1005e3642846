"""BMP: its header, and the pixels whose bits are laid out by masks, which OpenCV misreads."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from edgeml.errors import ImageError
from edgeml.image.frame import Frame

_RGB, _MASKS, _MASKS_WITH_ALPHA = 0, 3, 6
_IN_IT = {4: "a JPEG", 5: "a PNG"}
_MASKS_OF_16 = (0x7C00, 0x3E0, 0x1F)  # where the file states none


class BmpFacts(NamedTuple):
    """What a header states; `masks` of red, green and blue if each pixel is one number."""

    height: int
    width: int
    bits: int
    start: int
    from_top: bool
    masks: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """The bytes of a row, which are a multiple of four."""
        return -(-self.width * self.bits // 32) * 4


def read_bmp(data: bytes) -> BmpFacts:
    """Read the header, of OS/2 1.x or of Windows.

    Raises ImageError for a variant that is not read; struct.error if it is cut short.
    """
    start, length = struct.unpack_from("<II", data, 10)
    if length == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        method = _RGB
    else:
        width, height, _, bits, method = struct.unpack_from("<iiHHI", data, 18)
    if bits not in (1, 4, 8, 16, 24, 32) or method in _IN_IT:
        what = f"that holds {_IN_IT[method]}" if method in _IN_IT else f"of {bits} bits a pixel"
        raise ImageError(f"it is a BMP {what}, which is not read", reason="unsupported")
    masks: tuple[int, ...] = ()
    if bits in (16, 32) and method in (_MASKS, _MASKS_WITH_ALPHA):
        masks = struct.unpack_from("<III", data, 54)
    elif bits == 16:
        masks = _MASKS_OF_16
    # A negative height means rows from the top.
    return BmpFacts(abs(height), abs(width), bits, start, height < 0, masks)


def decode_masks(data: bytes, facts: BmpFacts) -> Frame:
    """Decode the pixels of a file with masks; a colour of n bits is spread as by Pillow."""
    shifts = [(mask & -mask).bit_length() - 1 for mask in facts.masks]
    if not all(facts.masks):
        raise ImageError("it is a damaged BMP: a colour has no bits")
    kind = np.dtype("<u2" if facts.bits == 16 else "<u4")
    if len(data) < facts.start + facts.height * facts.row_bytes:
        raise ImageError("it is damaged or cut short")
    frame = np.empty((facts.height, facts.width, 3), np.uint8)
    for y in range(facts.height):  # a row at a time, for the memory
        at = facts.start + y * facts.row_bytes
        row = np.frombuffer(data, kind, facts.width, at)
        target = frame[y if facts.from_top else facts.height - 1 - y]
        for channel, (mask, shift) in enumerate(zip(facts.masks, shifts, strict=True)):
            values = (row & kind.type(mask & (2**facts.bits - 1))).astype(np.uint64) >> shift
            target[:, 2 - channel] = values * 255 // (mask >> shift)
    return frame

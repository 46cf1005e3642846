"""Any image to a frame, safely: limits are checked on the header, before a codec sees a byte."""

from __future__ import annotations

import os
import struct
from typing import Any, Union

import cv2
import numpy as np

from edgeml.errors import ImageError
from edgeml.preprocess import Frame, check_frame

Image = Union[str, "os.PathLike[str]", bytes, Frame, Any]
"""A path, encoded bytes, a PIL image, or a frame (H, W, 3) uint8 BGR."""

MAX_PIXELS = 1 << 26
"""67 megapixels: above it a file is taken for a decompression bomb."""

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".avif"})
"""What counts as a picture when a folder is searched."""

_SCALED_DECODERS = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
}


def read_image(image: Image, *, at_least: tuple[int, int] | None = None) -> Frame:
    """Give an image as a frame (H, W, 3) uint8 BGR.

    EXIF rotation is applied, transparency is dropped, of an animation the first frame is taken,
    16-bit samples keep their high byte.

    Args:
        image: A path, encoded bytes, a PIL image, or a frame, which is returned as it is.
        at_least: A (height, width) that the caller will shrink the frame to. A JPEG is then
            decoded at a half, a quarter or an eighth in the DCT domain, which is faster, as long
            as both sides stay at least twice as large: the antialiased resize that follows needs
            that to come out as from the full picture.

    Raises:
        ImageError: The image cannot be read or decoded, or is too large.
        InputError: An array that is no frame.
    """
    if isinstance(image, np.ndarray):
        check_frame(image)
        return image
    if isinstance(image, (str, os.PathLike)):
        path = os.fspath(image)
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError as err:
            raise ImageError(f"Cannot read the image {path!r}: {err.strerror}.") from err
        return _decode(data, repr(path), at_least)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return _decode(bytes(image), f"of {len(image)} bytes", at_least)
    if hasattr(image, "convert") and hasattr(image, "getexif"):
        return _from_pil(image)
    raise ImageError(
        "An image is a path, encoded bytes, a PIL image or a (H, W, 3) uint8 BGR array, "
        f"not {type(image).__name__}."
    )


def encode_jpeg(frame: Frame, quality: int = 90) -> bytes:
    """Encode a frame (H, W, 3) uint8 BGR as JPEG; `quality` is 1 to 100."""
    check_frame(frame)
    ok, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise ImageError(f"OpenCV could not encode a frame of {frame.shape} as JPEG.")
    return data.tobytes()


def _decode(data: bytes, name: str, at_least: tuple[int, int] | None) -> Frame:
    if not data:
        raise ImageError(f"The image {name} is empty.")
    size = _size_in_header(data, name)
    if size and size[0] * size[1] > MAX_PIXELS:
        raise ImageError(
            f"The image {name} has {size[0]} x {size[1]} pixels; "
            f"more than {MAX_PIXELS} are refused. Shrink it first."
        )
    flags = cv2.IMREAD_COLOR_BGR
    if size and at_least and data.startswith(b"\xff\xd8"):
        flags = _scaled_flags(size, at_least)
    try:
        frame = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as err:
        raise ImageError(f"The image {name} cannot be decoded: {err.err}.") from err
    if frame is None:
        raise ImageError(f"The image {name} cannot be decoded: damaged, or of no known format.")
    return frame  # type: ignore[return-value]


def _scaled_flags(size: tuple[int, int], at_least: tuple[int, int]) -> int:
    """Choose the smallest DCT scale that leaves both sides twice what is wanted."""
    # EXIF may turn the picture by 90 degrees, so either side may become either.
    shorter, wanted = min(size), max(at_least)
    for factor, flags in _SCALED_DECODERS.items():
        if shorter // factor >= 2 * wanted:
            return flags
    return cv2.IMREAD_COLOR_BGR


def _size_in_header(data: bytes, name: str) -> tuple[int, int] | None:
    """Read (height, width) of a JPEG or PNG without decoding; None for other formats.

    Raises:
        ImageError: A PNG whose chunks run past its end. OpenCV trusts their lengths: 2 kB that
            announce a chunk of 4 GB cost it 4 GB of memory.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png_size(data, name)
    if data.startswith(b"\xff\xd8"):
        return _jpeg_size(data)
    return None


def _png_size(data: bytes, name: str) -> tuple[int, int] | None:
    position = 8
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if position + 12 + length > len(data) and kind != b"IEND":
            raise ImageError(f"The image {name} is a damaged PNG: a chunk runs past its end.")
        position += 12 + length
    if len(data) < 24:
        return None
    width, height = struct.unpack_from(">II", data, 16)
    return height, width


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Find the frame header (ITU-T T.81, B.2.2) and read its lines and samples per line."""
    position = 2
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, position + 5)
            return height, width
        position += 2 + struct.unpack_from(">H", data, position + 2)[0]
    return None


def _from_pil(image: Any) -> Frame:
    """Convert a PIL image; its EXIF rotation is applied, as for files."""
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"The image has {image.height} x {image.width} pixels: too many.")
    orientation = image.getexif().get(0x0112, 1)
    try:
        rgb = np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as err:
        raise ImageError(f"The PIL image cannot be decoded: {err}.") from err
    frame = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    # The eight values of EXIF 2.3, 4.6.4 A: a transpose for 5 to 8, then flips.
    if orientation in (5, 6, 7, 8):
        frame = cv2.transpose(frame)
    if orientation in (2, 3, 6, 7):
        frame = cv2.flip(frame, 1)
    if orientation in (3, 4, 7, 8):
        frame = cv2.flip(frame, 0)
    return frame  # type: ignore[return-value]

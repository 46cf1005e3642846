"""Any image to a frame, safely: limits are checked on the header, before a codec sees a byte."""

from __future__ import annotations

import os
from typing import Any, Union, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeml.errors import ImageError
from edgeml.headers import size_in_header
from edgeml.preprocess import Frame, check_frame
from edgeml.quiet import quiet_opencv

Image = Union[str, "os.PathLike[str]", bytes, Frame, Any]
"""A path, encoded bytes, a PIL image, or a frame (H, W, 3) uint8 BGR."""

MAX_PIXELS = 1 << 26
"""67 megapixels: above it a file is taken for a decompression bomb."""

MAX_BYTES = 1 << 29
"""Half a gigabyte: more than the largest picture takes uncompressed. /dev/zero is read up to it."""

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
    16-bit samples keep their high byte. Files may be JPEG, PNG, BMP, GIF, WebP, TIFF or AVIF.

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
        return decode_image(read_file(image), repr(os.fspath(image)), at_least=at_least)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return decode_image(bytes(image), f"of {len(image)} bytes", at_least=at_least)
    if hasattr(image, "convert") and hasattr(image, "getexif"):
        return _from_pil(image)
    raise ImageError(
        "An image is a path, encoded bytes, a PIL image or a (H, W, 3) uint8 BGR array, "
        f"not {type(image).__name__}."
    )


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Read an encoded picture.

    Raises:
        ImageError: It cannot be read, or has more than `MAX_BYTES`.
    """
    path = os.fspath(path)
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as err:  # ValueError: a NUL in the name
        reason = getattr(err, "strerror", None) or err
        raise ImageError(f"Cannot read the image {path!r}: {reason}.") from err
    if len(data) > MAX_BYTES:
        raise ImageError(f"The image {path!r} has more than {MAX_BYTES} bytes; refused.")
    return data


def encode_jpeg(frame: Frame, quality: int = 90) -> bytes:
    """Encode a frame (H, W, 3) uint8 BGR as JPEG; `quality` is 1 to 100."""
    check_frame(frame)
    ok, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise ImageError(f"OpenCV could not encode a frame of {frame.shape} as JPEG.")
    return data.tobytes()


def decode_image(data: bytes, name: str, *, at_least: tuple[int, int] | None = None) -> Frame:
    """Decode a picture that was read already; as `read_image`, but `name` stands in its errors.

    Raises:
        ImageError: It cannot be decoded, or is too large.
    """
    if not data:
        raise ImageError(f"The image {name} is empty.")
    try:
        size = size_in_header(data)
    except ImageError as err:
        raise ImageError(f"The image {name} cannot be decoded: {err}.") from err
    _check_size(*size, name)
    flags = cv2.IMREAD_COLOR_BGR
    if at_least and data.startswith(b"\xff\xd8"):
        flags = _scaled_flags(size, at_least)
    frame, cause = None, None
    try:
        with quiet_opencv():
            frame = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as err:
        cause = err
    if frame is None:
        raise ImageError(
            f"The image {name} cannot be decoded: it is damaged or cut short."
        ) from cause
    return cast("Frame", frame)


def _check_size(height: int, width: int, name: str) -> None:
    """Refuse a decompression bomb by its header."""
    if height * width > MAX_PIXELS:
        raise ImageError(
            f"The image {name} has {height} x {width} pixels; "
            f"more than {MAX_PIXELS} are refused. Shrink it first."
        )


def _scaled_flags(size: tuple[int, int], at_least: tuple[int, int]) -> int:
    """Choose the smallest DCT scale that leaves both sides twice what is wanted.

    It must divide both sides: libjpeg rounds up, and the last column then stands for pixels that
    are not there. At 224 pixels the whole picture would be stretched by up to half a pixel, which
    costs 20 dB.
    """
    # EXIF may turn the picture by 90 degrees, so either side may become either.
    shorter, wanted = min(size), max(at_least)
    for factor, flags in _SCALED_DECODERS.items():
        if shorter >= 2 * wanted * factor and not any(side % factor for side in size):
            return flags
    return cv2.IMREAD_COLOR_BGR


def _from_pil(image: Any) -> Frame:
    """Convert a PIL image; its EXIF rotation is applied, as for files."""
    _check_size(image.height, image.width, "from PIL")
    try:
        rgb = _rgb(image)
    except (OSError, ValueError, SyntaxError) as err:
        raise ImageError(f"The PIL image cannot be decoded: {err}.") from err
    # Asked only now: a TIFF is turned by PIL itself while it loads, and has no rotation then.
    orientation = image.getexif().get(0x0112, 1)
    frame = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    # The eight values of EXIF 2.3, 4.6.4 A: a transpose for 5 to 8, then flips.
    if orientation in (5, 6, 7, 8):
        frame = cv2.transpose(frame)
    if orientation in (2, 3, 6, 7):
        frame = cv2.flip(frame, 1)
    if orientation in (3, 4, 7, 8):
        frame = cv2.flip(frame, 0)
    return cast("Frame", frame)


def _rgb(image: Any) -> NDArray[np.uint8]:
    """Convert a PIL image of any mode to (H, W, 3) uint8 RGB, as OpenCV would read its file."""
    if image.mode.startswith("I;16"):
        # PIL would cut all samples above 255 off; OpenCV keeps the high byte.
        high = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(high[..., None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise ValueError(f"its mode {image.mode!r} has no known range; scale it to 8 bits first")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB, PIL warns
    return np.asarray(image.convert("RGB"))

"""Any image to a frame, safely: limits are checked on the header, before a codec sees a byte."""

from __future__ import annotations

import os
import struct
from io import FileIO
from typing import Any, Union, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeml.errors import ImageError, ImageReason
from edgeml.image.bmp import decode_masks, read_bmp
from edgeml.image.frame import Frame, check_frame
from edgeml.image.gif import paint_around, read_gif, readable_gif
from edgeml.image.headers import Format, Header, read_header
from edgeml.image.heif import decode_heif
from edgeml.image.png import strip_animation
from edgeml.image.quiet import quiet_opencv
from edgeml.image.tiff import WIDTH
from edgeml.image.tiff_layout import read_layout, readable_tiff, unmultiplied

Image = Union[str, "os.PathLike[str]", bytes, Frame, Any]
"""A path, encoded bytes, a PIL image, or a frame (H, W, 3) uint8 BGR."""

MAX_PIXELS = 50_000_000
"""50 megapixels: a larger image is refused as a decompression bomb. Raise it for your own."""

MAX_MEMORY = 300_000_000
"""300 MB: the memory that decoding one image may take. Up to 50 megapixels all formats need less
except AVIF (15 megapixels, 10 with alpha), GIF (37), PNG of 16 bits (37), WebP with alpha (37),
animated WebP (21), progressive JPEG without subsampling (33), and TIFF, which depends on its
strips."""

MAX_SIDE = 65_535
"""Pixels of a side, at most: the limit of JPEG and GIF."""

MAX_BYTES = 1 << 28
"""268 MB: more than an uncompressed image of 50 megapixels. /dev/zero is read up to it."""

SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".avif"),
        *(".ppm", ".pgm", ".pbm", ".pnm"),
    }
)
"""The suffixes of images when a folder is searched."""

_SCALED_DECODERS = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
}


def read_image(image: Image, *, at_least: tuple[int, int] | None = None) -> Frame:
    """Read an image as a frame (H, W, 3) uint8 BGR.

    Files may be JPEG, PNG, BMP, GIF, WebP, TIFF, AVIF, PPM or, with the extra `heif`, HEIC. A file,
    its bytes, and the PIL image of it give the same frame, with OpenCV 4 and 5:

    * The rotation that EXIF, or else XMP, states is applied, as by Pillow's `exif_transpose`; that
      of an AVIF or HEIC is in its container.
    * Transparency is dropped, not blended with a colour.
    * Grey, one bit and palettes become BGR. CMYK is converted without a profile, as Pillow does;
      colour profiles are ignored.
    * 16 bits are reduced to the high byte. A TIFF of 32 bits, of signed or floating-point numbers
      is refused, because nothing states which value is white.
    * The colours of a TIFF that are stored multiplied by their alpha are divided by it.
    * Animations give their first image.

    `ImageError.reason` states why an image is refused. The limits are `MAX_BYTES`, `MAX_PIXELS`,
    `MAX_SIDE` and `MAX_MEMORY` of this module; all are checked before OpenCV sees a byte.

    Args:
        image: A path, encoded bytes, a PIL image, or a frame, which is returned unchanged.
        at_least: A (height, width) that the caller will shrink the frame to. A JPEG is then
            decoded at a half, a quarter or an eighth in the DCT domain, which is faster, as long
            as both sides stay at least twice as large: with that the antialiased resize gives the
            same result as from the full image.

    Raises:
        ImageError: The image cannot be read or decoded, or is too large.
        InputError: The array is not a frame.
    """
    if isinstance(image, np.ndarray):
        check_frame(image)
        return image
    if isinstance(image, (str, os.PathLike)):
        return decode_image(read_file(image), os.fsdecode(image), at_least=at_least)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return decode_image(bytes(image), at_least=at_least)
    if hasattr(image, "convert") and hasattr(image, "getexif"):
        return _from_pil(image)
    raise ImageError(
        "An image is a path, encoded bytes, a PIL image or a (H, W, 3) uint8 BGR array, "
        f"not {type(image).__name__}.",
        reason="not_an_image",
    )


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Read an encoded image.

    Raises:
        ImageError: It cannot be read, or has more than `MAX_BYTES`.
    """
    name = os.fsdecode(path)
    try:
        with open(path, "rb", buffering=0) as file:
            data = _read(file)
    except (OSError, ValueError) as err:  # ValueError: a NUL in the name
        why = getattr(err, "strerror", None) or err
        reason: ImageReason = "missing" if isinstance(err, FileNotFoundError) else "unreadable"
        raise ImageError(
            f"Cannot read the image {name!r}: {why}.", reason=reason, source=name
        ) from err
    if data is None:
        raise ImageError(
            f"The image {name!r} has more than {MAX_BYTES} bytes; refused.",
            reason="too_many_bytes",
            source=name,
        )
    return data


def _read(file: FileIO) -> bytes | None:
    """Read to the end; None if the file has more than `MAX_BYTES`."""
    size = os.fstat(file.fileno()).st_size
    if size > MAX_BYTES:
        return None
    # Request no more than there is: memory for `MAX_BYTES` would cost 0.2 ms.
    data = file.read(size + 1)
    if len(data) == size:
        return data
    # A pipe has no size, and a file may grow.
    parts, total = [data], len(data)
    while part := file.read(1 << 20):
        parts.append(part)
        total += len(part)
        if total > MAX_BYTES:
            return None
    return b"".join(parts)


def decode_image(
    data: bytes, source: str | None = None, *, at_least: tuple[int, int] | None = None
) -> Frame:
    """Decode the bytes of an image file, as `read_image` does; `source` is its path, for errors.

    Raises:
        ImageError: It cannot be decoded, or is too large.
    """
    name = f"of {len(data)} bytes" if source is None else repr(source)
    if not data:
        raise ImageError(f"The image {name} is empty.", reason="empty", source=source)
    try:
        header = read_header(data)
    except ImageError as err:
        raise ImageError(
            f"The image {name} cannot be decoded: {err}.", reason=err.reason, source=source
        ) from err
    _check_size(header, name, source)
    if len(data) < header.min_bytes:
        raise ImageError(
            f"The image {name} cannot be decoded: it has {len(data)} bytes, too few for "
            f"{header.height} x {header.width} pixels.",
            source=source,
        )
    flags = cv2.IMREAD_COLOR_BGR
    if at_least and header.format == "jpeg":
        flags = _scaled_flags(header.size, at_least)
    if header.animated:
        data = strip_animation(data)
    if header.format == "pnm" and data[1:2] in b"123":
        data += b"\n"  # OpenCV reads no number that ends with the file
    try:
        frame = _decode_as(header.format, data, flags)
    except (ImageError, cv2.error, struct.error) as err:
        known = err if isinstance(err, ImageError) else ImageError("it is damaged or cut short")
        raise ImageError(
            f"The image {name} cannot be decoded: {known}.", reason=known.reason, source=source
        ) from err
    return _upright(frame, header.orientation)


def _decode_as(kind: Format, data: bytes, flags: int) -> Frame:
    """Decode a file of a format, with what OpenCV leaves to us."""
    if kind == "heif":
        return decode_heif(data)
    if kind == "tiff":
        return _decode_tiff(data)
    if kind == "gif":
        facts = read_gif(data)
        frame = _decode(readable_gif(data, facts), flags)
        paint_around(frame, facts)
        return frame
    if kind == "bmp" and (layout := read_bmp(data)).masks:
        return decode_masks(data, layout)
    return _decode(data, flags)


def _decode(data: bytes | bytearray, flags: int) -> NDArray[Any]:
    """Decode with OpenCV, without any rotation: it reads EXIF in fewer forms than Pillow."""
    with quiet_opencv():
        buffer = np.frombuffer(data, np.uint8)
        frame = cv2.imdecode(buffer, flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if frame is None:
        raise ImageError("it is damaged or cut short")
    return frame


def _decode_tiff(data: bytes) -> Frame:
    layout = read_layout(data)
    flags = cv2.IMREAD_UNCHANGED if layout.premultiplied else cv2.IMREAD_COLOR_BGR
    frame = _decode(readable_tiff(layout), flags)
    if layout.premultiplied:
        if frame.shape[2:] != (4,):
            raise ImageError("it is a damaged TIFF: it has no alpha")
        frame = unmultiplied(frame)
    width = layout.directory.first(WIDTH)
    return frame if frame.shape[1] == width else np.ascontiguousarray(frame[:, :width])


def _upright(frame: Frame, orientation: int) -> Frame:
    """Apply one of the eight values of EXIF 2.3, 4.6.4 A: a transpose for 5 to 8, then flips."""
    turned: Any = frame
    if orientation in (5, 6, 7, 8):
        turned = cv2.transpose(turned)
    if orientation in (2, 3, 6, 7):
        turned = cv2.flip(turned, 1)
    if orientation in (3, 4, 7, 8):
        turned = cv2.flip(turned, 0)
    return cast("Frame", turned)


def _check_size(header: Header, name: str, source: str | None) -> None:
    """Refuse a decompression bomb by its header."""
    height, width = header.size
    if height * width > MAX_PIXELS or max(height, width) > MAX_SIDE:
        what = f"has {height} x {width} pixels; more than {MAX_PIXELS}, or {MAX_SIDE} on a side,"
    elif header.memory > MAX_MEMORY:
        megabytes = header.memory // 10**6
        what = (
            f"has {height} x {width} pixels, and decoding it would take {megabytes} MB; "
            f"more than {MAX_MEMORY // 10**6}"
        )
    else:
        return
    raise ImageError(
        f"The image {name} {what} are refused. Shrink it first.", reason="too_large", source=source
    )


def _scaled_flags(size: tuple[int, int], at_least: tuple[int, int]) -> int:
    """Choose the smallest DCT scale that leaves both sides twice the size needed.

    Scores are then as close to those of the full image as the rounding of samples allows. One and
    a half times the size would keep 38 dB, but move scores three times as far
    (benchmarks/scaled_decode.py).

    The scale must divide both sides: libjpeg rounds up, and the last column then represents pixels
    that do not exist. At 224 pixels the image would be stretched by up to half a pixel, which costs
    20 dB.
    """
    # EXIF may rotate the image by 90 degrees, so either side may become the height.
    shorter, wanted = min(size), max(at_least)
    for factor, flags in _SCALED_DECODERS.items():
        if shorter >= 2 * wanted * factor and not any(side % factor for side in size):
            return flags
    return cv2.IMREAD_COLOR_BGR


def _from_pil(image: Any) -> Frame:
    """Convert a PIL image; its EXIF rotation is applied, as for files."""
    _check_size(Header("png", image.height, image.width, 0), "from PIL", None)
    if image.mode in ("I", "F"):
        raise ImageError(
            f"The PIL image cannot be used: its mode {image.mode!r} has no known range. "
            "Scale it to 8 bits first.",
            reason="unsupported",
        )
    try:
        rgb = _rgb(image)
    except Exception as err:  # PIL decodes only now, and its codecs raise any exception
        reason: ImageReason = "unsupported" if isinstance(err, ValueError) else "damaged"
        raise ImageError(f"The PIL image cannot be decoded: {err}.", reason=reason) from err
    # Read after decoding: PIL rotates a TIFF itself while it loads, and clears its rotation.
    orientation = image.getexif().get(0x0112, 1)
    frame = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    return _upright(cast("Frame", frame), orientation)


def _rgb(image: Any) -> NDArray[np.uint8]:
    """Convert a PIL image of any mode to (H, W, 3) uint8 RGB, as OpenCV would read its file."""
    if image.mode.startswith("I;16"):
        # PIL would clip all samples above 255; OpenCV keeps the high byte.
        high = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(high[..., None], 3, axis=2)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # PIL warns if it converts to RGB directly
    return np.asarray(image.convert("RGB"))

"""HEIC and other HEIF, through pillow-heif or pi-heif if one is installed: OpenCV reads none.

Both have the same functions. The wheels of pi-heif have no encoder, and so no code under the GPL.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeml.errors import ImageError, ImageReason
from edgeml.image.avif import item_sizes
from edgeml.image.frame import Frame
from edgeml.image.tiff_layout import unmultiplied
from edgeml.image.unread import HEIF_ADVICE


@cache
def heif_library() -> str | None:
    """Return the name of the module that decodes HEIF; None if there is none."""
    for name in ("pillow_heif", "pi_heif"):
        found = find_spec(name)
        if found and found.origin:
            return name
    return None


def heif_size(data: bytes) -> tuple[int, int]:
    """Return the largest (height, width) of an image in a file, before any rotation.

    The streams in it need no check: libheif compares their sizes with these.

    Raises ImageError if it has none.
    """
    if heif_library() is None:
        raise ImageError(
            f"it is HEIC, which is not read without 'pi_heif': {HEIF_ADVICE}", reason="unsupported"
        )
    sizes = item_sizes(data)
    if not sizes:
        raise ImageError("it is a HEIF without a size")
    return max(sizes, key=lambda size: size[0] * size[1])


def decode_heif(data: bytes) -> Frame:
    """Decode the primary image, upright: libheif applies the rotation that the file states.

    Raises ImageError if it cannot be decoded.
    """
    library: Any = import_module(heif_library() or "pi_heif")
    try:
        file = library.open_heif(data, convert_hdr_to_8bit=True, bgr_mode=True)
        image = file[file.primary_index]
        pixels: NDArray[Any] = np.asarray(image)
        mode: str = image.mode
    except Exception as err:  # libheif's errors arrive as any exception
        why = " ".join(str(err).split()).rstrip(".")
        reason: ImageReason = "unsupported" if "nsupported" in why else "damaged"
        raise ImageError(f"libheif cannot decode it: {why}", reason=reason) from err
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels.ndim == 2:
        return cast("Frame", cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR))
    if mode.partition(";")[0] == "BGRa":
        return unmultiplied(pixels)
    if pixels.shape[2] == 2:
        return cast("Frame", cv2.cvtColor(pixels[..., :1].copy(), cv2.COLOR_GRAY2BGR))
    return np.array(pixels[..., :3])  # a copy: `pixels` is memory of `file`

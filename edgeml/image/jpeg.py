"""Frames as JPEG: bytes, and data URLs."""

from __future__ import annotations

import cv2

from edgeml.errors import ImageError
from edgeml.image.frame import Frame, check_frame


def encode_jpeg(frame: Frame, quality: int = 90) -> bytes:
    """Encode a frame (H, W, 3) uint8 BGR as JPEG; `quality` is 1 to 100."""
    check_frame(frame)
    ok, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise ImageError(f"OpenCV could not encode a frame of {frame.shape} as JPEG.")
    return data.tobytes()


def jpeg_url(frame: Frame, side: int = 192, quality: int = 80) -> str:
    """Encode a frame (H, W, 3) uint8 BGR as a data URL with at most `side` pixels a side."""
    import base64  # only when an image is shown

    scale = side / max(frame.shape[:2])
    if scale < 1:
        size = max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale))
        frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    encoded = base64.b64encode(encode_jpeg(frame, quality)).decode("ascii")
    return f"data:image/jpeg;base64,{encoded}"

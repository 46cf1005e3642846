"""The picture that a prediction is of: found again when it is to be shown, and not kept alive."""

from __future__ import annotations

import os
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from edgeml.errors import EdgemlError
from edgeml.images import Image, encode_jpeg, read_image
from edgeml.preprocess import Frame

if TYPE_CHECKING:
    from edgeml.predictor import Prediction


class Picture:
    """Finds the picture again that a prediction is of, and keeps no frame alive for it.

    A path is remembered, an array or a PIL image weakly: it is shown as long as somebody else
    has it, and as it is then. Encoded bytes are not remembered.
    """

    __slots__ = ("_seen",)

    def __init__(self, image: Image) -> None:
        self._seen: Any = None
        if isinstance(image, np.ndarray):
            self._seen = weakref.ref(image)
        elif isinstance(image, (str, os.PathLike)):
            self._seen = image
        elif not isinstance(image, (bytes, bytearray, memoryview)):
            with suppress(TypeError):
                self._seen = weakref.ref(image)

    def __reduce__(self) -> tuple[type[Picture], tuple[Any]]:
        """Go to other processes as a path, or as nothing."""
        return Picture, (b"" if isinstance(self._seen, weakref.ref) else self._seen or b"",)

    def url(self, side: int) -> str | None:
        """Give a small JPEG as a data URL, or None if the picture is gone."""
        image = self._seen() if isinstance(self._seen, weakref.ref) else self._seen
        if image is None:
            return None
        try:
            return jpeg_url(read_image(image, at_least=(side, side)), side)
        except EdgemlError:
            return None


def of_picture(prediction: Prediction, image: Image) -> Prediction:
    """Let a prediction know what it is of."""
    object.__setattr__(prediction, "picture", Picture(image))
    return prediction


def jpeg_url(frame: Frame, side: int = 192, quality: int = 80) -> str:
    """Give a frame (H, W, 3) uint8 BGR as a data URL, its longer side at most `side` pixels."""
    import base64  # not by those who never show a picture

    scale = side / max(frame.shape[:2])
    if scale < 1:
        size = max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale))
        frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    encoded = base64.b64encode(encode_jpeg(frame, quality)).decode("ascii")
    return f"data:image/jpeg;base64,{encoded}"

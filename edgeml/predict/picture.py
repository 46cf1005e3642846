"""The image of a prediction: found again when it is shown, and not kept alive."""

from __future__ import annotations

import os
import weakref
from contextlib import suppress
from typing import Any

import numpy as np

from edgeml.errors import EdgemlError
from edgeml.image.jpeg import jpeg_url
from edgeml.image.reading import Image, read_image


class Picture:
    """Finds the image of a prediction again, and keeps no frame alive for it.

    A path is remembered, and an array or a PIL image weakly: it is shown as long as the caller
    holds it, in its state at that time. Encoded bytes are not remembered.
    """

    __slots__ = ("_image",)

    def __init__(self, image: Image) -> None:
        self._image: Any = None
        if isinstance(image, np.ndarray):
            self._image = weakref.ref(image)
        elif isinstance(image, (str, os.PathLike)):
            self._image = image
        elif not isinstance(image, (bytes, bytearray, memoryview)):
            with suppress(TypeError):
                self._image = weakref.ref(image)

    def __reduce__(self) -> tuple[type[Picture], tuple[Any]]:
        """Pickle as a path, or as nothing."""
        return Picture, (b"" if isinstance(self._image, weakref.ref) else self._image or b"",)

    def url(self, side: int) -> str | None:
        """Return a small JPEG as a data URL, or None if the image is gone."""
        image = self._image() if isinstance(self._image, weakref.ref) else self._image
        if image is None:
            return None
        try:
            return jpeg_url(read_image(image, at_least=(side, side)), side)
        except EdgemlError:
            return None

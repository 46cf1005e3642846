"""The picture that a prediction is of: found again when it is to be shown, and not kept alive."""

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

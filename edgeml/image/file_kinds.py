"""What a file is, by its bytes: an image to be read, an image of another format, or neither."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from os import PathLike
from pathlib import PurePath

from edgeml.image.headers import format_of
from edgeml.image.heif import heif_library
from edgeml.image.reading import SUFFIXES
from edgeml.image.unread import unread_format

# Most camera raws begin as a TIFF does, and a TGA as anything.
_RAW = (".dng", ".nef", ".nrw", ".cr2", ".cr3", ".arw", ".orf", ".rw2", ".pef", ".srw", ".raw")
_NAMED = {**dict.fromkeys(_RAW, "camera raw"), ".tga": "TGA"}

# One JPEG after the other.
_VIDEOS = {".mjpg", ".mjpeg"}

# Names that begin like an image of these are common among files that are none.
_SHORT = ("bmp", "tiff", "pnm")


def image_kind(path: str | PathLike[str]) -> str | None:
    """Return "" for an image to be read, the name of another image's format, or None.

    A file of no known format whose suffix is an image's is an image, too: a damaged one.
    """
    suffix = PurePath(path).suffix.lower()
    by_suffix = "" if suffix in SUFFIXES else None
    try:
        if not os.path.isfile(path):  # a pipe would wait for its writer
            return by_suffix
        with open(path, "rb") as file:
            head = file.read(4096)
    except (OSError, ValueError):
        return by_suffix
    if suffix in _NAMED:
        return _NAMED[suffix]
    found = format_of(head)
    unread = suffix in _VIDEOS or (found == "heif" and heif_library() is None)
    if found and not unread and (found not in _SHORT or not suffix):
        return ""
    name = unread_format(head) or ""
    return (
        by_suffix if not name or (name.startswith("a video") and suffix not in SUFFIXES) else name
    )


def is_image(path: str | PathLike[str]) -> bool:
    """Whether a file is an image to be read."""
    return image_kind(path) == ""


def is_any_image(path: str | PathLike[str]) -> bool:
    """Whether a file is an image, of a format that is read or of another one."""
    return image_kind(path) is not None


def other_format(path: str | PathLike[str]) -> str | None:
    """Return the format of an image that cannot be read; None if the file is no such image."""
    return image_kind(path) or None


def counted(kinds: Iterable[str]) -> str:
    """Return texts with the number of times that each occurs: `2 HEIC, 1 PSD`."""
    counts = [f"{number} {kind}" for kind, number in Counter(kinds).most_common()]
    more = ["..."] if len(counts) > 12 else []
    return ", ".join(counts[:12] + more)

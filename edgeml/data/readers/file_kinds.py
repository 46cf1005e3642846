"""What a file is, by its bytes: an image to be read, an image of another format, or neither."""

from __future__ import annotations

from pathlib import Path

from edgeml.image.headers import SUFFIXES_OF, format_of
from edgeml.image.reading import SUFFIXES
from edgeml.image.unread import unread_format

# Most of these begin as a TIFF does.
_RAW = {".dng", ".nef", ".nrw", ".cr2", ".cr3", ".arw", ".orf", ".rw2", ".pef", ".srw", ".raw"}


def is_image(path: Path) -> bool:
    """Whether a file is an image to be read: by its suffix, else by its first bytes."""
    return path.suffix.lower() in SUFFIXES or _kind(path) == ""


def other_format(path: Path) -> str | None:
    """Return the format of an image that cannot be read; None if the file is no such image."""
    return None if path.suffix.lower() in SUFFIXES else _kind(path) or None


def _kind(path: Path) -> str | None:
    """Return an empty text for an image that can be read, the name of another format, or None."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except OSError:
        return None
    suffix = path.suffix.lower()
    if suffix in _RAW:
        return "camera raw"
    # A few bytes are no proof of a BMP or a PPM, nor of a TIFF.
    found = format_of(head)
    if found in SUFFIXES_OF and (found not in ("bmp", "tiff", "pnm") or not suffix):
        return ""
    name = unread_format(head)
    return None if name is None or name.startswith("a video") else name

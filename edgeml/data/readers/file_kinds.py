"""What a file is, by its bytes: an image to be read, an image of another format, or neither."""

from __future__ import annotations

from pathlib import Path

from edgeml.image.headers import SUFFIXES_OF, format_of
from edgeml.image.reading import SUFFIXES

_OTHER_IMAGES = (
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"8BPS", "PSD"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"%PDF-", "PDF"),
    (b"FUJIFILMCCD-RAW", "camera raw"),
)
_RAW = {".dng", ".nef", ".nrw", ".cr2", ".cr3", ".arw", ".orf", ".rw2", ".pef", ".srw", ".raw"}
_AVIF = (b"avif", b"avis")
_HEIF = (b"mif1", b"msf1", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")


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
            head = file.read(16)
    except OSError:
        return None
    suffix = path.suffix.lower()
    if suffix in _RAW:
        return "camera raw"
    if head[4:8] == b"ftyp":
        if head[8:12] in _AVIF:
            return ""
        return "HEIC" if head[8:12] in _HEIF else None  # else a video
    if name := next((name for start, name in _OTHER_IMAGES if head.startswith(start)), None):
        return name
    # A few bytes are no proof of a BMP or a PPM, nor of a TIFF, as which cameras' formats start.
    found = format_of(head)
    if found in SUFFIXES_OF and (found not in ("bmp", "tiff", "pnm") or not suffix):
        return ""
    return "PPM" if suffix in (".ppm", ".pgm", ".pbm", ".pnm", ".pam") else None

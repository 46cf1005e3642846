"""Formats that are recognised by their first bytes, and not read."""

from __future__ import annotations

import re
import struct

from edgeml.errors import ImageError

FORMATS = "JPEG, PNG, BMP, GIF, WebP, TIFF, AVIF and PPM"
"""The formats that are read."""

HEIF_ADVICE = "pip install 'edgeml[heif]' reads HEIC"
"""What to do about it where no library for it is installed."""

_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"II\xbc\x01", "JPEG XR"),
    (b"\x97JB2\r\n\x1a\n", "JBIG2"),
    (b"\x8aMNG\r\n\x1a\n", "MNG"),
    (b"\x8bJNG\r\n\x1a\n", "JNG"),
    (b"8BPS", "PSD"),
    (b"gimp xcf", "XCF"),
    (b"DanM", "MSP"),
    (b"LinS", "MSP"),
    (b"Image type: ", "IM"),
    (b"BLP1", "BLP"),
    (b"BLP2", "BLP"),
    (b"%PDF-", "PDF"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"AT&TFORM", "DjVu"),
    (b"icns", "ICNS"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"#?RGBE", "Radiance HDR"),
    (b"PF\n", "PFM"),
    (b"Pf\n", "PFM"),
    (b"P7\n", "PAM"),
    (b"qoif", "QOI"),
    (b"DDS ", "DDS"),
    (b"FLIF", "FLIF"),
    (b"BPG\xfb", "BPG"),
    (b"\x59\xa6\x6a\x95", "Sun raster"),
    (b"\x01\xda\x00\x01", "SGI"),
    (b"\x01\xda\x01\x01", "SGI"),
    (b"\xd7\xcd\xc6\x9a", "WMF"),
    (b"/* XPM */", "XPM"),
    (b"SIMPLE  =", "FITS"),
    (b"FUJIFILMCCD-RAW", "camera raw (RAF)"),
    (b"FOVb", "camera raw (X3F)"),
    (b"\0MRM", "camera raw (MRW)"),
    (b"IIRO", "camera raw (ORF)"),
    (b"IIRS", "camera raw (ORF)"),
    (b"MMOR", "camera raw (ORF)"),
    (b"IIU\0", "camera raw (RW2)"),
    (b"II\x1a\0\0\0HEAPCCDR", "camera raw (CRW)"),
    (b"\x1a\x45\xdf\xa3", "a video (Matroska or WebM)"),
)
_AVIF = {b"avif", b"avis"}
_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_HEIF = {b"mif1", b"mif2", b"msf1", b"miaf"}
# With the number of images.
_ICO = re.compile(rb"\x00\x00([\x01\x02])\x00[^\x00]\x00")
# Without a palette: its method and, after eight bytes, the bits of a pixel.
_TGA = re.compile(rb"\x00\x00[\x02\x03\x0a\x0b]\x00{5}.{8}[\x08\x0f\x10\x18\x20]", re.DOTALL)
# A version, a method, and bits that there are.
_PCX = re.compile(rb"\x0a[\x00\x02-\x05]\x01[\x01\x02\x04\x08]")
_XBM = re.compile(rb"#define\s{1,9}\w{0,99}width\s{1,9}\d")
_SVG = re.compile(rb"<(?:\w{1,20}:)?svg[\s>/]")
_BEFORE_SVG = ((b"<?xml", b"?>"), (b"<!--", b"-->"), (b"<!DOCTYPE svg", b">"))


def unread_error(name: str) -> ImageError:
    """Return the error for an image of a format that is not read."""
    return ImageError(f"it is {name}, which is not read; {FORMATS} are", reason="unsupported")


def unread_format(data: bytes) -> str | None:
    """Return the name of the format of an image that is not read; None if it is not known.

    A few bytes at the start are enough for most formats; SVG takes up to 4 kB.
    """
    for start, name in _STARTS:
        if data.startswith(start):
            return name
    if data[4:8] == b"ftyp":
        return _container(data)
    if data.endswith(b"TRUEVISION-XFILE.\0") or _TGA.match(data):
        return "TGA"
    if found := _ICO.match(data):
        return "ICO" if found[1] == b"\1" else "CUR"
    if _PCX.match(data):
        return "PCX"
    if data[128:132] == b"DICM":
        return "DICOM"
    if data[40:44] == b" EMF":
        return "EMF"
    if data.startswith(b"\x28\0\0\0") and data[12:14] == b"\1\0":
        return "DIB"
    if _XBM.match(data):
        return "XBM"
    if data.startswith(b"RIFF") and data[8:12] == b"AVI ":
        return "a video (AVI)"
    return "SVG" if _is_svg(data[:4096]) else None


def is_html(data: bytes) -> bool:
    """Return whether a file is a web page, as servers send one in the place of an image."""
    start = data[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return start.startswith((b"<!doctype html", b"<html"))


def _is_svg(head: bytes) -> bool:
    """Return whether a text's first element is SVG's, after what XML allows before it."""
    rest = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    while found := next((end for start, end in _BEFORE_SVG if rest.startswith(start)), None):
        rest = rest.partition(found)[2].lstrip()
    return bool(_SVG.match(rest))


def brands(data: bytes) -> set[bytes]:
    """Return the brands of an ISO media file (ISO/IEC 14496-12, 4.3), as far as `data` has them."""
    end = min(struct.unpack_from(">I", data)[0], len(data), 512)
    return {data[8:12], *(data[i : i + 4] for i in range(16, end - 3, 4))}


def is_avif(data: bytes) -> bool:
    """Return whether an ISO media file is an AVIF; by its first brand if that is all there is."""
    return bool(brands(data) & _AVIF) and data[8:12] not in _HEIC


def is_heif(data: bytes) -> bool:
    """Return whether an ISO media file is HEIC or another HEIF, and no AVIF."""
    return not is_avif(data) and bool(brands(data) & (_HEIC | _HEIF))


def _container(data: bytes) -> str | None:
    found = brands(data)
    if is_avif(data):
        return None
    if is_heif(data):
        return "HEIC" if found & _HEIC else "HEIF"
    if data[8:12] == b"crx ":
        return "camera raw (CR3)"
    if data[8:12] in (b"jxl ", b"jp2 ", b"jpx "):
        return "JPEG XL" if data[8:12] == b"jxl " else "JPEG 2000"
    return "a video (MP4 or QuickTime)"

"""What an encoded image states about itself, read before a codec allocates anything for it."""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from pathlib import PurePath
from typing import Literal

import numpy as np

from edgeml.errors import ImageError
from edgeml.image import tiff
from edgeml.image.avif import avif_size, stated_turn
from edgeml.image.bmp import read_bmp
from edgeml.image.gif import read_gif
from edgeml.image.heif import heif_size
from edgeml.image.orientation import orientation_from
from edgeml.image.png import MAX_CHUNKS, read_png
from edgeml.image.pnm import read_pnm
from edgeml.image.tiff import SIGNATURES, XMP
from edgeml.image.tiff_layout import read_layout
from edgeml.image.unread import FORMATS, is_avif, is_heif, is_html, unread_error, unread_format

Format = Literal["jpeg", "png", "bmp", "gif", "webp", "tiff", "avif", "pnm", "heif"]
Colours = Literal["grey", "rgb", "rgba", "palette", "cmyk", "unknown"]
"""How a file stores colours; `rgba` is anything with transparency, grey images included."""

SUFFIXES_OF: dict[Format, tuple[str, ...]] = {
    "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "png": (".png", ".apng"),
    "gif": (".gif",),
    "bmp": (".bmp", ".dib"),
    "webp": (".webp",),
    "tiff": (".tif", ".tiff"),
    "avif": (".avif",),
    "pnm": (".ppm", ".pgm", ".pbm", ".pnm"),
    "heif": (".heic", ".heif", ".hif"),
}

# Nobody makes an image beyond this limit, and reading through it would take longer than decoding
# one: a segment costs half a microsecond here.
_MAX_SEGMENTS = 10_000

# A scan covers the full image, and may take 10 bytes: 17 ms each at 50 megapixels. Encoders write
# 10 scans, those that search for the best order some 30.
_MAX_SCANS = 64


@dataclass(frozen=True, slots=True)
class Header:
    """What a header states about an image.

    Attributes:
        format: Which codec it is for.
        height, width: In pixels, before any EXIF rotation.
        memory: The bytes that OpenCV needs to decode the image: 6 a pixel, since it holds the frame
            twice, and what a format needs in addition. Measured with OpenCV 5.0 on images of 1 to
            49 megapixels.
        min_bytes: The bytes that a file with an image of that size must have.
        animated: A PNG that must be decoded through `strip_animation`.
        colours: How colours are stored.
        bits: Bits of a sample; 0 if unknown.
        orientation: EXIF's, 1 to 8; 1 is upright.
    """

    format: Format
    height: int
    width: int
    memory: int
    _: KW_ONLY
    min_bytes: int = 0
    animated: bool = False
    colours: Colours = "unknown"
    bits: int = 8
    orientation: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels, before any EXIF rotation."""
        return self.height, self.width

    def matches(self, path: PurePath) -> bool:
        """Return whether the suffix of a file's name is one of this format."""
        return path.suffix.lower() in SUFFIXES_OF[self.format]


def format_of(data: bytes) -> Format | None:
    """Return the format by the first bytes, 12 or more; None if it is not known.

    HEIF is known even where no library reads it.
    """
    if data.startswith(b"\xff\xd8"):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if data.startswith(b"BM"):
        return "bmp"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    if data.startswith(SIGNATURES):
        return "tiff"
    if data[4:8] == b"ftyp":
        return "avif" if is_avif(data) else "heif" if is_heif(data) else None
    if data[:1] == b"P" and data[1:2] in b"123456" and data[2:3] in b" \t\r\n#" and len(data) > 2:
        return "pnm"
    return None


def read_header(data: bytes) -> Header:
    """Read the header of an encoded image.

    Raises:
        ImageError: The format is not one of `FORMATS`, the header is damaged or cut short, or what
            it announces is not in the file or absurd: a chunk that runs past the end, a thousand
            scans. The message states what is wrong, not with which image.
    """
    try:
        header = _header(data)
    except (struct.error, IndexError, OverflowError) as err:  # an offset beyond all memory
        raise ImageError("its header is cut short") from err
    if header.height < 1 or header.width < 1:
        raise ImageError(f"its header states {header.height} x {header.width} pixels")
    return header


def header_or_none(data: bytes) -> Header | None:
    """Read the header of an encoded image; None if it has none that can be read."""
    with suppress(ImageError):
        return read_header(data)
    return None


def _header(data: bytes) -> Header:
    match format_of(data):
        case "jpeg":
            return _jpeg(data)
        case "png":
            return _png(data)
        case "gif":
            gif = read_gif(data)
            memory = 8 * gif.height * gif.width + len(data)
            return Header("gif", gif.height, gif.width, memory, colours="palette")
        case "bmp":
            return _bmp(data)
        case "webp":
            return _webp(data)
        case "tiff":
            return _tiff(data)
        case "avif":
            return _avif(data)
        case "heif":
            height, width = heif_size(data)
            return Header("heif", height, width, 8 * height * width, bits=0)
        case "pnm":
            facts = read_pnm(data)
            return Header(
                "pnm", facts.height, facts.width,
                8 * facts.height * facts.width + (len(data) if facts.text else 0),
                min_bytes=facts.min_bytes, colours="rgb" if facts.samples == 3 else "grey",
                bits=facts.bits,
            )  # fmt: skip
        case _ if name := unread_format(data):
            raise unread_error(name)
        case _:
            what = "an HTML page, no image" if is_html(data) else "damaged or of an unknown format"
            raise ImageError(f"it is {what}; {FORMATS} are read", reason="unknown_format")


def _jpeg(data: bytes) -> Header:
    """Find the frame header and the first scan (ITU-T T.81, B.2.2, B.2.3); EXIF is in APP1."""
    position, frame, xmp = 2, 0, b""
    exif: list[bytes] = []
    for _ in range(_MAX_SEGMENTS):
        # Codecs skip bytes between two segments, so a check that stopped there would be none.
        position = data.find(b"\xff", position)
        if position < 0:
            raise ImageError("it is a JPEG without an image")
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # these carry no length
            position += 2
            continue
        if marker == 0xD9:
            raise ImageError("it is a JPEG that ends before its image")
        if marker == 0xDA and frame:
            return _jpeg_header(data, frame, position, orientation_from(b"".join(exif), xmp))
        if marker == 0xF7 and not frame:
            raise unread_error("JPEG-LS")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and not frame:
            frame = position
        length = max(struct.unpack_from(">H", data, position + 2)[0], 2)
        if marker == 0xE1 and data.startswith(b"Exif\0\0", position + 4):
            exif.append(data[position + 10 : position + 2 + length])  # a part of one block
        elif marker == 0xE1 and data.startswith(_XMP_IN_JPEG, position + 4):
            xmp = data[position + 4 + len(_XMP_IN_JPEG) : position + 2 + length]
        position += 2 + length
    raise ImageError(f"it is a JPEG with {_MAX_SEGMENTS} segments before its image")


_XMP_IN_JPEG = b"http://ns.adobe.com/xap/1.0/\0"


def _jpeg_header(data: bytes, frame: int, scan: int, orientation: int) -> Header:
    """Read the frame header; an image of several scans is held as 16-bit coefficients."""
    bits, height, width, components = struct.unpack_from(">BHHB", data, frame + 4)
    if what := _unread_jpeg(data[frame + 1], bits, components):
        raise ImageError(
            f"it is {what}, which is not read; JPEG of 1, 3 or 4 components of 8 bits is",
            reason="unsupported",
        )
    pixels = height * width
    memory = 6 * pixels
    factors = [data[frame + 11 + 3 * i] for i in range(components)]
    across, down = [one >> 4 for one in factors], [one & 15 for one in factors]
    samples = sum(a * b for a, b in zip(across, down, strict=True)) * pixels
    samples //= max([1, *across]) * max([1, *down])
    # A block of 64 samples takes a bit or more, unless it is coded arithmetically. libjpeg would
    # fill in the rest in grey: 500 bytes could cost 300 MB.
    min_bytes = samples // 64 // 8 if data[frame + 1] < 0xC8 else 0
    if data[frame + 1] in (0xC2, 0xC6, 0xCA, 0xCE) or data[scan + 4] < components:
        scans = _scans(data, scan)
        if scans > _MAX_SCANS:
            raise ImageError(f"it is a JPEG of {scans} scans; more than {_MAX_SCANS} are refused")
        memory = max(memory, 3 * pixels + 2 * samples)
    return Header(
        format="jpeg",
        height=height,
        width=width,
        memory=memory,
        min_bytes=min_bytes,
        colours=_JPEG_COLOURS.get(components, "unknown"),
        bits=bits,
        orientation=orientation,
    )


def _unread_jpeg(process: int, bits: int, components: int) -> str:
    """Name what OpenCV does not read about a JPEG (ITU-T T.81, table B.1); empty if it does."""
    if process in (0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF):
        return "a hierarchical JPEG"
    if process == 0xCB or (process == 0xC3 and (components != 3 or bits != 8)):
        return f"a lossless JPEG of {components} components and {bits} bits"
    if bits != 8:
        return f"a JPEG of {bits} bits"
    return f"a JPEG of {components} components" if components not in (1, 3, 4) else ""


_JPEG_COLOURS: dict[int, Colours] = {1: "grey", 3: "rgb", 4: "cmyk"}


def _scans(data: bytes, start: int) -> int:
    """Count the markers of scans; inside a scan the two bytes never follow each other."""
    values, count = np.frombuffer(data, np.uint8, offset=start), 0
    for first in range(0, len(values), 1 << 20):  # in pieces, since it takes memory
        part = values[first : first + (1 << 20) + 1]
        count += int(np.count_nonzero((part[:-1] == 0xFF) & (part[1:] == 0xDA)))
    return count


def _png(data: bytes) -> Header:
    facts = read_png(data)
    colours = _PNG_COLOURS.get(facts.colour_type, "unknown")
    return Header(
        format="png",
        height=facts.height,
        width=facts.width,
        memory=(8 if facts.bits == 16 else 6) * facts.height * facts.width,
        animated=facts.animated,
        colours="rgba" if facts.transparent and colours != "palette" else colours,
        bits=facts.bits,
        orientation=orientation_from(facts.exif, facts.xmp),
    )


_PNG_COLOURS: dict[int, Colours] = {0: "grey", 2: "rgb", 3: "palette", 4: "rgba", 6: "rgba"}


def _bmp(data: bytes) -> Header:
    facts = read_bmp(data)
    colours: Colours = "palette" if facts.bits <= 8 else "rgba" if facts.bits == 32 else "rgb"
    memory = 6 * facts.height * facts.width
    return Header("bmp", facts.height, facts.width, memory, colours=colours)


def _webp(data: bytes) -> Header:
    """Read the first chunk (RFC 9649, 2.5 to 2.7). Codecs compare the sizes in it with the rest."""
    kind, factor, orientation = data[12:16], 6, 1
    colours: Colours = "rgb"
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[i : i + 3], "little") + 1 for i in (24, 27))
        flags = data[20]
        factor = 14 if flags & 2 else 8 if flags & 16 else 6  # with a canvas for animation; alpha
        colours = "rgba" if flags & 16 else "rgb"
        orientation = _webp_orientation(data)
    elif kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        colours = "rgba" if data[24] & 0x10 else "rgb"
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    else:
        raise ImageError("it is a WebP without an image")
    memory = factor * height * width
    return Header("webp", height, width, memory, colours=colours, orientation=orientation)


def _webp_orientation(data: bytes) -> int:
    """Find EXIF and XMP among the chunks; libwebp ignores those that VP8X does not announce."""
    position, found = 12, {b"EXIF": b"", b"XMP ": b""}
    for _ in range(MAX_CHUNKS):
        if position + 8 > len(data):
            break
        name, length = struct.unpack_from("<4sI", data, position)
        if data[20] & _WEBP_FLAGS.get(name, 0) and not found[name]:
            found[name] = data[position + 8 : position + 8 + length]
        position += 8 + length + length % 2
    return orientation_from(found[b"EXIF"], found[b"XMP "])


_WEBP_FLAGS = {b"EXIF": 8, b"XMP ": 4}


def _avif(data: bytes) -> Header:
    height, width, alpha = avif_size(data)
    memory, orientation = (28 if alpha else 19) * height * width, stated_turn(data)
    # Its EXIF is not to be applied; XMP is by Pillow, if there is neither a turn nor EXIF.
    if orientation == 1 and b"Exif" not in data and (at := data.find(b"tiff:Orientation")) >= 0:
        orientation = orientation_from(b"", data[at : at + 30])
    return Header("avif", height, width, memory, bits=0, orientation=orientation)


def _tiff(data: bytes) -> Header:
    layout = read_layout(data)
    colours = _TIFF_COLOURS.get(layout.photometric, "unknown")
    return Header(
        format="tiff",
        height=layout.height,
        width=layout.directory.first(tiff.WIDTH),
        memory=layout.memory,
        colours="rgba" if layout.extra > 0 else colours,
        bits=layout.bits,
        orientation=orientation_from(data, layout.directory.content(XMP)),
    )


_TIFF_COLOURS: dict[int, Colours] = {
    0: "grey", 1: "grey", 2: "rgb", 3: "palette", 5: "cmyk", 6: "rgb",
}  # fmt: skip

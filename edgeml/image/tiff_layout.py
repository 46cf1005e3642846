"""Which TIFFs OpenCV decodes to the right pixels, and what a file must be changed to for that.

OpenCV reads TIFF through libtiff's TIFFReadRGBA*, which multiplies colours by a separate alpha,
skips wrongly through the last tile of a row of grey ones, and in 4.7 refuses tiles that are not
packed. A copy of the file with another directory avoids all three.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import ImageError
from edgeml.image import tiff
from edgeml.image.tiff import Directory, read_directory
from edgeml.image.unread import unread_error

_SUBFILE_TYPE, _MAKE, _SUBFILES, _DNG_VERSION = 254, 271, 330, 50706
_INK_SET, _CMYK = 332, 1
_MAX_SAMPLES = 65_535
_MAX_TILES = 1 << 18  # 50 megapixels in tiles of 16 x 16; each takes a microsecond
_ROWS = 64  # of a strip, in a copy
_ASSOCIATED = 1  # ExtraSamples: the colours are already multiplied by this alpha

_COMPRESSIONS = {
    6: "JPEG in its form of 1992", 32766: "NeXT", 32771: "uncompressed words", 32809: "ThunderScan",
    32895: "IT8", 34661: "JBIG", 34676: "SGI Log", 34677: "SGI Log", 34712: "JPEG 2000",
    34887: "LERC", 34892: "lossy JPEG of DNG", 34925: "LZMA", 34926: "ZSTD", 34927: "WebP",
    50000: "ZSTD", 50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
_READ_COMPRESSIONS = (1, 2, 3, 4, 5, 7, 8, 32773, 32946)
_COLOURS = {
    4: "a transparency mask", 8: "CIE L*a*b*", 9: "ICC L*a*b*", 10: "ITU L*a*b*",
    32803: "the samples of a camera's sensor", 32844: "LogL", 32845: "LogLuv",
    34892: "the samples of a camera's sensor",
}  # fmt: skip
_SAMPLE_KINDS = {2: "signed", 3: "floating-point", 4: "untyped", 5: "complex", 6: "complex"}
_CHANNELS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3}


class Layout(NamedTuple):
    """How a TIFF holds its samples; `width` is that of all tiles of a row."""

    directory: Directory
    height: int
    width: int
    bits: int
    photometric: int
    samples: int
    planar: bool
    raw_tiles: bool

    @property
    def extra(self) -> int:
        """How many samples of a pixel are not colours."""
        return self.samples - _CHANNELS.get(self.photometric, self.samples)

    @property
    def premultiplied(self) -> bool:
        """Whether the colours have to be divided by the alpha."""
        return self.extra > 0 and self.directory.first(tiff.EXTRA_SAMPLES) == _ASSOCIATED

    @property
    def changes(self) -> bool:
        """Whether OpenCV needs another directory."""
        turned = tiff.ORIENTATION in self.directory.entries
        padded = self.width != self.directory.first(tiff.WIDTH)
        return turned or padded or self.raw_tiles or self.extra > 0

    @property
    def memory(self) -> int:
        """The bytes that OpenCV and the changes need; it unpacks a strip or a tile at once."""
        directory = self.directory
        piece = directory.first(tiff.TILE_WIDTH) * directory.first(tiff.TILE_HEIGHT)
        if not piece or self.raw_tiles:
            rows = _ROWS if self.raw_tiles else directory.first(tiff.ROWS)
            piece = self.width * min(rows or self.height, self.height)
        unpacked = piece * self.samples * self.bits // 8  # held twice if it was not packed
        own = len(directory.data) if self.changes else 0
        own += 2 * self.planes * self.row_bytes * self.height if self.raw_tiles else 0
        factor = 6 if not self.premultiplied else 10 if self.bits == 8 else 17
        return factor * self.height * self.width + max(2 * unpacked, 4 * piece) + own

    @property
    def planes(self) -> int:
        """How many images the file holds one after the other, each with a part of the samples."""
        return self.samples if self.planar else 1

    @property
    def row_bytes(self) -> int:
        """The bytes of a row of the unpacked image, of one plane if planes are separate."""
        return -(-self.width * self.bits * (1 if self.planar else self.samples) // 8)


def read_layout(data: bytes) -> Layout:
    """Read how a TIFF holds its samples.

    Raises ImageError for a variant that OpenCV would not read, or not correctly, with its name;
    struct.error if the file is cut short.
    """
    directory = read_directory(data)
    if directory is None:
        raise ImageError("it is not a TIFF")
    if maker := _camera(directory):
        raise unread_error(f"camera raw ({maker})")
    height, width = directory.first(tiff.HEIGHT), directory.first(tiff.WIDTH)
    if not height or not width:
        raise ImageError("it is a TIFF without a size")
    tile_width = directory.first(tiff.TILE_WIDTH)
    if tile_width:
        width = -(-width // tile_width) * tile_width
    layout = Layout(
        directory=directory,
        height=height,
        width=width,
        bits=directory.first(tiff.BITS, 1),
        photometric=directory.first(tiff.PHOTOMETRIC, -1),
        samples=directory.first(tiff.SAMPLES, 1),
        planar=directory.first(tiff.PLANAR, 1) == 2,
        raw_tiles=bool(tile_width) and directory.first(tiff.COMPRESSION, 1) == 1,
    )
    if what := _unread(layout):
        raise ImageError(f"it is a TIFF {what}", reason="unsupported")
    return layout


def _camera(directory: Directory) -> str:
    """Name the camera's format that has the form of a TIFF; empty if it is not one.

    Its first directory holds a thumbnail, which would be read as the image.
    """
    if directory.data[8:10] == b"CR":
        return "CR2"
    if _DNG_VERSION in directory.entries:
        return "DNG"
    thumbnail = directory.first(_SUBFILE_TYPE) & 1
    return (
        "NEF, ARW or similar" if thumbnail and {_MAKE, _SUBFILES} <= set(directory.entries) else ""
    )


def _unread(layout: Layout) -> str:
    """Name what OpenCV does not read correctly about a TIFF; empty if it reads it."""
    directory, bits, photometric = layout.directory, layout.bits, layout.photometric
    compression = directory.first(tiff.COMPRESSION, 1)
    if photometric in _COLOURS:
        return f"of {_COLOURS[photometric]}; grey, RGB, palettes, CMYK and YCbCr are read"
    if compression not in _READ_COMPRESSIONS:
        name = _COMPRESSIONS.get(compression, f"method {compression}")
        return f"compressed with {name}; LZW, Deflate, PackBits, JPEG, fax and none are read"
    kind = directory.first(tiff.SAMPLE_FORMAT, 1)
    if kind in _SAMPLE_KINDS:
        return f"with {_SAMPLE_KINDS[kind]} samples of {bits} bits; unsigned ones are read"
    if bits not in (1, 8, 16) and (bits, photometric) != (4, 3):
        return f"with samples of {bits} bits; 8 and 16 bits are read"
    if len(set(depths := directory.values(tiff.BITS, at_most=_MAX_SAMPLES))) > 1:
        return f"with samples of different bits, {depths}"
    if bits == 16 and photometric not in (1, 2):
        names = {0: "grey from white to black", 3: "a palette", 5: "CMYK", 6: "YCbCr"}
        return f"with {names.get(photometric, 'colours')} of 16 bits; 8 bits are read"
    if photometric == 5 and directory.first(_INK_SET, _CMYK) != _CMYK:
        return "of inks other than CMYK"
    if photometric == 6 and layout.planar:
        return "of YCbCr in separate planes"
    if photometric not in _CHANNELS:
        return f"with colours of kind {photometric}; grey, RGB, palettes, CMYK and YCbCr are read"
    if layout.samples > 4 or layout.extra > 1 or (layout.extra and photometric not in (0, 1, 2)):
        return f"with {layout.samples} samples a pixel; grey and RGB with one alpha are read"
    if layout.extra and layout.photometric != 2 and (layout.premultiplied or bits != 8):
        return f"of grey with an alpha that is premultiplied or has {bits} bits"
    if layout.premultiplied and layout.planar and bits == 16:
        return "of 16 bits with a premultiplied alpha in separate planes"
    return ""


def readable_tiff(layout: Layout) -> bytes | bytearray:
    """Return a file that OpenCV decodes to the samples of this one, upright, on `layout.width`."""
    if not layout.changes:
        return layout.directory.data
    changes: dict[int, list[int] | None] = {tiff.ORIENTATION: None, tiff.WIDTH: [layout.width]}
    after: bytes | memoryview = b""
    if layout.extra and layout.photometric == 2:
        changes[tiff.EXTRA_SAMPLES] = [_ASSOCIATED]  # the one alpha that libtiff leaves alone
    elif layout.extra and layout.planar:
        # The first plane is the grey one.
        changes |= {tiff.EXTRA_SAMPLES: None, tiff.SAMPLES: [1], tiff.BITS: [layout.bits]}
    if layout.raw_tiles:
        after = _untiled(layout)
        size, start = layout.row_bytes, len(layout.directory.data)
        first_rows = [(p, y) for p in range(layout.planes) for y in range(0, layout.height, _ROWS)]
        for tag in (tiff.TILE_WIDTH, tiff.TILE_HEIGHT, tiff.TILE_OFFSETS, tiff.TILE_BYTES):
            changes[tag] = None
        changes[tiff.ROWS] = [_ROWS]
        changes[tiff.STRIP_OFFSETS] = [
            start + size * (p * layout.height + y) for p, y in first_rows
        ]
        changes[tiff.STRIP_BYTES] = [size * min(_ROWS, layout.height - y) for _, y in first_rows]
    return layout.directory.rewritten(changes, after)


def _untiled(layout: Layout) -> memoryview:
    """Return the rows of a TIFF of tiles that are not packed, plane after plane."""
    directory, data = layout.directory, np.frombuffer(layout.directory.data, np.uint8)
    down = directory.first(tiff.TILE_HEIGHT)
    across = -(-layout.row_bytes * directory.first(tiff.TILE_WIDTH) // layout.width)
    offsets = directory.values(tiff.TILE_OFFSETS, at_most=_MAX_TILES)
    rows, columns = math.ceil(layout.height / max(down, 1)), layout.row_bytes // max(across, 1)
    planes = layout.planes
    if not down or len(offsets) != rows * columns * planes:
        raise ImageError(f"it is a damaged TIFF: it has {len(offsets)} tiles")
    image = np.empty((planes, layout.height, layout.row_bytes), np.uint8)
    for i, offset in enumerate(offsets):
        plane, place = divmod(i, rows * columns)
        y, x = (place // columns) * down, (place % columns) * across
        tile = data[offset : offset + down * across]
        if len(tile) < down * across:
            raise ImageError("it is a damaged TIFF: a tile runs past its end")
        part = image[plane, y : y + down, x : x + across]
        part[:] = tile.reshape(down, across)[: len(part)]
    return image.reshape(-1).data


def unmultiplied(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Divide colours by their alpha, as Pillow does: (H, W, 4), 8 or 16 bits, to (H, W, 3) uint8.

    Without alpha a pixel keeps its colour.
    """
    frame = np.empty((*pixels.shape[:2], 3), np.uint8)
    for target, row in zip(frame, pixels, strict=True):  # a row at a time, for the memory
        high = (row >> 8 if row.dtype == np.uint16 else row).astype(np.uint32)
        colours, alpha = high[:, :3], high[:, 3:]
        divided = np.minimum(255 * colours // np.maximum(alpha, 1), 255)
        target[:] = np.where(alpha == 0, colours, divided)
    return frame

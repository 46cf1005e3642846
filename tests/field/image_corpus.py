"""Images of every kind that Pillow or a few lines can write: a function for each format."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from tests.field.image_files import exif, tiff
from tests.image.corpus import Chunk, encoded, picture, png, png_header

HEIGHT, WIDTH = 37, 53
_random = np.random.default_rng(0)
RGB = picture(HEIGHT, WIDTH)
INDICES = _random.integers(0, 16, (HEIGHT, WIDTH)).astype(np.uint8)
DEEP = _random.integers(0, 65536, (HEIGHT, WIDTH, 4))
COLOURS = _random.integers(0, 256, (256, 3), dtype=np.uint8)
Named = Iterator[tuple[str, bytes]]


def _modes() -> dict[str, Image.Image]:
    """Give the picture in every mode of Pillow."""
    alpha = Image.fromarray((np.arange(HEIGHT * WIDTH) * 7 % 256).astype(np.uint8).reshape(37, 53))
    grey, rgba = RGB.convert("L"), RGB.copy()
    rgba.putalpha(alpha)
    ramp = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    palette = RGB.convert("P", palette=Image.Palette.ADAPTIVE, colors=200)
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    to_lab = ImageCms.buildTransform(*profiles, "RGB", "LAB")  # type: ignore[arg-type]
    lab = ImageCms.applyTransform(RGB, to_lab)
    assert lab is not None
    return {
        "1": RGB.convert("1"), "L": grey, "LA": Image.merge("LA", (grey, alpha)),
        "P": palette, "PA": palette.convert("PA"), "P of 16": RGB.quantize(16),
        "P of 4": RGB.quantize(4), "P of 2": RGB.quantize(2), "RGB": RGB, "RGBA": rgba,
        "RGBX": RGB.convert("RGBX"), "RGBa": rgba.convert("RGBa"), "CMYK": RGB.convert("CMYK"),
        "YCbCr": RGB.convert("YCbCr"), "LAB": lab, "HSV": RGB.convert("HSV"),
        "I;16": Image.fromarray((ramp * 33).astype(np.uint16)),
        "I": Image.fromarray((ramp * 33000).astype(np.int32)),
        "F": Image.fromarray((ramp / ramp.max()).astype(np.float32)),
    }  # fmt: skip


MODES = _modes()
_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def in_all_modes(kind: str, **options: Any) -> Named:
    """Give the picture in each mode that Pillow can write and read in a format."""
    for mode, image in MODES.items():
        try:
            data = encoded(image, kind, **options)
            Image.open(io.BytesIO(data)).load()  # Pillow 12 does not read its YCbCr TIFF
        except (OSError, ValueError, KeyError, RuntimeError, SystemError):
            continue
        yield f"{kind} {mode} {options or ''}", data


def in_odd_sizes(kind: str) -> Named:
    for height, width in ((1, 1), (1, 53), (37, 1), (7, 9), (8, 8), (16, 17), (2, 2), (3, 5)):
        yield f"{kind} {height} x {width}", encoded(picture(height, width), kind)


def several(kind: str) -> Named:
    """Give a file of two images, and one with a colour profile, where the format has these."""
    yield f"{kind} of two", encoded(RGB, kind, save_all=True, append_images=[RGB.rotate(180)])
    if kind != "GIF":
        yield f"{kind} with a profile", encoded(RGB, kind, icc_profile=_PROFILE)


def jpeg() -> Named:
    yield from in_all_modes("JPEG", quality=95)
    yield from in_odd_sizes("JPEG")
    yield "profile", encoded(RGB, "JPEG", icc_profile=_PROFILE)
    yield "two in MPO", encoded(RGB, "MPO", save_all=True, append_images=[RGB.rotate(180)])
    for quality, sampling, progressive in itertools.product((95, 30), (0, 1, 2), (False, True)):
        options = {"quality": quality, "subsampling": sampling, "progressive": progressive}
        yield str(options), encoded(RGB, "JPEG", **options)
    for name, option in (
        ("RGB", {"keep_rgb": True}), ("4:1:1", {"subsampling": "4:1:1"}),
        ("restarts", {"restart_marker_blocks": 1}), ("optimised", {"optimize": True}),
        ("grey progressive", {"progressive": True}),
    ):  # fmt: skip
        image = RGB.convert("L") if "grey" in name else RGB
        yield name, encoded(image, "JPEG", **option)  # type: ignore[arg-type]
    plain, cmyk = encoded(RGB, "JPEG"), encoded(MODES["CMYK"], "JPEG", quality=95)
    adobe = b"\xff\xee\0\x0eAdobe\0d\0\0\0\0"
    at = cmyk.index(adobe)
    yield "YCCK", cmyk[:at] + adobe + b"\2" + cmyk[at + len(adobe) + 1 :]
    yield "CMYK without Adobe", cmyk[:at] + cmyk[at + len(adobe) + 1 :]
    yield "without JFIF", plain[:2] + plain[20:]
    for transform in (b"\0", b"\1"):
        yield f"Adobe {transform!r}", plain[:2] + adobe + transform + plain[20:]
    yield "fill bytes", plain[:2] + b"\xff\xff" + plain[2:]
    yield "more after it", plain + bytes(1000)
    for value in range(1, 9):
        block = b"Exif\0\0" + exif(value, 4 if value % 2 else 3, "<" if value % 3 else ">")
        yield f"turned {value}", encoded(RGB, "JPEG", exif=block)


def _png(
    kind: int, bits: int, samples: NDArray[Any], adam7: int = 0, chunks: Sequence[Chunk] = ()
) -> bytes:
    """Write samples (H, W, C) of 1 to 16 bits, interlaced or not (PNG 3rd ed., 7.2 and 8.1)."""
    passes = [(0, 0, 1, 1)]
    if adam7:
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2)]
        passes += [(0, 1, 2, 2), (1, 0, 2, 1)]
    rows = b""
    for y, x, down, across in passes:
        part = samples[y::down, x::across]
        flat = part.reshape(len(part), -1)
        if bits == 16:
            packed = flat.astype(">u2").view(np.uint8)
        else:
            spread = flat[..., None] >> np.arange(bits - 1, -1, -1) & 1
            packed = np.packbits(spread.reshape(len(flat), -1).astype(np.uint8), axis=1)
        rows += b"".join(b"\0" + row.tobytes() for row in packed if flat.shape[1])
    header = png_header(HEIGHT, WIDTH, bits, kind, adam7)
    return png(header, *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b""))


def png_files() -> Named:
    yield from in_all_modes("PNG")
    yield from in_odd_sizes("PNG")
    yield from several("PNG")
    kinds = ((0, 1, (1, 2, 4, 8, 16)), (3, 1, (1, 2, 4, 8)), (2, 3, (8, 16)), (4, 2, (8, 16)),
             (6, 4, (8, 16)))  # fmt: skip
    for adam7, (kind, channels, depths) in itertools.product((0, 1), kinds):
        for bits in depths:
            samples = DEEP[..., :channels] >> (16 - bits)
            palette = [(b"PLTE", COLOURS[: 2**bits].tobytes())] if kind == 3 else []
            yield f"{kind} {bits} {adam7}", _png(kind, bits, samples, adam7, palette)
            clear = bytes(range(2**bits)) if kind == 3 else samples[0, 0].astype(">u2").tobytes()
            if kind in (0, 2, 3):
                chunks = [*palette, (b"tRNS", clear)]
                yield f"{kind} {bits} {adam7} clear", _png(kind, bits, samples, adam7, chunks)
    for chunk in (
        (b"gAMA", struct.pack(">I", 100_000)), (b"gAMA", struct.pack(">I", 22_727)),
        (b"sRGB", b"\0"), (b"cHRM", bytes(32)), (b"sBIT", b"\5\6\5"), (b"bKGD", bytes(6)),
        (b"pHYs", bytes(9)), (b"cICP", b"\x09\x10\0\1"),
    ):  # fmt: skip
        yield f"{chunk}", _png(2, 8, DEEP[..., :3] >> 8, 0, [chunk])


def tiff_files() -> Named:
    yield from in_all_modes("TIFF")
    yield from in_all_modes("TIFF", big_tiff=True)
    yield from in_odd_sizes("TIFF")
    yield from several("TIFF")
    for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "I;16"):
        bilevel = ("group3", "group4", "tiff_ccitt") if mode == "1" else ()
        packed = ("jpeg",) if mode in ("L", "RGB") else ()
        for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", *bilevel, *packed):
            yield f"{mode} {name}", encoded(MODES[mode], "TIFF", compression=name)
        if mode != "1":
            predicted = {"compression": "tiff_lzw", "tiffinfo": {317: 2}}
            yield f"{mode} predicted", encoded(MODES[mode], "TIFF", **predicted)
    samples = (DEEP >> 8).astype(np.uint8)
    for order, planar, tile in itertools.product(("<", ">"), (False, True), (0, 16)):
        options: Any = {"order": order, "planar": planar, "tile": tile}
        # Pillow reads planes of grey from white to black as if from black to white.
        kinds = ((3, 2), (1, 1), (4, 5)) if planar else ((3, 2), (1, 1), (1, 0), (4, 5))
        for channels, photometric in kinds:
            yield f"{photometric} {options}", tiff(samples[..., :channels], photometric, **options)
        yield f"alpha {options}", tiff(samples, 2, extra=(2,), **{**options, "planar": False})
    for bits in (1, 4, 8):
        shown = (INDICES % 2**bits if bits < 8 else INDICES)[..., None]
        colours = [int(c) * 257 for column in COLOURS[: 2**bits].T for c in column]
        yield f"palette {bits}", tiff(shown, 3, bits=bits, tags=[(320, 3, colours)])
    for photometric, fill in itertools.product((0, 1), (1, 2)):
        one_bit = tiff((INDICES % 2)[..., None], photometric, bits=1, tags=[(266, 3, [fill])])
        yield f"one bit {photometric} {fill}", one_bit


def _gif(
    screen: tuple[int, int], place: tuple[int, int], *, local: bool = False, clear: int = -1,
    everywhere: bool = True,
) -> bytes:  # fmt: skip
    """Write one image of 20 x 30 pixels, unpacked, somewhere on a screen (height, width)."""
    own, common = COLOURS[::-1].tobytes(), COLOURS.tobytes() if everywhere else b""
    head = b"GIF89a" + struct.pack("<HHBBB", *screen[::-1], 0xF7 if everywhere else 0x70, 7, 0)
    control = b"!\xf9\4\1\0\0" + bytes([clear, 0]) if clear >= 0 else b""
    frame = b"," + struct.pack("<HHHHB", *place[::-1], 30, 20, 0x87 if local else 0)
    pixels = _random.integers(0, 256, 600).tolist()
    codes = [c for i in range(0, 600, 200) for c in (256, *pixels[i : i + 200])] + [257]
    bits = "".join(f"{code:09b}"[::-1] for code in codes)
    packed = bytes(int(bits[i : i + 8][::-1], 2) for i in range(0, len(bits), 8))
    pieces = (packed[i : i + 255] for i in range(0, len(packed), 255))
    data = b"\x08" + b"".join(bytes([len(one)]) + one for one in pieces) + b"\0"
    return head + common + control + frame + (own if local else b"") + data + b";"


def gif_files() -> Named:
    yield from in_all_modes("GIF")
    yield from in_odd_sizes("GIF")
    yield from several("GIF")
    yield "interlaced", encoded(MODES["P"], "GIF", interlace=1)
    for screen, place in (((20, 30), (0, 0)), ((30, 40), (4, 5)), ((10, 20), (0, 0)),
                          ((0, 0), (0, 0))):  # fmt: skip
        for local, clear in itertools.product((False, True), (-1, 3, 7)):
            yield f"{screen} {local} {clear}", _gif(screen, place, local=local, clear=clear)
        yield f"{screen} own colours", _gif(screen, place, local=True, everywhere=False)
    yield "87a", b"GIF87a" + _gif((20, 30), (0, 0))[6:]
    yield "without its last byte", _gif((20, 30), (0, 0))[:-1]


def webp_files() -> Named:
    yield from in_all_modes("WEBP")
    yield from in_all_modes("WEBP", lossless=True)
    yield from in_odd_sizes("WEBP")
    yield from several("WEBP")
    yield "clear colours", encoded(MODES["RGBA"], "WEBP", lossless=True, exact=True)


def avif_files() -> Named:
    yield from in_all_modes("AVIF", speed=10)
    yield from in_odd_sizes("AVIF")
    yield from several("AVIF")
    for sampling in ("4:4:4", "4:2:2", "4:2:0", "4:0:0"):
        yield sampling, encoded(RGB, "AVIF", speed=10, subsampling=sampling)
    yield "limited range", encoded(RGB, "AVIF", speed=10, range="limited")
    for value in range(1, 9):
        yield f"turned {value}", encoded(RGB, "AVIF", speed=10, exif=exif(value))


def other_files() -> Named:
    yield from in_all_modes("PPM")
    yield from in_odd_sizes("PPM")


READ: dict[str, Callable[[], Named]] = {
    "jpeg": jpeg, "png": png_files, "tiff": tiff_files, "gif": gif_files, "webp": webp_files,
    "avif": avif_files, "netpbm": other_files,
}  # fmt: skip

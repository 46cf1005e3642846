"""Paint garments and photograph them: cloth, light, background, obstacles, camera."""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass
from typing import TypeVar, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeml.data.synth.apparel import COLOURS
from edgeml.data.synth.shapes import Part, Points, draw_garment

Canvas = NDArray[np.uint8]
Plane = NDArray[np.float32]
Colour = tuple[float, float, float]
Array = TypeVar("Array", Canvas, Plane)

# (low, high) of hue in degrees, saturation and value as shares. Light and white balance shift the
# colours; without gaps between neighbours, a person could not name them either.
_COLOURS = {
    "black": ((0, 360), (0.0, 0.25), (0.06, 0.15)),
    "blue": ((212, 238), (0.65, 0.95), (0.45, 0.95)),
    "brown": ((16, 29), (0.5, 0.75), (0.28, 0.46)),
    "green": ((100, 150), (0.5, 0.9), (0.35, 0.75)),
    "pink": ((322, 346), (0.36, 0.56), (0.9, 1.0)),
    "red": ((352, 366), (0.8, 0.97), (0.6, 0.9)),
    "silver": ((200, 240), (0.02, 0.08), (0.52, 0.68)),
    "white": ((30, 60), (0.0, 0.05), (0.94, 1.0)),
    "yellow": ((47, 57), (0.7, 0.95), (0.88, 1.0)),
}

# Fractional bits of the coordinates for OpenCV: outlines move by sixteenths of a pixel.
_SHIFT = 4


@dataclass(frozen=True)
class Pose:
    """The position and shape of a garment: unit coordinates to pixels."""

    matrix: Points  # (2, 2) rotation, shear and scale
    centre: Points  # (2,) x, y in pixels
    bend: Points  # (3, 2) amplitude, frequency and phase of a wave along each axis

    def to_pixels(self, points: Points) -> Points:
        """Map (K, 2) points of a garment to pixels."""
        amplitude, frequency, phase = self.bend
        bent = points + amplitude * np.sin(points[:, ::-1] * frequency + phase)
        pixels: Points = bent @ self.matrix.T + self.centre
        return pixels

    def to_cloth(self, side: int) -> tuple[Plane, Plane]:
        """Return two (side, side) maps: the unit coordinates u, v of the cloth in each pixel."""
        x = np.arange(side, dtype=np.float32) - np.float32(self.centre[0])
        y = np.arange(side, dtype=np.float32)[:, None] - np.float32(self.centre[1])
        inverse = np.linalg.inv(self.matrix).astype(np.float32)
        u = inverse[0, 0] * x + inverse[0, 1] * y
        v = inverse[1, 0] * x + inverse[1, 1] * y
        return u + 0.05 * np.sin(3 * v), v + 0.05 * np.sin(3 * u)

    @property
    def unit_px(self) -> float:
        """Pixels per unit, averaged over directions."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix))))


def random_pose(side: int, rng: np.random.Generator, *, share: float = 1.0, x: float = 0.5) -> Pose:
    """Place a garment around `x` of the width, so that most of it is inside the image."""
    scale = share * side * rng.uniform(0.36, 0.5)
    angle = rng.normal(0, 0.16)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shear = np.array([[rng.choice([-1, 1]), rng.normal(0, 0.1)], [rng.normal(0, 0.05), 1]])
    stretch = np.diag(rng.uniform(0.88, 1.12, 2))
    centre = (np.array([x, 0.5]) + rng.uniform(-0.12, 0.12, 2)) * side
    bend = np.array(
        [rng.uniform(0.0, 0.05, 2), rng.uniform(1.5, 4.0, 2), rng.uniform(0, 2 * np.pi, 2)]
    )
    return Pose(scale * turn @ shear @ stretch, centre, bend)


def colour_of(name: str, rng: np.random.Generator) -> Colour:
    """Return one shade of a named colour: BGR, 0 to 255."""
    hue, saturation, value = (rng.uniform(low, high) for low, high in _COLOURS[name])
    red, green, blue = colorsys.hsv_to_rgb(hue % 360 / 360, saturation, value)
    return 255 * blue, 255 * green, 255 * red


def paint_garment(
    canvas: Canvas, garment: str, colour: str, pose: Pose, rng: np.random.Generator
) -> None:
    """Paint a garment with its shadow onto a square BGR canvas, in place."""
    side = len(canvas)
    parts = draw_garment(garment, rng)
    base = colour_of(colour, rng)
    dark = max(base) < 60
    cloth, weave = _cloth(side, base, pose, rng)
    mask, tone = _stroke(parts, cloth, pose, dark=dark)
    relief = 76 + 26 / 255 * _blurred(mask, 0.04 * side) + _noise(side // 4, 5, rng, 9)
    if colour == "silver":
        relief += _sheen(side // 4, rng)
    shade = _lit(_lit(tone, _resized(_saturated(relief), side)), weave)
    painted = _lit(cloth, shade)
    if dark:
        # Black cloth shows its folds by reflections, not by shadows.
        cv2.addWeighted(painted, 1, _bgr(shade), 0.3, -26, dst=painted)
    _cast_shadow(canvas, mask, rng)
    alpha = mask.astype(np.float32) / 255
    canvas[:] = cv2.blendLinear(painted, canvas, alpha, 1 - alpha)


def paint_background(side: int, rng: np.random.Generator) -> Canvas:
    """Paint a wall or a floor, plain in two of five images: (side, side, 3) BGR."""
    busy = rng.random() < 0.6
    colour = _any_colour(rng) if busy else _pale_colour(rng)
    corners = np.array(colour) + rng.normal(0, 22 if busy else 10, (3, 3, 3))
    canvas = _resized(_saturated(corners), side)
    factor = 100 + _noise(side, int(rng.integers(8, 40)), rng, 3)
    if busy:
        kind = rng.choice(["boards", "tiles", "weave"])
        factor += rng.uniform(5, 25) * _grid(side, kind, rng)
    elif rng.random() < 0.5:
        canvas[int(side * rng.uniform(0.6, 0.9)) :] = _pale_colour(rng)
    canvas = _lit(canvas, _saturated(factor))
    for _ in range(rng.integers(2, 8) if busy else rng.integers(0, 3)):
        _paint_object(canvas, rng.uniform(0, side, 2), side * rng.uniform(0.04, 0.18), rng)
    cv2.GaussianBlur(canvas, (0, 0), side * rng.uniform(0.004, 0.02), dst=canvas)
    return canvas


def paint_obstacle(canvas: Canvas, pose: Pose, rng: np.random.Generator) -> None:
    """Paint an object over a garment, in place; it hides up to about a quarter of it."""
    where = pose.to_pixels(rng.uniform(-0.55, 0.55, (1, 2)))[0]
    _paint_object(canvas, where, pose.unit_px * rng.uniform(0.12, 0.26), rng)


def photograph(canvas: Canvas, size: int, rng: np.random.Generator) -> Canvas:
    """Return a photo of `size` pixels: light from one side, white balance, focus, noise."""
    image = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32)
    light = 1 + _resized(rng.uniform(-0.14, 0.14, (2, 2)).astype(np.float32), size)
    balance = rng.uniform(0.93, 1.07, 3)
    exposure = rng.uniform(0.84, 1.12)
    image *= cv2.merge([light * (channel * exposure) for channel in balance.tolist()])
    if rng.random() < 0.35:
        cv2.GaussianBlur(image, (0, 0), size / 128 * rng.uniform(0.4, 1.3), dst=image)
    grain = rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(1, 7))
    return _saturated(image + grain)


def _stroke(parts: list[Part], cloth: Canvas, pose: Pose, *, dark: bool) -> tuple[Canvas, Canvas]:
    """Draw all parts; return the garment's mask and the brightness of its cloth in percent.

    Trims are painted into `cloth` itself, (side, side, 3) BGR.
    """
    side = len(cloth)
    mask = np.zeros((side, side), np.uint8)
    tone = np.full((side, side), 100, np.uint8)
    hairline, unit_px = max(1, round(side / 100)), pose.unit_px
    for part in parts:
        pixels = _fixed_point(pose.to_pixels(_dense(part)))
        # On black a darker seam would be invisible; there, stitches and edges are lighter.
        factor = 1 + 3 * (1 - part.tone) if dark and part.tone < 1 else part.tone
        level = float(np.clip(100 * factor, 0, 255))
        width = max(1, round(part.width * unit_px))
        if part.width and part.colour is None:
            cv2.polylines(tone, [pixels], False, level, width, cv2.LINE_AA, _SHIFT)
        elif part.width:
            for plane, value in ((mask, 255.0), (tone, 100.0)):
                cv2.polylines(plane, [pixels], False, value, width, cv2.LINE_AA, _SHIFT)
            cv2.polylines(cloth, [pixels], False, part.colour or 0, width, cv2.LINE_AA, _SHIFT)
        else:
            cv2.fillPoly(mask, [pixels], 255, cv2.LINE_AA, _SHIFT)
            if part.colour is not None:
                cv2.fillPoly(cloth, [pixels], part.colour, cv2.LINE_8, _SHIFT)
                level = 100
            cv2.fillPoly(tone, [pixels], level, cv2.LINE_AA, _SHIFT)
            edge = 200.0 if dark else 0.62 * level
            cv2.polylines(tone, [pixels], True, edge, hairline, cv2.LINE_AA, _SHIFT)
    return mask, tone


def _dense(part: Part) -> Points:
    """Add points to long segments: a straight line would not follow the bend of the cloth."""
    points = part.points if part.width else np.concatenate([part.points, part.points[:1]])
    steps = np.hypot(*np.diff(points, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    at = np.sort(np.concatenate([np.arange(0, along[-1], 0.12), along]))
    return np.stack([np.interp(at, along, points[:, axis]) for axis in (0, 1)], axis=1)


def _cloth(side: int, base: Colour, pose: Pose, rng: np.random.Generator) -> tuple[Canvas, Canvas]:
    """Weave cloth, plain or patterned: colours (side, side, 3) BGR; grain (side, side), percent."""
    grain = _resized(_saturated(100 + _noise(side // 3, side // 3, rng, rng.uniform(1, 5))), side)
    kind = rng.choice(["plain", "stripes", "checks", "dots"], p=[0.6, 0.2, 0.1, 0.1])
    if kind == "plain":
        return np.full((side, side, 3), base, np.uint8), grain
    u, v = pose.to_cloth(side)
    count, share, angle = rng.uniform(2, 7), rng.uniform(0.1, 0.28), rng.choice([0, 0, 1.57, 0.8])
    cosine, sine = count * math.cos(angle), count * math.sin(angle)
    along, across = cosine * v + sine * u, cosine * u - sine * v
    along -= np.floor(along)
    across -= np.floor(across)
    if kind == "stripes":
        pattern = along < share
    elif kind == "checks":
        pattern = (along < share * 0.6) | (across < share * 0.6)
    else:
        pattern = np.hypot(along - 0.5, across - 0.5) < share
    strength = rng.uniform(0.6, 1.0)
    second = np.array(base) * (1 - strength) + np.array(_any_colour(rng)) * strength
    planes = [
        np.where(pattern, np.uint8(other), np.uint8(own))
        for own, other in zip(base, second.tolist(), strict=True)
    ]
    return _as_canvas(cv2.merge(planes)), grain


def _sheen(side: int, rng: np.random.Generator) -> Plane:
    """Return (side, side) bright and dark bands in percent: cloth that shines like metal."""
    frequency, tilt, phase = rng.uniform(8, 16), rng.uniform(-1, 1), rng.uniform(0, 6)
    at = np.linspace(0, 1, side, dtype=np.float32)
    bands = np.sin(frequency * (at + tilt * at[:, None]) + phase)
    sheen: Plane = 25 * bands * np.abs(bands)
    return sheen


def _cast_shadow(canvas: Canvas, mask: Canvas, rng: np.random.Generator) -> None:
    """Darken the background of a garment on one side of it, in place."""
    side = len(mask)
    shift = np.array([[1, 0, 0], [0, 1, 0]], np.float64)
    shift[:, 2] = rng.uniform(-0.04, 0.04, 2) * side
    shadow = _blurred(_as_canvas(cv2.warpAffine(mask, shift, mask.shape)), 0.025 * side)
    light = _resized(_saturated(100 - shadow * (rng.uniform(15, 50) / 255)), side)
    canvas[:] = _lit(canvas, light)


def _paint_object(canvas: Canvas, where: Points, radius: float, rng: np.random.Generator) -> None:
    """Paint a disc, a bar, a box or a blob with a darker edge, in place."""
    kind = rng.choice(["disc", "bar", "box", "blob"])
    if kind == "blob":
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(5, 9)))
    else:
        corners = 24 if kind == "disc" else 4
        angles = (np.arange(corners) + 0.5) * 2 * np.pi / corners
    stretch = {"disc": 1.0, "bar": 0.1, "box": rng.uniform(0.5, 1), "blob": 1.0}[kind]
    length = radius * (3.5 if kind == "bar" else 1.1)
    points = np.stack([np.cos(angles), np.sin(angles) * stretch], axis=1) * length
    turn = rng.uniform(0, np.pi)
    matrix = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    pixels = _fixed_point(points @ matrix + where)
    colour = _any_colour(rng)
    cv2.fillPoly(canvas, [pixels], colour, cv2.LINE_AA, _SHIFT)
    edge = tuple(0.7 * channel for channel in colour)
    cv2.polylines(canvas, [pixels], True, edge, 1, cv2.LINE_AA, _SHIFT)


def _any_colour(rng: np.random.Generator) -> Colour:
    """Return a background colour; half are colours of garments, so the background is no clue."""
    if rng.random() < 0.5:
        return colour_of(COLOURS[rng.integers(len(COLOURS))], rng)
    blue, green, red = np.clip(rng.uniform(20, 245) + rng.normal(0, 22, 3), 0, 255).tolist()
    return blue, green, red


def _pale_colour(rng: np.random.Generator) -> Colour:
    """Return the colour of a wall: any brightness, low saturation."""
    blue, green, red = np.clip(rng.uniform(40, 250) + rng.normal(0, 14, 3), 0, 255).tolist()
    return blue, green, red


def _grid(side: int, kind: str, rng: np.random.Generator) -> Plane:
    """Draw boards, tiles or a weave as a (side, side) relief around 0."""
    step = side * (rng.uniform(0.02, 0.05) if kind == "weave" else rng.uniform(0.1, 0.3))
    at = np.arange(side, dtype=np.float32) / np.float32(step)
    if kind == "weave":
        wave = np.sin(2 * np.pi * at)
        woven: Plane = wave[:, None] * wave
        return woven
    tone = rng.uniform(-0.6, 0.6, (64, 64)).astype(np.float32)
    row = at.astype(np.int64) % 64
    gap = np.where(at % 1 < 0.06, np.float32(-1), np.float32(0))
    if kind == "tiles":
        return tone[row[:, None], row] * 0.5 + np.minimum(gap[:, None], gap)
    return np.broadcast_to(tone[0, row] + gap, (side, side)).astype(np.float32)


def _noise(side: int, cells: int, rng: np.random.Generator, deviation: float) -> Plane:
    """Return (side, side) noise around 0, in blobs of side / cells pixels."""
    return _resized(rng.standard_normal((cells, cells), np.float32) * deviation, side)


def _blurred(mask: Canvas, sigma: float) -> Plane:
    """Blur a (side, side) mask; the result is a quarter of its size, for speed."""
    small = cv2.resize(mask, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    return cv2.GaussianBlur(small, (0, 0), sigma / 4).astype(np.float32)


def _lit(image: Canvas, light: Canvas) -> Canvas:
    """Multiply an image, of one or three channels, by a plane in percent."""
    factor = light if image.ndim == 2 else _bgr(light)
    return _as_canvas(cv2.multiply(image, factor, scale=0.01))


def _bgr(plane: Canvas) -> Canvas:
    """Repeat a plane for three channels; NumPy's broadcast over so short an axis is slow."""
    return _as_canvas(cv2.merge([plane, plane, plane]))


def _saturated(plane: NDArray[np.floating]) -> Canvas:
    return _as_canvas(np.clip(plane, 0, 255).astype(np.uint8))


def _resized(plane: Array, side: int) -> Array:
    return cast("Array", cv2.resize(plane, (side, side), interpolation=cv2.INTER_CUBIC))


def _as_canvas(result: object) -> Canvas:
    """Cast a result of OpenCV: its stubs do not know that uint8 stays uint8."""
    return cast("Canvas", result)


def _fixed_point(pixels: Points) -> NDArray[np.int32]:
    return np.round(pixels * (1 << _SHIFT)).astype(np.int32)

"""Eight garments as outlines of their parts, from back to front."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Path = Points | Sequence[Points | tuple[float, float]]
Bgr = tuple[int, int, int]

_LIGHT: Bgr = (228, 234, 238)
_DARK: Bgr = (38, 34, 34)
_NEUTRALS: tuple[Bgr, ...] = (_LIGHT, _DARK, (150, 150, 150), (96, 128, 160), (150, 120, 90))


@dataclass(frozen=True, kw_only=True)
class Part:
    """One stroke of a drawing; a later part covers the earlier ones."""

    points: Points  # (K, 2), x to the right, y down; the garment is within -1 to 1
    tone: float = 1.0  # brightness of the cloth here, relative to the rest of the garment
    colour: Bgr | None = None  # of parts such as buttons, soles or a tie; None is the cloth
    width: float = 0.0  # of a line, in the units of `points`; 0 is a filled area


def draw_garment(name: str, rng: np.random.Generator) -> list[Part]:
    """Draw one garment in a random cut and pose, scaled to touch the square from -1 to 1."""
    parts = _DRAWINGS[name](rng)
    corners = np.concatenate([part.points for part in parts])
    low, high = corners.min(axis=0), corners.max(axis=0)
    scale = 2 / (high - low).max()
    return [replace(part, points=(part.points - (low + high) / 2) * scale) for part in parts]


def _dress(rng: np.random.Generator) -> list[Part]:
    waist, flare, hem = rng.uniform(0.18, 0.25), rng.uniform(0.38, 0.85), rng.uniform(0.45, 1.0)
    strap = rng.uniform(0.13, 0.26)
    neck = rng.uniform(-0.82, -0.6)
    half = _join(
        _curve((0, neck), (strap - 0.06, neck - 0.02), (strap - 0.05, -0.96)),
        [(strap + 0.04, -0.95)],
        _curve((strap + 0.05, -0.8), (strap + 0.05, -0.66), (0.3, -0.6)),
        _curve((0.28, -0.45), (waist, -0.3), (waist, -0.2)),
        _curve((waist + 0.06, 0.0), (flare * 0.85, hem * 0.4), (flare, hem)),
    )
    outline = _join(half, _wavy_hem(flare, hem, rng), _flip(half)[::-1])
    back = _mirrored(_curve((0, -0.72), (strap, -0.78), (strap - 0.02, -0.95)))
    parts = [_panel(back, tone=0.5)]
    if rng.random() < 0.5:
        sleeve = _limb((strap + 0.02, -0.95), (0.3, -0.6), rng.uniform(0.5, 1.0), 0.35, 0.24)
        parts += [_panel(sleeve, tone=0.92), _panel(_flip(sleeve), tone=0.92)]
    parts.append(_panel(outline))
    for x in (-0.75, -0.4, 0.05, 0.4, 0.75):
        end = x * flare + rng.uniform(-0.05, 0.05)
        fold = _curve((x * waist * 0.8, -0.16), (end * 0.6, hem * 0.3), (end, hem * 0.94))
        parts.append(_seam(fold, tone=0.8, width=0.03))
    belt = np.array([(0, -0.26), (waist + 0.01, -0.26), (waist + 0.015, -0.17), (0, -0.16)])
    parts.append(_panel(_mirrored(belt), tone=rng.choice([0.7, 1.2])))
    return parts


def _hoodie(rng: np.random.Generator) -> list[Part]:
    width = rng.uniform(0.44, 0.54)
    hem = rng.uniform(0.6, 0.76)
    parts = _sleeves(rng, (width - 0.02, -0.66), (width - 0.06, -0.2), rng.uniform(1.0, 1.25), 0.2)
    body = _join(
        [(0, -0.62), (0.24, -0.72), (width, -0.66)],
        _curve((width - 0.05, -0.3), (width - 0.03, 0.2), (width, hem - 0.12)),
        [(width - 0.06, hem), (0, hem + 0.01)],
    )
    parts.append(_panel(_mirrored(body)))
    rib = np.array([(0, hem - 0.1), (width, hem - 0.12), (width - 0.06, hem), (0, hem + 0.01)])
    parts.append(_panel(_mirrored(rib), tone=0.84))
    pocket = np.array([(0, 0.1), (0.2, 0.1), (0.36, 0.34), (0.35, hem - 0.12), (0, hem - 0.11)])
    parts.append(_panel(_mirrored(pocket), tone=0.93))
    hood = _join(
        _curve((0, -1.06), (0.32, -1.06), (0.36, -0.78)),
        _curve((0.36, -0.78), (0.34, -0.62), (0, -0.42)),
    )
    parts.append(_panel(_mirrored(hood), tone=1.04))
    opening = _join(
        _curve((0, -0.95), (0.21, -0.95), (0.22, -0.75)),
        _curve((0.22, -0.75), (0.18, -0.62), (0, -0.54)),
    )
    parts.append(_panel(_mirrored(opening), tone=0.4))
    if rng.random() < 0.4:
        parts.append(_line([(0, -0.45), (0, hem)], _pick(rng, _NEUTRALS), 0.025))
    string = _curve((0.09, -0.5), (0.12, -0.35), (0.09, rng.uniform(-0.25, -0.1)))
    colour = _pick(rng, (_LIGHT, _DARK))
    return [*parts, _line(string, colour, 0.045), _line(_flip(string), colour, 0.045)]


def _pants(rng: np.random.Generator) -> list[Part]:
    return _legs(rng, length=rng.uniform(1.15, 1.5), ankle=rng.uniform(0.12, 0.3))


def _shorts(rng: np.random.Generator) -> list[Part]:
    return _legs(rng, length=rng.uniform(0.12, 0.5), ankle=rng.uniform(0.32, 0.44))


def _shirt(rng: np.random.Generator) -> list[Part]:
    buttoned, long = rng.random() < 0.6, rng.random() < 0.5
    width, hem = rng.uniform(0.36, 0.46), rng.uniform(0.55, 0.8)
    length = rng.uniform(0.95, 1.15) if long else rng.uniform(0.3, 0.48)
    cuff = 0.17 if long else rng.uniform(0.24, 0.32)
    depth = rng.uniform(0.06, 0.22)
    parts = [_panel(_mirrored(_curve((0, -0.84), (0.1, -0.84), (0.18, -0.8), (0, -0.4))), tone=0.5)]
    parts += _sleeves(rng, (width + 0.04, -0.7), (width - 0.01, -0.3), length, cuff)
    body = _join(
        _curve((0, -0.8 + depth), (0.13, -0.8 + depth), (0.17, -0.82)),
        [(width + 0.05, -0.7)],
        _curve((width, -0.34), (width - 0.04, 0.1), (width, hem)),
        _curve((width * 0.6, hem + 0.03), (width * 0.3, hem + 0.05), (0, hem + 0.04)),
    )
    parts.append(_panel(_mirrored(body)))
    if not buttoned:
        rib = _curve((0, -0.75 + depth), (0.18, -0.75 + depth), (0.22, -0.81))
        stitches = [(-0.97 * width, hem - 0.05), (0.97 * width, hem - 0.05)]
        return [*parts, _seam(_join(_flip(rib)[::-1], rib)), _seam(stitches)]
    collar = np.array([(0, -0.76 + depth), (0.15, -0.88), (0.24, -0.79), (0.15, -0.55 + depth / 3)])
    for side in (1, -1):
        placket = [(0.04 * side, -0.74 + depth), (0.04 * side, hem + 0.03)]
        parts += [_panel(collar * (side, 1), tone=1.08), _seam(placket)]
    colour = _pick(rng, (_LIGHT, _DARK))
    parts += [_trim(_disc(0, y, 0.035), colour) for y in np.arange(-0.6 + depth, hem, 0.2)]
    pocket = [(0.14, -0.36), (0.32, -0.36), (0.32, -0.16), (0.23, -0.12), (0.14, -0.16)]
    return [*parts, _seam([*pocket, pocket[0]]), _seam([(0.14, -0.31), (0.32, -0.31)])]


def _shoes(rng: np.random.Generator) -> list[Part]:
    shaft, thick = rng.choice([0.0, 0.1, 0.55], p=[0.45, 0.25, 0.3]), rng.uniform(0.1, 0.2)
    sole, lace = _pick(rng, _NEUTRALS), _pick(rng, (_LIGHT, _DARK))
    toe = rng.uniform(-0.06, 0.02)
    upper = _join(
        _curve((-0.88, 0.24), (-0.98, 0.0), (-0.84, -0.3 - shaft)),
        _curve((-0.84, -0.3 - shaft), (-0.55, -0.22 - shaft), (-0.25, -0.36 - shaft)),
        _curve((-0.2, -0.25 - shaft * 0.4), (0.1, -0.12), (0.45, toe)),
        _curve((0.45, toe), (0.9, toe + 0.02), (0.96, 0.24)),
    )
    under = np.array([(-0.92, 0.2), (0.99, 0.2), (0.95, 0.2 + thick), (-0.9, 0.2 + thick)])
    mouth = _join(
        _curve((-0.84, -0.3 - shaft), (-0.55, -0.14 - shaft), (-0.25, -0.36 - shaft)),
        _curve((-0.25, -0.36 - shaft), (-0.55, -0.32 - shaft), (-0.84, -0.3 - shaft)),
    )
    shoe = [
        _panel(upper),
        _trim(under, sole),
        _panel(mouth, tone=0.45),
        _seam(_curve((0.5, toe), (0.42, 0.1), (0.52, 0.2)), width=0.02),
        _seam(_curve((-0.6, -0.2 - shaft), (-0.5, 0.05), (-0.62, 0.2)), width=0.02),
        _seam(_curve((-0.1, -0.05), (-0.1, 0.12), (-0.3, 0.2)), width=0.03, tone=1.3),
    ]
    for step in np.linspace(0, 1, 4 + round(4 * shaft)):
        x, y = 0.32 - 0.5 * step, -0.03 - (0.26 + 0.55 * shaft) * step
        shoe.append(_line([(x - 0.06, y + 0.12), (x + 0.05, y + 0.01)], lace, 0.05))
    return _pair(shoe, rng)


def _skirt(rng: np.random.Generator) -> list[Part]:
    waist, flare, hem = rng.uniform(0.26, 0.36), rng.uniform(0.36, 0.95), rng.uniform(0.2, 0.85)
    side = _curve((waist, -0.55), (waist + 0.14, -0.3), (flare, hem * 0.5), (flare, hem))
    outline = _join(_flip(side)[:1], side, _wavy_hem(flare, hem, rng), _flip(side)[::-1])
    parts = [_panel(outline)]
    pleats = rng.integers(3, 10)
    for x in np.linspace(-0.85, 0.85, pleats):
        knee = (x * (waist + flare) / 2, hem * 0.2)
        fold = _curve((x * waist, -0.5), knee, (x * flare, hem * 0.97))
        parts.append(_seam(fold, tone=0.78, width=0.022))
    band = [(-waist, -0.66), (waist, -0.66), (waist + 0.015, -0.53), (-waist - 0.015, -0.53)]
    parts.append(_panel(np.array(band), tone=rng.choice([0.8, 1.15])))
    return [*parts, _trim(_disc(waist * rng.uniform(-0.7, 0.7), -0.6, 0.03), _pick(rng, _NEUTRALS))]


def _suit(rng: np.random.Generator) -> list[Part]:
    trousers = rng.random() < 0.5
    width, hem = rng.uniform(0.38, 0.44), rng.uniform(0.42, 0.6)
    parts = []
    if trousers:
        parts = _legs(rng, length=1.3, ankle=rng.uniform(0.16, 0.22))
        parts = [replace(part, points=part.points * 0.95 + (0, 1.0)) for part in parts]
    sleeves = _sleeves(rng, (width + 0.05, -0.74), (width - 0.03, -0.36), 1.05, 0.17, spread=0.5)
    button = rng.uniform(-0.15, 0.05)
    body = _join(
        [(0.0, -0.7), (0.14, -0.88), (width + 0.06, -0.75)],
        _curve((width, -0.4), (width - 0.09, -0.05), (width + 0.04, hem)),
        _curve((0.2, hem + 0.06), (0.1, hem + 0.05), (0.03, hem - 0.12)),
        [(0, button)],
    )
    parts += [*sleeves, _panel(_mirrored(body))]
    shirt, tie = _pick(rng, ((240, 240, 240), (225, 205, 180))), _pick(rng, _NEUTRALS[1:])
    vee = np.array([(0, -0.84), (0.14, -0.88), (0, button)])
    knot = _join([(0, -0.78), (0.05, -0.79), (0.03, -0.68), (0.06, button - 0.16), (0, button)])
    notch = [(0.32, -0.6), (0.25, -0.55), (0.29, -0.5)]
    lapel = _join([(0.13, -0.9), (0.22, -0.84)], notch, [(0, button)])
    parts += [_trim(_mirrored(vee), shirt), _trim(_mirrored(knot), tie)]
    for side in (1, -1):
        flap = np.array([(0.14, 0.14), (0.34, 0.12), (0.34, 0.2), (0.14, 0.22)]) * (side, 1)
        parts += [_panel(lapel * (side, 1), tone=1.12), _panel(flap, tone=0.86)]
    parts.append(_seam([(0, button), (0.02, hem - 0.12)]))
    parts += [_trim(_disc(0.02, button + 0.02 + y, 0.026), tie) for y in (0.0, 0.16)]
    return [*parts, _seam([(0.19, -0.34), (0.32, -0.37)], width=0.03)]


_DRAWINGS: dict[str, Callable[[np.random.Generator], list[Part]]] = {
    "dress": _dress,
    "hoodie": _hoodie,
    "pants": _pants,
    "shirt": _shirt,
    "shoes": _shoes,
    "shorts": _shorts,
    "skirt": _skirt,
    "suit": _suit,
}


def _legs(rng: np.random.Generator, *, length: float, ankle: float) -> list[Part]:
    """Draw trousers whose legs end `length` below the crotch, `ankle` wide there."""
    waist, hip = rng.uniform(0.28, 0.34), rng.uniform(0.36, 0.42)
    end = -0.3 + length
    parts = []
    for side in (1, -1):
        foot = 0.06 + ankle / 2 + length * rng.uniform(0.0, 0.2)
        leg = _join(
            [(-0.01, -0.93), (waist, -0.95)],
            _curve((waist, -0.95), (hip, -0.6), (hip - 0.02, -0.3), (foot + ankle / 2, end)),
            _curve((foot - ankle / 2, end), (0.06, -0.2), (-0.01, -0.3)),
        )
        cuff = [(foot - ankle / 2 + 0.01, end - 0.07), (foot + ankle / 2 - 0.01, end - 0.07)]
        crease = _curve((waist * 0.55, -0.75), (0.2, -0.3), (foot, end - 0.1))
        pocket = _curve((waist * 0.55, -0.85), (waist * 0.7, -0.62), (hip - 0.02, -0.6))
        for part in (_panel(leg), _seam(cuff), _seam(crease, tone=0.88, width=0.02), _seam(pocket)):
            parts.append(replace(part, points=part.points * (side, 1)))
    fly = _curve((0.08, -0.84), (0.09, -0.55), (0, -0.48))
    band = _mirrored(np.array([(0, -0.95), (waist, -0.97), (waist + 0.012, -0.85), (0, -0.83)]))
    parts += [_seam(fly), _panel(band, tone=0.88)]
    for x in (-0.75, -0.35, 0.35, 0.75):
        parts.append(_seam([(x * waist, -0.97), (x * waist, -0.83)], tone=0.6, width=0.03))
    return [*parts, _trim(_disc(0, -0.9, 0.03), _pick(rng, _NEUTRALS))]


def _sleeves(
    rng: np.random.Generator,
    shoulder: tuple[float, float],
    armpit: tuple[float, float],
    length: float,
    cuff: float,
    *,
    spread: float = 1.0,
) -> list[Part]:
    """Draw two sleeves, each at its own angle; `spread` bounds it, in radians from hanging."""
    parts = []
    for side in (1, -1):
        angle = rng.uniform(0.2, spread)
        sleeve = _limb(shoulder, armpit, angle, length, cuff)
        back = np.array([np.sin(angle), np.cos(angle)]) * 0.09
        hem = _limb(shoulder, armpit, angle, length, cuff)[[-2, -3]] - back
        parts += [_panel(sleeve * (side, 1), tone=0.92), _seam(hem * (side, 1), width=0.02)]
    return parts


def _limb(
    outer: tuple[float, float],
    inner: tuple[float, float],
    angle: float,
    length: float,
    width: float,
) -> Points:
    """Outline a sleeve from `outer` (shoulder) to `inner` (armpit); the cuff is points -3, -2."""
    start, stop = np.array(outer), np.array(inner)
    along = np.array([np.sin(angle), np.cos(angle)])
    across = np.array([np.cos(angle), -np.sin(angle)]) * width / 2
    end = (start + stop) / 2 + along * length
    elbow = start + along * length * 0.35 + across * 0.6
    inside = np.array([stop - (0.12, 0.02), start - (0.12, 0.0)])
    return _join(inside[1:], _curve(start, elbow, end + across), [end - across, stop])


def _pair(shoe: list[Part], rng: np.random.Generator) -> list[Part]:
    """Add a second shoe behind the first, shifted and rotated a little, sometimes facing it."""
    angle, facing = rng.uniform(-0.5, 0.3), rng.choice([1, 1, -1])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    shift = (rng.uniform(-0.2, 0.6), rng.uniform(-0.75, -0.45))
    behind = [replace(part, points=part.points * (facing, 1) @ turn + shift) for part in shoe]
    return behind + shoe


def _wavy_hem(flare: float, hem: float, rng: np.random.Generator) -> Points:
    x = np.linspace(1, -1, 25)
    waves, depth, phase = rng.integers(2, 6), rng.uniform(0.0, 0.035), rng.uniform(0, 2 * np.pi)
    y = hem + 0.07 * (1 - x**2) + depth * np.sin(np.pi * waves * x + phase)
    return np.stack([x * flare, y], axis=1)


def _panel(points: Points, *, tone: float = 1.0) -> Part:
    return Part(points=points, tone=float(tone))


def _seam(points: Path, *, tone: float = 0.6, width: float = 0.022) -> Part:
    return Part(points=np.asarray(points, float), tone=tone, width=width)


def _trim(points: Points, colour: Bgr) -> Part:
    return Part(points=points, colour=colour)


def _line(points: Path, colour: Bgr, width: float) -> Part:
    return Part(points=np.asarray(points, float), colour=colour, width=width)


def _disc(x: float, y: float, radius: float) -> Points:
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)


def _curve(*controls: tuple[float, float] | Points) -> Points:
    """Sample a Bezier curve by de Casteljau's construction: nine points, ends included."""
    t = np.linspace(0, 1, 9)[:, None]
    levels = [np.broadcast_to(np.asarray(control, float), (9, 2)) for control in controls]
    while len(levels) > 1:
        levels = [a + (b - a) * t for a, b in pairwise(levels)]
    return levels[0]


def _join(*pieces: Path) -> Points:
    return np.concatenate([np.asarray(piece, float) for piece in pieces])


def _flip(points: Points) -> Points:
    return points * (-1, 1)


def _mirrored(half: Points) -> Points:
    """Close an outline whose right half runs from the middle's top to its bottom."""
    return np.concatenate([half, _flip(half)[::-1]])


def _pick(rng: np.random.Generator, colours: tuple[Bgr, ...]) -> Bgr:
    return colours[rng.integers(len(colours))]

"""The three invented products of the toy images and their defects, as cv2 draws them.

Lengths and positions are fractions of the image's side. Colours are blue, green, red.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating[Any]]
Point = tuple[float, float]
Damage = tuple[Floats, Floats]  # the anomalous image, and the share of the defect in each pixel (0 to 1)

BITS = 6  # fractional bits of coordinates in cv2
TURN = 2 * np.pi
ANGLES = np.linspace(0, TURN, 64, endpoint=False)
CIRCLE = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)

# Three planes of one row and column, as an image has while it is drawn.
_GREYS = np.array([[36] * 3, [228] * 3, [160, 155, 150], [172, 178, 180]], np.float32)
_PAINTS = np.array([[186, 202, 208], [128, 84, 52], [70, 105, 140], [120, 190, 225]], np.float32)
SHADE, LIGHT, SHEET, STEEL = _GREYS[..., None, None]
CLOTH, INK, RUST, BRASS = _PAINTS[..., None, None]


@dataclass(frozen=True)
class Product:
    """A product without defects, before light and noise."""

    image: Floats
    plain: Floats  # the image without bolt holes or print, for defects that lack one
    region: Floats  # 1 for pixels of the product, 0 for the background
    marks: Sequence[Point] = ()  # centres of the bolt holes or printed dots
    centre: Point = (0.5, 0.5)
    ring: tuple[float, float] = (0.0, 0.36)  # smallest and largest distance of defects from the centre


def grid(n: int) -> tuple[Floats, Floats]:
    """The x of every column, (1, n), and the y of every row, (n, 1), of n x n pixels."""
    axis = (np.arange(n, dtype=np.float32) + 0.5) / n
    return axis[None, :], axis[:, None]


def polar(centre: Point, radius: float, angle: float) -> Point:
    """The point at a distance and an angle from a centre.

    Args:
        centre: x and y in pixels.
        radius: the distance in pixels.
        angle: in radians, from the x axis to the y axis.

    Returns:
        x and y in pixels.
    """
    return centre[0] + radius * float(np.cos(angle)), centre[1] + radius * float(np.sin(angle))


def _filled(n: int, paths: ArrayLike, width: float = 0.0) -> Floats:
    """The area inside the paths, or the lines along the paths if they have a width."""
    canvas = np.zeros((n, n), np.uint8)
    points = list(np.round((np.asarray(paths) * n - 0.5) * (1 << BITS)).astype(np.int32))
    if width:
        cv2.polylines(canvas, points, False, 255, max(1, round(width * n)), cv2.LINE_AA, BITS)
    else:
        cv2.fillPoly(canvas, points, 255, cv2.LINE_AA, BITS)
    return canvas.astype(np.float32) / 255


def _discs(n: int, centres: Sequence[Point], radius: float) -> Floats:
    return _filled(n, np.array(centres)[:, None] + radius * CIRCLE)


def _blob(rng: Generator, n: int, centre: Point, radius: float, rough: float) -> Floats:
    """An irregular patch: a circle that a few harmonics bend."""
    waves = [rng.uniform(0.6, 2) / k * np.cos(k * ANGLES + rng.uniform(0, TURN)) for k in (2, 3, 5)]
    return _filled(n, [centre + radius * (1 + rough * np.sum(waves, axis=0))[:, None] * CIRCLE])


def _curve(rng: Generator, start: Point, angle: float, length: float, bend: float) -> NDArray[np.float64]:
    """A path that turns by up to `bend` radians in all."""
    angles = angle + rng.uniform(-bend, bend) * np.linspace(0, 1, 16)
    return start + np.cumsum(length / 16 * np.stack([np.cos(angles), np.sin(angles)], axis=1), axis=0)


def _soft(cover: Floats, sigma: float, away: float = 0.0) -> Floats:
    """The cover after a blur and, for shadows, a shift away from the light at the upper left."""
    n, step = len(cover), away * len(cover)
    shifted = cv2.warpAffine(cover, np.array([[1, 0, step], [0, 1, step]]), (n, n)) if away else cover
    return np.asarray(cv2.GaussianBlur(shifted, (0, 0), sigma * n), np.float32)


def _noise(rng: Generator, n: int, rows: int, columns: int) -> Floats:
    """Random values on a coarse grid, resized to the image."""
    cells = rng.standard_normal((rows, columns), dtype=np.float32)
    return np.asarray(cv2.resize(cells, (n, n), interpolation=cv2.INTER_LINEAR), np.float32)


def _paint(image: Floats, cover: Floats, colour: Floats) -> Floats:
    """Blend a colour or another image over the image, with `cover` as opacity."""
    return image + cover * (colour - image)


def _plate(rng: Generator, n: int) -> Product:
    """Long streaks of several widths with a highlight across them, as on brushed metal."""
    x, y = grid(n)
    streaks = 0.038 * _noise(rng, n, n, 3) + 0.034 * _noise(rng, n, n // 2, 9)
    streaks += 0.028 * _noise(rng, n, n // 10, 2)
    rotation = cv2.getRotationMatrix2D((n / 2, n / 2), rng.uniform(-3, 3), 1.08)
    rotated = np.asarray(cv2.warpAffine(streaks, rotation, (n, n), borderMode=cv2.BORDER_REFLECT), np.float32)
    across = (x + rng.uniform(-0.25, 0.25) * (y - 0.5) - rng.uniform(0.1, 0.9)) / rng.uniform(0.16, 0.3)
    highlight = 0.88 + rng.uniform(0.12, 0.30) * np.exp(-(across**2))
    image = highlight * (1 + rotated) * SHEET
    return Product(image, image, np.ones((n, n), np.float32))


def _flange(rng: Generator, n: int) -> Product:
    """Turning grooves reflect in two opposite sectors; the steps between the faces are bevelled."""
    centre = (0.5 + rng.uniform(-0.02, 0.02), 0.5 + rng.uniform(-0.02, 0.02))
    angle, fan = rng.uniform(0, TURN), rng.uniform(-0.5, 0.5)
    x, y = grid(n)
    radius = np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2) + 1e-6
    right, down = (x - centre[0]) / radius, (y - centre[1]) / radius
    face = 0.80 + 0.10 * np.clip((0.19 - radius) * n, 0, 1) + 0.03 * np.sin(radius * TURN * 36)
    face += rng.uniform(0.12, 0.24) * ((right * float(np.cos(fan)) + down * float(np.sin(fan))) ** 2 - 0.5)
    for edge in (0.19, 0.405):
        face -= 0.18 * np.exp(-(((radius - edge) / 0.008) ** 2)) * (right + down)
    disc = _discs(n, [centre], 0.41)
    table = (0.42 + 0.01 * _noise(rng, n, 6, 6)) * (1 - 0.4 * _soft(disc, 0.02, away=0.022))
    bolts = [polar(centre, 0.298, angle + k * TURN / 6) for k in range(6)]
    bore, holes = _discs(n, [centre], 0.095), _discs(n, bolts, 0.036)
    plain = _with_hole(table + disc * (face - table), bore)
    return Product(_with_hole(plain, holes) * STEEL, plain * STEEL, disc - bore - holes, bolts, centre, (0.17, 0.38))


def _with_hole(face: Floats, hole: Floats) -> Floats:
    """Cut a hole: dark inside, with a bright chamfer on the side away from the light."""
    face = face + 0.35 * _soft(hole, 0.003, away=0.008) * (1.28 - face)
    return face + hole * (0.28 - face)


def _fabric(rng: Generator, n: int) -> Product:
    """Upper threads bulge, and threads differ in tone. The ink has the shading of the weave."""
    x, y = grid(n)
    tilt = rng.uniform(-0.02, 0.02)
    u = (x + tilt * y + 0.0025 * _noise(rng, n, 5, 5)) * 22 + rng.uniform(2, 4)
    v = (y - tilt * x + 0.0025 * _noise(rng, n, 5, 5)) * 22 + rng.uniform(2, 4)
    warp, weft = u.astype(np.int32), v.astype(np.int32)
    over = (warp + weft) % 2 == 0
    a, b = (u - np.floor(u) - 0.5) ** 2, (v - np.floor(v) - 0.5) ** 2
    tones = 1 + 0.02 * rng.standard_normal((2, 40), dtype=np.float32)
    weave = np.where(over, tones[0][warp], 0.95 * tones[1][weft])
    weave *= np.where(over, (1 - 0.8 * a) * (1 - 0.4 * b), (1 - 0.8 * b) * (1 - 0.4 * a))
    start, steps = rng.uniform(0.09, 0.16, 2), range(-1, 5)
    square = [(0.25 * i + start[0], 0.25 * j + start[1]) for i in steps for j in steps]
    dots = [(p - tilt * q, q + tilt * p) for p, q in square]
    plain = weave * CLOTH
    image = _paint(plain, rng.uniform(0.80, 0.92) * _discs(n, dots, 0.062), weave * INK)
    inner_dots = [dot for dot in dots if min(dot) > 0.08 and max(dot) < 0.92]
    return Product(image, plain, np.ones((n, n), np.float32), inner_dots)


def _position(rng: Generator, product: Product) -> Point:
    """A random point of the product, with equal probability for equal areas."""
    inner, outer = product.ring
    return polar(product.centre, float(np.sqrt(rng.uniform(inner**2, outer**2))), rng.uniform(0, TURN))


def _scratch(rng: Generator, product: Product) -> Damage:
    """A thin bright groove with a dark flank."""
    angle, length = rng.uniform(0, np.pi), rng.uniform(0.14, 0.34)
    path = _curve(rng, polar(_position(rng, product), -length / 2, angle), angle, length, 0.7)
    groove = _filled(len(product.region), [path], rng.uniform(0.006, 0.012))
    flank, groove = _soft(groove, 0.002, away=0.008) * product.region, groove * product.region
    strength = rng.uniform(0.08, 0.5)
    return _paint(_paint(product.image, strength / 2 * flank, SHADE), strength * groove, LIGHT), groove


def _stain(rng: Generator, product: Product) -> Damage:
    """A transparent patch with a darker rim, as of a dried drop."""
    blob = _blob(rng, len(product.region), _position(rng, product), rng.uniform(0.035, 0.085), 0.25)
    inside = _soft(blob, 0.012)
    cover = _soft(blob, 0.005) * (0.7 + 2 * inside * (1 - inside))
    return _paint(product.image, rng.uniform(0.09, 0.5) * cover, RUST), blob


def _dent(rng: Generator, product: Product) -> Damage:
    """A shallow dent: only its shading is visible, one side dark and the other bright."""
    x, y = grid(len(product.region))
    centre, radius = _position(rng, product), rng.uniform(0.04, 0.075)
    dx, dy = (x - centre[0]) / radius, (y - centre[1]) / radius
    shade = (dx + dy) * np.exp(-1.2 * (dx**2 + dy**2))
    image = product.image * (1 + rng.uniform(0.05, 0.28) * shade)
    return image, _discs(len(shade), [centre], 1.3 * radius)


def _chip(rng: Generator, product: Product) -> Damage:
    """A gap in the rim with a bright edge."""
    rim = polar(product.centre, 0.41, rng.uniform(0, TURN))
    gap = _blob(rng, len(product.region), rim, rng.uniform(0.012, 0.04), 0.35) * product.region
    return _paint(_paint(product.image, 0.7 * _soft(gap, 0.006) * product.region, LIGHT), gap, SHADE), gap


def _missing_hole(rng: Generator, product: Product) -> Damage:
    """One bolt hole is missing or shallow."""
    hole = _discs(len(product.region), [product.marks[int(rng.integers(6))]], 0.046)
    return _paint(product.image, rng.uniform(0.3, 1) * hole, product.plain), hole


def _swarf(rng: Generator, product: Product) -> Damage:
    """A curl of brass swarf on the product."""
    path = _curve(rng, _position(rng, product), rng.uniform(0, TURN), rng.uniform(0.14, 0.3), 6.0)
    swarf = _filled(len(product.region), [path], 0.018)
    strength = rng.uniform(0.12, 0.7)
    image = _paint(product.image, 0.8 * strength * _soft(swarf, 0.004, away=0.012), SHADE)
    return _paint(image, strength * swarf, BRASS), swarf


def _hole(rng: Generator, product: Product) -> Damage:
    """A tear: dark, with a frayed bright edge."""
    tear = _blob(rng, len(product.region), _position(rng, product), rng.uniform(0.012, 0.042), 0.45)
    fray = _soft(tear, 0.007)
    strength = rng.uniform(0.3, 1)
    image = _paint(_paint(product.image, 0.7 * strength * fray, LIGHT), strength * tear, SHADE)
    return image, np.maximum(tear, fray)


def _misprint(rng: Generator, product: Product) -> Damage:
    """A dot with too little ink, in one region or everywhere."""
    n, dot = len(product.region), product.marks[int(rng.integers(len(product.marks)))]
    dry = polar(dot, rng.uniform(0, 0.05), rng.uniform(0, TURN))
    missing_ink = _discs(n, [dot], 0.066) * _discs(n, [dry], 0.066)
    return _paint(product.image, rng.uniform(0.35, 1) * missing_ink, product.plain), missing_ink


PRODUCTS: Mapping[str, Callable[[Generator, int], Product]] = {"plate": _plate, "flange": _flange, "fabric": _fabric}
DEFECTS: Mapping[str, Mapping[str, Callable[[Generator, Product], Damage]]] = {
    "plate": {"dent": _dent, "scratch": _scratch, "stain": _stain},
    "flange": {"chip": _chip, "contamination": _swarf, "missing_hole": _missing_hole, "scratch": _scratch},
    "fabric": {"hole": _hole, "misprint": _misprint, "stain": _stain},
}

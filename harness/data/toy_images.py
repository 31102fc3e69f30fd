"""Pictures for a first run: three made-up products, good and faulty, laid out as in MVTec AD.

    plate     brushed steel sheet; the brushing and the highlight differ from picture to picture
    flange    turned disc with a bore and six bolt holes; any rotation, a small offset
    fabric    plain weave printed with dots; weave and print are not in register

A whole experiment runs on them with no download, and its numbers mean something: good parts vary in light,
pose and texture, so that neither brightness nor a comparison with the average picture is of much use, and
most kinds of defect range from obvious to barely visible.

Lengths and positions are fractions of the picture's side. Colours are blue, green, red.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating[Any]]
Point = tuple[float, float]
Damage = tuple[Floats, Floats]  # the faulty picture, and how much each pixel belongs to the defect (0 to 1)

SCALE = 2  # drawn at twice the size and averaged down: smooth edges, and details thinner than a pixel
BITS = 6  # cv2 takes coordinates with this many fractional bits
TURN = 2 * np.pi
ANGLES = np.linspace(0, TURN, 64, endpoint=False)
CIRCLE = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)

# Shaped like a picture while it is drawn: three planes of rows and columns.
_GREYS = np.array([[36] * 3, [228] * 3, [160, 155, 150], [172, 178, 180]], np.float32)
_PAINTS = np.array([[186, 202, 208], [128, 84, 52], [70, 105, 140], [120, 190, 225]], np.float32)
SHADE, LIGHT, SHEET, STEEL = _GREYS[..., None, None]
CLOTH, INK, RUST, BRASS = _PAINTS[..., None, None]


@dataclass(frozen=True)
class Part:
    """A good part, before light and noise."""

    image: Floats
    plain: Floats  # the same without its bolt holes or its print, to take one away
    region: Floats  # 1 where there is material, 0 elsewhere
    marks: Sequence[Point] = ()  # centres of the bolt holes or printed dots
    centre: Point = (0.5, 0.5)
    ring: tuple[float, float] = (0.0, 0.36)  # how far from the centre defects are


def _grid(n: int) -> tuple[Floats, Floats]:
    """The x and y of every pixel, as a row and a column."""
    axis = (np.arange(n, dtype=np.float32) + 0.5) / n
    return axis[None, :], axis[:, None]


def _polar(centre: Point, radius: float, angle: float) -> Point:
    return centre[0] + radius * float(np.cos(angle)), centre[1] + radius * float(np.sin(angle))


def _drawn(n: int, paths: ArrayLike, width: float = 0.0) -> Floats:
    """What lies inside the paths, or on them if they have a width."""
    canvas = np.zeros((n, n), np.uint8)
    points = list(np.round((np.asarray(paths) * n - 0.5) * (1 << BITS)).astype(np.int32))
    if width:
        cv2.polylines(canvas, points, False, 255, max(1, round(width * n)), cv2.LINE_AA, BITS)
    else:
        cv2.fillPoly(canvas, points, 255, cv2.LINE_AA, BITS)
    return canvas.astype(np.float32) / 255


def _discs(n: int, centres: Sequence[Point], radius: float) -> Floats:
    return _drawn(n, np.array(centres)[:, None] + radius * CIRCLE)


def _blob(rng: Generator, n: int, centre: Point, radius: float, rough: float) -> Floats:
    """An irregular patch; a few harmonics bend the circle."""
    waves = [rng.uniform(0.6, 2) / k * np.cos(k * ANGLES + rng.uniform(0, TURN)) for k in (2, 3, 5)]
    return _drawn(n, [centre + radius * (1 + rough * np.sum(waves, axis=0))[:, None] * CIRCLE])


def _curve(rng: Generator, start: Point, angle: float, length: float, bend: float) -> NDArray[np.float64]:
    """A path that turns by up to `bend` radians in all."""
    way = angle + rng.uniform(-bend, bend) * np.linspace(0, 1, 16)
    return start + np.cumsum(length / 16 * np.stack([np.cos(way), np.sin(way)], axis=1), axis=0)


def _soft(cover: Floats, sigma: float, away: float = 0.0) -> Floats:
    """Blurred and, for shadows, moved away from the light, which comes from the upper left."""
    n, step = len(cover), away * len(cover)
    moved = cv2.warpAffine(cover, np.array([[1, 0, step], [0, 1, step]]), (n, n)) if away else cover
    return np.asarray(cv2.GaussianBlur(moved, (0, 0), sigma * n), np.float32)


def _stretched(rng: Generator, n: int, rows: int, columns: int) -> Floats:
    """Random values on a coarse grid, stretched over the picture."""
    cells = rng.standard_normal((rows, columns), dtype=np.float32)
    return np.asarray(cv2.resize(cells, (n, n), interpolation=cv2.INTER_LINEAR), np.float32)


def _paint(image: Floats, cover: Floats, colour: Floats) -> Floats:
    """Lay a colour or another picture over the image, as densely as `cover` says."""
    return image + cover * (colour - image)


def _plate(rng: Generator, n: int) -> Part:
    """Long streaks of several widths, and a highlight across them as brushed metal shows it."""
    x, y = _grid(n)
    streaks = 0.038 * _stretched(rng, n, n, 3) + 0.034 * _stretched(rng, n, n // 2, 9)
    streaks += 0.028 * _stretched(rng, n, n // 10, 2)
    turn = cv2.getRotationMatrix2D((n / 2, n / 2), rng.uniform(-3, 3), 1.08)
    turned = np.asarray(cv2.warpAffine(streaks, turn, (n, n), borderMode=cv2.BORDER_REFLECT), np.float32)
    across = (x + rng.uniform(-0.25, 0.25) * (y - 0.5) - rng.uniform(0.1, 0.9)) / rng.uniform(0.16, 0.3)
    shine = 0.88 + rng.uniform(0.12, 0.30) * np.exp(-(across**2))
    image = shine * (1 + turned) * SHEET
    return Part(image, image, np.ones((n, n), np.float32))


def _flange(rng: Generator, n: int) -> Part:
    """Turning grooves reflect in two opposite fans; the steps between the faces are bevelled."""
    centre = (0.5 + rng.uniform(-0.02, 0.02), 0.5 + rng.uniform(-0.02, 0.02))
    angle, fan = rng.uniform(0, TURN), rng.uniform(-0.5, 0.5)
    x, y = _grid(n)
    radius = np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2) + 1e-6
    right, down = (x - centre[0]) / radius, (y - centre[1]) / radius
    face = 0.80 + 0.10 * np.clip((0.19 - radius) * n, 0, 1) + 0.03 * np.sin(radius * TURN * 36)
    face += rng.uniform(0.12, 0.24) * ((right * float(np.cos(fan)) + down * float(np.sin(fan))) ** 2 - 0.5)
    for edge in (0.19, 0.405):
        face -= 0.18 * np.exp(-(((radius - edge) / 0.008) ** 2)) * (right + down)
    disc = _discs(n, [centre], 0.41)
    table = (0.42 + 0.01 * _stretched(rng, n, 6, 6)) * (1 - 0.4 * _soft(disc, 0.02, away=0.022))
    bolts = [_polar(centre, 0.298, angle + k * TURN / 6) for k in range(6)]
    bore, holes = _discs(n, [centre], 0.095), _discs(n, bolts, 0.036)
    plain = _sunk(table + disc * (face - table), bore)
    return Part(_sunk(plain, holes) * STEEL, plain * STEEL, disc - bore - holes, bolts, centre, (0.17, 0.38))


def _sunk(face: Floats, hole: Floats) -> Floats:
    """Cut a hole: dark inside, and a lit chamfer on the side away from the light."""
    face = face + 0.35 * _soft(hole, 0.003, away=0.008) * (1.28 - face)
    return face + hole * (0.28 - face)


def _fabric(rng: Generator, n: int) -> Part:
    """Threads bulge where they lie on top, and differ in tone. The ink takes on the weave's shading."""
    x, y = _grid(n)
    tilt = rng.uniform(-0.02, 0.02)
    u = (x + tilt * y + 0.0025 * _stretched(rng, n, 5, 5)) * 22 + rng.uniform(2, 4)
    v = (y - tilt * x + 0.0025 * _stretched(rng, n, 5, 5)) * 22 + rng.uniform(2, 4)
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
    whole = [dot for dot in dots if min(dot) > 0.08 and max(dot) < 0.92]
    return Part(image, plain, np.ones((n, n), np.float32), whole)


def _place(rng: Generator, part: Part) -> Point:
    """A point of the part, every area as likely as any other."""
    inner, outer = part.ring
    return _polar(part.centre, float(np.sqrt(rng.uniform(inner**2, outer**2))), rng.uniform(0, TURN))


def _scratch(rng: Generator, part: Part) -> Damage:
    """A thin bright groove with a dark flank."""
    angle, length = rng.uniform(0, np.pi), rng.uniform(0.14, 0.34)
    path = _curve(rng, _polar(_place(rng, part), -length / 2, angle), angle, length, 0.7)
    groove = _drawn(len(part.region), [path], rng.uniform(0.006, 0.012))
    flank, groove = _soft(groove, 0.002, away=0.008) * part.region, groove * part.region
    strength = rng.uniform(0.08, 0.5)
    return _paint(_paint(part.image, strength / 2 * flank, SHADE), strength * groove, LIGHT), groove


def _stain(rng: Generator, part: Part) -> Damage:
    """A see-through patch, darker at its rim as a dried drop is."""
    blob = _blob(rng, len(part.region), _place(rng, part), rng.uniform(0.035, 0.085), 0.25)
    inside = _soft(blob, 0.012)
    cover = _soft(blob, 0.005) * (0.7 + 2 * inside * (1 - inside))
    return _paint(part.image, rng.uniform(0.09, 0.5) * cover, RUST), blob


def _dent(rng: Generator, part: Part) -> Damage:
    """A shallow hollow: nothing but its shading shows, one side dark and the other light."""
    x, y = _grid(len(part.region))
    centre, radius = _place(rng, part), rng.uniform(0.04, 0.075)
    dx, dy = (x - centre[0]) / radius, (y - centre[1]) / radius
    shade = (dx + dy) * np.exp(-1.2 * (dx**2 + dy**2))
    image = part.image * (1 + rng.uniform(0.05, 0.28) * shade)
    return image, _discs(len(shade), [centre], 1.3 * radius)


def _chip(rng: Generator, part: Part) -> Damage:
    """A piece broken out of the rim, with a bright edge."""
    rim = _polar(part.centre, 0.41, rng.uniform(0, TURN))
    gap = _blob(rng, len(part.region), rim, rng.uniform(0.012, 0.04), 0.35) * part.region
    return _paint(_paint(part.image, 0.7 * _soft(gap, 0.006) * part.region, LIGHT), gap, SHADE), gap


def _undrilled(rng: Generator, part: Part) -> Damage:
    """One bolt hole was never drilled, or barely started."""
    place = _discs(len(part.region), [part.marks[int(rng.integers(6))]], 0.046)
    return _paint(part.image, rng.uniform(0.3, 1) * place, part.plain), place


def _swarf(rng: Generator, part: Part) -> Damage:
    """A curl of brass swarf lies on the part."""
    path = _curve(rng, _place(rng, part), rng.uniform(0, TURN), rng.uniform(0.14, 0.3), 6.0)
    swarf = _drawn(len(part.region), [path], 0.018)
    strength = rng.uniform(0.12, 0.7)
    image = _paint(part.image, 0.8 * strength * _soft(swarf, 0.004, away=0.012), SHADE)
    return _paint(image, strength * swarf, BRASS), swarf


def _hole(rng: Generator, part: Part) -> Damage:
    """Torn threads: dark, with a frayed light edge."""
    tear = _blob(rng, len(part.region), _place(rng, part), rng.uniform(0.012, 0.042), 0.45)
    fray = _soft(tear, 0.007)
    strength = rng.uniform(0.3, 1)
    image = _paint(_paint(part.image, 0.7 * strength * fray, LIGHT), strength * tear, SHADE)
    return image, np.maximum(tear, fray)


def _misprint(rng: Generator, part: Part) -> Damage:
    """A dot took too little ink, in part or as a whole."""
    n, dot = len(part.region), part.marks[int(rng.integers(len(part.marks)))]
    dry = _polar(dot, rng.uniform(0, 0.05), rng.uniform(0, TURN))
    bare = _discs(n, [dot], 0.066) * _discs(n, [dry], 0.066)
    return _paint(part.image, rng.uniform(0.35, 1) * bare, part.plain), bare


_PARTS = {"plate": _plate, "flange": _flange, "fabric": _fabric}
_DEFECTS = {
    "plate": {"dent": _dent, "scratch": _scratch, "stain": _stain},
    "flange": {"chip": _chip, "contamination": _swarf, "missing_hole": _undrilled, "scratch": _scratch},
    "fabric": {"hole": _hole, "misprint": _misprint, "stain": _stain},
}
CATEGORIES: Mapping[str, tuple[str, ...]] = {name: tuple(defects) for name, defects in _DEFECTS.items()}


def write_toy(root: Path, *, seed: int = 0, categories: Sequence[str] = tuple(CATEGORIES), size: int = 128,
              train: int = 24, good: int = 10, bad: int = 5) -> None:  # fmt: skip
    """Write `root/<category>` for each category; the same arguments always give the same pictures.

    `bad` is the number for each kind of defect. Unknown categories and too small numbers raise `ValueError`.
    """
    for category in categories:
        if category not in CATEGORIES:
            raise ValueError(f"unknown toy category {category!r}. Known: {', '.join(CATEGORIES)}.")
    least = {"seed": 0, "size": 32, "train": 1, "good": 1, "bad": 1}
    for name, value in zip(least, (seed, size, train, good, bad), strict=True):
        if value < least[name]:
            raise ValueError(f"{name} is {value}; it must be at least {least[name]}.")
    for category in categories:
        counts = {"train/good": train, "test/good": good}
        counts |= {f"test/{name}": bad for name in CATEGORIES[category]}
        for role, index in ((role, index) for role, count in counts.items() for index in range(count)):
            for path, pixels in _picture(seed, category, role, index, size).items():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


def _picture(seed: int, category: str, role: str, index: int, size: int) -> dict[str, NDArray[np.uint8]]:
    """A picture and, of a faulty part, the mask, by path. No other picture influences its random numbers."""
    seeds = np.random.SeedSequence([seed, crc32(category.encode()), crc32(role.encode()), index])
    rng = np.random.default_rng(seeds)
    part = _PARTS[category](rng, size * SCALE)
    name, picture = role.removeprefix("test/"), f"{category}/{role}/{index:03}.png"
    if name not in CATEGORIES[category]:
        return {picture: _photo(rng, part.image)}
    image, cover = _DEFECTS[category][name](rng, part)
    # A third of a pixel counts; if nothing covers that much, what covers most does.
    share = _reduced(cover)
    mask = np.where(share >= min(1 / 3, float(share.max())), 255, 0).astype(np.uint8)
    return {picture: _photo(rng, image), f"{category}/ground_truth/{name}/{index:03}_mask.png": mask}


def _reduced(plane: Floats) -> Floats:
    n = len(plane) // SCALE
    return np.asarray(cv2.resize(plane, (n, n), interpolation=cv2.INTER_AREA), np.float32)


def _photo(rng: Generator, image: Floats) -> NDArray[np.uint8]:
    """Uneven light, the camera's exposure and its noise."""
    photo = np.stack([_reduced(plane) for plane in image])
    x, y = _grid(len(photo[0]))
    slope = _polar((0, 0), rng.uniform(0, 0.16), rng.uniform(0, TURN))
    photo *= rng.uniform(0.93, 1.07) * (1 + slope[0] * (x - 0.5) + slope[1] * (y - 0.5))
    photo += 1.6 * rng.standard_normal(photo.shape[1:], dtype=np.float32)
    photo += 0.8 * rng.standard_normal(photo.shape, dtype=np.float32)
    return np.dstack(list(np.clip(np.round(photo), 0, 255).astype(np.uint8)))

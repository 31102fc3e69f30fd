"""Images for a first classification: four invented products in several conditions, with rare labels.

    washer    a ring;                  good, scratch, stain, broken
    nut       a hexagon with a bore;   good, broken, stain, scratch
    gear      a toothed disc;          good, scratch, broken, combined
    bracket   an angle;                good, stain, scratch, combined

The layout is that of the competition: train/, train_df.csv, test/, test_df.csv, sample_submission.csv. Every product
has a random rotation and position on an uneven table in uneven light. A network must learn the outline for the class,
and a small region for the condition. `combined` is a scratch and a stain. The arguments determine all images.

Lengths are fractions of the image's side.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from harness.data.labelled.base import SEPARATOR
from harness.data.labelled.files import SAMPLE, TEST_TABLE, TRAIN_TABLE

Plane = NDArray[np.float32]

SCALE = 2  # images are drawn at twice the size and reduced
BITS = 6  # fractional bits of coordinates in cv2
RADIUS = 0.34

# Numbers of images for each label, of 400 training images.
SHARES: Mapping[str, Mapping[str, int]] = {
    "washer": {"good": 84, "scratch": 24, "stain": 14, "broken": 8},
    "nut": {"good": 70, "broken": 16, "stain": 10, "scratch": 8},
    "gear": {"good": 56, "scratch": 14, "broken": 10, "combined": 6},
    "bracket": {"good": 50, "stain": 14, "scratch": 10, "combined": 6},
}
LABELS = tuple(sorted(f"{part}{SEPARATOR}{state}" for part, states in SHARES.items() for state in states))
LEAST = 2  # smallest number of training images of a label


def write_labelled_toy(root: Path, *, seed: int = 0, size: int = 64, train: int = 400, test: int = 100) -> None:
    """Write the images and tables below `root`; equal arguments give equal images.

    Args:
        root: an existing folder.
        seed: of the random images.
        size: height and width in pixels.
        train, test: approximate numbers of images; every label has at least 2 training images and 1 test image.
    """
    for role, number, least in (("train", train, LEAST), ("test", test, 1)):
        (root / role).mkdir()
        labels = [
            (class_, condition)
            for class_, conditions in SHARES.items()
            for condition, share in conditions.items()
            for _ in range(max(least, round(share * number / 400)))
        ]
        # Real tables have no order.
        rng = np.random.default_rng([seed, crc32(role.encode())])
        rows = []
        for index, (class_, condition) in enumerate(labels[i] for i in rng.permutation(len(labels))):
            name = f"{index:05}.png"
            pixels = draw(np.random.default_rng([seed, crc32(role.encode()), index]), class_, condition, size)
            (root / role / name).write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
            rows.append({"index": index, "file_name": name, "class": class_, "state": condition,
                         "label": f"{class_}{SEPARATOR}{condition}"})  # fmt: skip
        if role == "train":
            _write(root / TRAIN_TABLE, rows)
        else:
            _write(root / TEST_TABLE, [{key: row[key] for key in ("index", "file_name")} for row in rows])
            _write(root / SAMPLE, [{"index": row["index"], "label": LABELS[0]} for row in rows])


def _write(file: Path, rows: list[dict[str, Any]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def draw(rng: Generator, class_: str, condition: str, size: int) -> NDArray[np.uint8]:
    """Draw one image.

    Args:
        rng: source of all random values.
        class_: the class, a key of `SHARES`.
        condition: of the product.
        size: height and width in pixels.

    Returns:
        Shape (size, size, 3): blue, green, red.
    """
    n = size * SCALE
    centre = 0.5 + rng.uniform(-0.06, 0.06, 2)
    shape = _shape(class_, n, centre, rng.uniform(0, 2 * np.pi), RADIUS * rng.uniform(0.9, 1.1))
    if condition == "broken":
        shape = shape * (1 - _notch(rng, shape))
    table = 70 + 14 * _smooth(rng, n)
    metal = rng.uniform(165, 200) + 8 * _smooth(rng, n)
    tint = np.array([1.0, 1.0, 1.0], np.float32) + rng.uniform(-0.06, 0.06, 3).astype(np.float32)
    image = (table + shape * (metal - table))[..., None] * tint
    if condition in {"scratch", "combined"}:
        image = _paint(image, _scratch(rng, shape), np.array([35, 35, 35], np.float32))
    if condition in {"stain", "combined"}:
        image = _paint(image, _stain(rng, shape), np.array([40, 80, 150], np.float32))
    light = 1 + 0.2 * rng.uniform(-1, 1) * np.linspace(-0.5, 0.5, n, dtype=np.float32)[:, None, None]
    reduced = cv2.resize((image * light).astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
    noisy = reduced + rng.normal(0, 4, reduced.shape)
    return np.asarray(np.clip(np.rint(noisy), 0, 255), np.uint8)


def _smooth(rng: Generator, n: int) -> Plane:
    cells = rng.standard_normal((4, 4)).astype(np.float32)
    return np.asarray(cv2.resize(cells, (n, n), interpolation=cv2.INTER_CUBIC), np.float32)


def _fill(n: int, *paths: NDArray[np.float64]) -> Plane:
    canvas = np.zeros((n, n), np.uint8)
    cv2.fillPoly(canvas, [np.round(p * n * (1 << BITS)).astype(np.int32) for p in paths], 255, cv2.LINE_AA, BITS)
    return np.asarray(canvas / np.float32(255), np.float32)


def _ring(centre: NDArray[np.float64], radii: NDArray[np.float64], turn: float) -> NDArray[np.float64]:
    angles = turn + np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    return np.asarray(centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1))


def _shape(class_: str, n: int, centre: NDArray[np.float64], turn: float, radius: float) -> Plane:
    """The share of each pixel that the product covers, 0 to 1."""
    bore = _ring(centre, np.full(48, 0.45 * radius), 0)
    if class_ == "washer":
        return _fill(n, _ring(centre, np.full(64, 0.9 * radius), 0), bore)
    if class_ == "nut":
        return _fill(n, _ring(centre, np.full(6, radius), turn), bore)
    if class_ == "gear":
        return _fill(n, _ring(centre, np.tile([1.1, 1.1, 0.8, 0.8], 10) * radius, turn))
    corners = np.array([[-1, -1], [-0.25, -1], [-0.25, 0.25], [1, 0.25], [1, 1], [-1, 1]]) * 0.85 * radius
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return _fill(n, centre + corners @ rotation.T)


def _position(rng: Generator, shape: Plane) -> NDArray[np.float64]:
    """A random point of the product."""
    rows, columns = np.nonzero(shape > 0.5)
    index = int(rng.integers(len(rows)))
    return np.array([columns[index], rows[index]]) / len(shape)


def _notch(rng: Generator, shape: Plane) -> Plane:
    """A gap in the rim."""
    edge = shape - cv2.erode(shape, np.ones((5, 5), np.uint8))
    return _fill(len(shape), _ring(_position(rng, edge), rng.uniform(0.09, 0.15, 9), rng.uniform(0, 6)))


def _scratch(rng: Generator, shape: Plane) -> Plane:
    """A thin dark line."""
    canvas = np.zeros_like(shape, np.uint8)
    angle, length, middle = rng.uniform(0, np.pi), rng.uniform(0.22, 0.4), _position(rng, shape)
    along = length / 2 * np.array([np.cos(angle), np.sin(angle)])
    ends = [np.round((middle + sign * along) * len(shape)).astype(int).tolist() for sign in (-1, 1)]
    cv2.line(canvas, ends[0], ends[1], 255, max(1, round(0.022 * len(shape))), cv2.LINE_AA)
    return np.asarray(canvas / np.float32(255) * shape * rng.uniform(0.6, 1), np.float32)


def _stain(rng: Generator, shape: Plane) -> Plane:
    """A rust-coloured patch with a soft rim."""
    blob = _fill(len(shape), _ring(_position(rng, shape), rng.uniform(0.06, 0.12, 8), rng.uniform(0, 6)))
    soft = cv2.GaussianBlur(blob, (0, 0), 0.012 * len(shape))
    return np.asarray(soft * shape * rng.uniform(0.55, 0.95), np.float32)


def _paint(image: Plane, cover: Plane, colour: Plane) -> Plane:
    return image + cover[..., None] * (colour - image)

"""Images for a first run: three invented products, with and without defects, in MVTec AD's layout.

    plate     brushed steel sheet; the brushing and the highlight differ between images
    flange    turned disc with a bore and six bolt holes; any rotation, a small offset
    fabric    plain weave with printed dots; weave and print are not aligned

An experiment on these images needs no download, and its metrics are meaningful. Normal images vary in light, pose and
texture. So neither the brightness nor the difference from the mean image finds the defects. Most types of defect range
from obvious to barely visible.

toy_products.py draws them. This module takes the photograph and writes the files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from zlib import crc32

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from harness.data.toy_products import DEFECTS, PRODUCTS, TURN, Floats, grid, polar

SCALE = 2  # images are drawn at twice the size and reduced: edges are smooth, and lines thinner than a pixel exist
CATEGORIES: Mapping[str, tuple[str, ...]] = {name: tuple(defects) for name, defects in DEFECTS.items()}


def write_toy(root: Path, *, seed: int = 0, categories: Sequence[str] = tuple(CATEGORIES), size: int = 128,
              train: int = 24, good: int = 10, bad: int = 5) -> None:  # fmt: skip
    """Write `root/<category>` for each category; equal arguments give equal images.

    Args:
        root: the folder of the categories.
        seed: of the random images.
        categories: names of `CATEGORIES`.
        size: height and width in pixels.
        train: number of normal training images.
        good: number of normal test images.
        bad: number of test images for each type of defect.

    Raises:
        ValueError: a category is unknown, or a number is too small.
    """
    for category in categories:
        if category not in CATEGORIES:
            raise ValueError(f"unknown toy category {category!r}. Known: {', '.join(CATEGORIES)}.")
    least = {"seed": 0, "size": 32, "train": 1, "good": 1, "bad": 1}
    for name, value in zip(least, (seed, size, train, good, bad), strict=True):
        if value < least[name]:
            raise ValueError(f"{name}: {value} found, at least {least[name]} expected.")
    for category in categories:
        counts = {"train/good": train, "test/good": good}
        counts |= {f"test/{name}": bad for name in CATEGORIES[category]}
        for role, index in ((role, index) for role, count in counts.items() for index in range(count)):
            for path, pixels in _image_files(seed, category, role, index, size).items():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


def _image_files(seed: int, category: str, role: str, index: int, size: int) -> dict[str, NDArray[np.uint8]]:
    """An image and, with a defect, its mask, by path. The random numbers do not depend on other images."""
    seeds = np.random.SeedSequence([seed, crc32(category.encode()), crc32(role.encode()), index])
    rng = np.random.default_rng(seeds)
    product = PRODUCTS[category](rng, size * SCALE)
    name, path = role.removeprefix("test/"), f"{category}/{role}/{index:03}.png"
    if name not in CATEGORIES[category]:
        return {path: _photograph(rng, product.image)}
    image, cover = DEFECTS[category][name](rng, product)
    # A pixel is anomalous if the defect covers a third of it. A smaller defect keeps its most covered pixels.
    share = _reduced(cover)
    mask = np.where(share >= min(1 / 3, float(share.max())), 255, 0).astype(np.uint8)
    return {path: _photograph(rng, image), f"{category}/ground_truth/{name}/{index:03}_mask.png": mask}


def _reduced(plane: Floats) -> Floats:
    n = len(plane) // SCALE
    return np.asarray(cv2.resize(plane, (n, n), interpolation=cv2.INTER_AREA), np.float32)


def _photograph(rng: Generator, image: Floats) -> NDArray[np.uint8]:
    """The image of a camera: with uneven light, random exposure and noise."""
    photo = np.stack([_reduced(plane) for plane in image])
    x, y = grid(len(photo[0]))
    slope = polar((0, 0), rng.uniform(0, 0.16), rng.uniform(0, TURN))
    photo *= rng.uniform(0.93, 1.07) * (1 + slope[0] * (x - 0.5) + slope[1] * (y - 0.5))
    photo += 1.6 * rng.standard_normal(photo.shape[1:], dtype=np.float32)
    photo += 0.8 * rng.standard_normal(photo.shape, dtype=np.float32)
    return np.dstack(list(np.clip(np.round(photo), 0, 255).astype(np.uint8)))

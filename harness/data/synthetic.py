"""Synthetic defects on held-out normal images, for `rank: synthetic`.

Three kinds, drawn at the size of the image:

- cutpaste: a patch of the image at another place, with other colours (Li and others: CutPaste, CVPR 2021). The patch
  covers 0.5 to 5% of the image. The paper has 2 to 15%, which nearly all detectors find.
- perlin: another texture inside thresholded Perlin noise (Zavrtanik and others: DRAEM, ICCV 2021). The texture is the
  image itself, turned, with other colours. The paper takes photographs of textures.
- scratch: a thin bent line, lighter or darker than the image.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from harness.common.errors import DataError
from harness.data.images import RGB, read_image
from harness.data.index import FileIndex
from harness.data.samples import Sample, Split
from harness.data.toy import write_whole

VERSION = 1  # of the images; another version needs a line in `harness.config.revisions`
FOLDER = "_synthetic"
HASHES = "sha256.json"
LEAST = 30  # synthetic defects of a category
BACKGROUNDS = 20  # at most so many held-out images get defects, so that scoring stays cheap
ENOUGH = 8  # held-out images; a ranking by fewer is unstable
VISIBLE = 10  # grey levels by which some pixel of a defect differs from the normal image
Floats = NDArray[np.floating[Any]]
Drawn = tuple[Floats, Floats]  # another image, and its opacity in each pixel, 0 to 1


def cutpaste(rng: Generator, image: Floats) -> Drawn:
    """A patch of the image at another place, see the module.

    Args:
        rng: random numbers.
        image: shape (height, width, 3), 0 to 255.
    """
    height, width = image.shape[:2]
    area, ratio = rng.uniform(0.005, 0.05), np.exp(rng.uniform(np.log(0.3), np.log(3.3)))
    rows = int(np.clip(height * math.sqrt(area * ratio), 1, height))
    columns = int(np.clip(width * math.sqrt(area / ratio), 1, width))
    top, new_top = rng.integers(0, height - rows + 1, 2)
    left, new_left = rng.integers(0, width - columns + 1, 2)
    other, cover = image.copy(), np.zeros((height, width), np.float32)
    patch = image[top : top + rows, left : left + columns]
    other[new_top : new_top + rows, new_left : new_left + columns] = patch * rng.uniform(0.9, 1.1, 3)
    cover[new_top : new_top + rows, new_left : new_left + columns] = 1
    return other, cover


def perlin(rng: Generator, image: Floats) -> Drawn:
    """Another texture inside thresholded Perlin noise, see the module.

    Args:
        rng: random numbers.
        image: shape (height, width, 3), 0 to 255.
    """
    height, width = image.shape[:2]
    noise = perlin_noise(rng, height, width, int(2 ** rng.integers(1, 5)))
    inside = noise >= np.quantile(noise, 1 - rng.uniform(0.01, 0.06))
    other = np.rot90(image, 2)[..., rng.permutation(3)] * rng.uniform(0.7, 1.3, 3)
    return other, inside * rng.uniform(0.2, 0.8)


def perlin_noise(rng: Generator, height: int, width: int, cells: int) -> Floats:
    """Gradient noise (Perlin: Improving noise, SIGGRAPH 2002).

    Args:
        rng: random numbers.
        height, width: of the noise in pixels.
        cells: cells of the lattice along each side.
    """
    y = np.linspace(0, cells, height, endpoint=False, dtype=np.float32)[:, None]
    x = np.linspace(0, cells, width, endpoint=False, dtype=np.float32)[None, :]
    angles = rng.uniform(0, 2 * np.pi, (cells + 1, cells + 1)).astype(np.float32)
    row, column = y.astype(int), x.astype(int)

    def corner(down: int, right: int) -> Floats:
        angle = angles[row + down, column + right]
        slope: Floats = np.sin(angle) * (y - row - down) + np.cos(angle) * (x - column - right)
        return slope

    def fade(t: Floats) -> Floats:
        return np.asarray(t**3 * (t * (6 * t - 15) + 10))

    right, down = fade(x - column), fade(y - row)
    upper = corner(0, 0) * (1 - right) + corner(0, 1) * right
    lower = corner(1, 0) * (1 - right) + corner(1, 1) * right
    return np.asarray(upper * (1 - down) + lower * down)


def scratch(rng: Generator, image: Floats) -> Drawn:
    """A thin bent line, see the module.

    Args:
        rng: random numbers.
        image: shape (height, width, 3), 0 to 255.
    """
    height, width = image.shape[:2]
    side = min(height, width)
    angles = rng.uniform(0, 2 * np.pi) + rng.uniform(-1, 1) * np.linspace(0, 1, 16)
    steps = side * rng.uniform(0.1, 0.4) / 16 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    path = rng.uniform(0.2, 0.8, 2) * (width, height) + np.cumsum(steps, axis=0)
    canvas = np.zeros((height, width), np.uint8)
    thickness = max(1, round(side * rng.uniform(0.003, 0.012)))
    cv2.polylines(canvas, [np.round(path).astype(np.int32)], False, 255, thickness, cv2.LINE_AA)
    return image + rng.choice([-1, 1]) * rng.uniform(30, 90), canvas / 255


KINDS: dict[str, Callable[[Generator, Floats], Drawn]] = {"cutpaste": cutpaste, "perlin": perlin, "scratch": scratch}


def with_synthetic(split: Split, work_dir: Path, index: FileIndex, max_pixels: int) -> Split:
    """A split with synthetic defects after its test images; its fingerprints stay those of the data set.

    Args:
        split: the data of a category, with held-out images.
        work_dir: the folder for data that the harness makes.
        index: facts about files; those of the new images are added.
        max_pixels: largest allowed number of pixels of an image.

    Raises:
        DataError: the images can't be written or read.
    """
    key = sha256(json.dumps([split.fingerprint, split.held_out, VERSION]).encode()).hexdigest()[:16]
    folder, names = (work_dir / FOLDER / key).absolute(), _names(split)
    existed = folder.is_dir()
    if _problems(folder, names, index, max_pixels):
        # A folder that did not exist may be complete by now: another sweep may write the same images.
        if existed:
            shutil.rmtree(folder, ignore_errors=True)
        write_whole(folder, lambda scratch_folder: _write(split, names, scratch_folder))
        if problems := _problems(folder, names, index, max_pixels):
            raise DataError(problems)
    samples = [
        Sample(str(folder / name), f"{FOLDER}/{name}", 1, Path(name).parent.name, synthetic=True) for name in names
    ]
    note = f"Synthetic defects lie on {len(split.val)} held-out images; at least {ENOUGH} expected. Raise data.val."
    notes = [*split.notes, *([note] if len(split.val) < ENOUGH else [])]
    return replace(split, test=(*split.test, *samples), notes=tuple(notes))


def background(name: str) -> int:
    """The position of the image behind a synthetic defect, among the held-out images.

    Args:
        name: of the synthetic image.

    Raises:
        ValueError: the name is not that of a synthetic image.
    """
    return int(Path(name).name.partition("-")[0])


def _names(split: Split) -> list[str]:
    """Names of the images, relative to their folder: <kind>/<position of the held-out image>-<variant>.png."""
    numbers = np.linspace(0, len(split.val) - 1, min(len(split.val), BACKGROUNDS)).round().astype(int)
    variants = math.ceil(LEAST / (len(KINDS) * len(numbers)))
    return [f"{kind}/{number:05}-{variant}.png" for kind in KINDS for number in numbers for variant in range(variants)]


def _problems(folder: Path, names: list[str], index: FileIndex, max_pixels: int) -> list[str]:
    """One sentence for each image that is missing, damaged or changed since it was written."""
    paths = {name: str(folder / name) for name in names}
    if problems := index.update(set(paths.values()), set(), None, max_pixels):
        return problems
    try:
        hashes = dict(json.loads((folder / HASHES).read_text()))
    except (OSError, TypeError, ValueError) as error:
        return [f"{folder / HASHES}: can't be read ({error}); expected the hashes of the images. Remove {folder}."]
    changed = [path for name, path in paths.items() if hashes.get(name) != index.hash_of(path)]
    return [f"{path}: the image was changed; expected the one that the harness wrote. Remove {folder}."
            for path in changed]  # fmt: skip


def _write(split: Split, names: list[str], folder: Path) -> None:
    hashes = {}
    for place, name in enumerate(names):
        kind = Path(name).parent.name
        rng = np.random.default_rng([split.held_out[1], place])
        pixels = _with_defect(rng, read_image(split.val[background(name)].path), KINDS[kind])
        success, png = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
        assert success
        (folder / kind).mkdir(exist_ok=True)
        (folder / name).write_bytes(png.tobytes())
        hashes[name] = sha256(png.tobytes()).hexdigest()
    (folder / HASHES).write_text(json.dumps(hashes))


def _with_defect(rng: Generator, image: RGB, draw: Callable[[Generator, Floats], Drawn]) -> RGB:
    """The image with a visible defect; a defect on a grey image is grey.

    A patch may equal what it covers, for example on an empty background. Then another one is drawn.
    """
    pixels, grey = image, bool((image == image[..., :1]).all())
    for _ in range(20):
        other, cover = draw(rng, image.astype(np.float32))
        other = other[..., [0, 0, 0]] if grey else other
        blend = image + cover[..., None] * (other - image)
        pixels = np.clip(np.round(blend), 0, 255).astype(np.uint8)
        if np.abs(pixels.astype(np.int16) - image).max() >= VISIBLE:
            break
    return pixels

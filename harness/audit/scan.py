"""Each image is read once: its hash, its thumbnail, and numbers about exposure and sharpness."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np

from harness.audit.images import AuditImage
from harness.audit.near import SIDE, Thumbs
from harness.common import threads
from harness.common.errors import DataError
from harness.data.images import from_bytes

Progress = Callable[[int, int], None]
SHARPNESS_SIDE = 256  # pixels of the longer side; larger images are not blurred because they are large
DARK, BRIGHT = 5, 250  # grey levels that count as clipped


@dataclass(frozen=True)
class Scan:
    """Facts about one readable image.

    Attributes:
        image: the image.
        sha256: of the file.
        height, width: in pixels, upright.
        mode: how the file stores colours, in a few words; "" for plain 8-bit RGB.
        brightness: mean grey level, 0 to 255.
        contrast: standard deviation of the grey levels.
        sharpness: logarithm of the variance of the Laplacian, at `SHARPNESS_SIDE` (Pech-Pacheco et al., Diatom
            Autofocusing in Brightfield Microscopy, ICPR 2000).
        clipped: share of pixels that are almost black or white.
        thumb: (SIDE, SIDE) grey.
    """

    image: AuditImage
    sha256: str
    height: int
    width: int
    mode: str
    brightness: float
    contrast: float
    sharpness: float
    clipped: float
    thumb: Thumbs


@dataclass(frozen=True)
class Unreadable:
    """An image that can't be read.

    Attributes:
        image: the image.
        problem: one sentence.
    """

    image: AuditImage
    problem: str


def scan(images: Sequence[AuditImage], progress: Progress | None = None) -> tuple[list[Scan], list[Unreadable]]:
    """Read all images.

    Args:
        images: the images.
        progress: called with (number of read images, number of images).
    """
    scans, unreadable = [], []
    with ThreadPoolExecutor(threads.count()) as pool:
        for count, result in enumerate(pool.map(_read, images), 1):
            if isinstance(result, Scan):
                scans.append(result)
            else:
                unreadable.append(result)
            if progress is not None:
                progress(count, len(images))
    return scans, unreadable


def _read(image: AuditImage) -> Scan | Unreadable:
    try:
        content = Path(image.path).read_bytes()
        reading = from_bytes(content, image.path, image.max_pixels)
    except OSError as error:
        return Unreadable(image, f"{image.path}: can't be read ({error.strerror}).")
    except DataError as error:
        return Unreadable(image, error.problems[0])
    grey = cv2.cvtColor(reading.pixels, cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    factor = SHARPNESS_SIDE / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA) if factor < 1 else grey
    return Scan(
        image=image,
        sha256=sha256(content).hexdigest(),
        height=height,
        width=width,
        mode=", ".join(note for note in reading.notes if "turned upright" not in note),
        brightness=float(small.mean()),
        contrast=float(small.std()),
        sharpness=float(np.log1p(cv2.Laplacian(small, cv2.CV_32F).var())),
        clipped=float(((small <= DARK) | (small >= BRIGHT)).mean()),
        thumb=np.asarray(cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA), dtype=np.uint8),
    )

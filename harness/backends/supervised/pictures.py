"""Images decoded once, at the size that networks see: in memory, or in a file where they do not fit."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
from PIL import Image

from harness.common.errors import MemoryLimitError
from harness.data.images import RGB, read_image

Pixels = npt.NDArray[np.uint8]
FILE = "pictures.dat"


def to_size(pixels: RGB, size: tuple[int, int]) -> Pixels:
    """(height, width, 3) -> (3, *size): bilinear, with antialiasing."""
    height, width = size
    if pixels.shape[:2] != size:
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


# The last ones, by fingerprint and size.
_KEPT: dict[tuple[str, tuple[int, int]], Pixels] = {}


def decode_once(data: str, paths: Sequence[str], size: tuple[int, int], scratch: Path, limit: int | None) -> Pixels:
    """`decode`, unless the last ones are still in memory: a sweep's runs are mostly on the same images at one size.

    Args:
        data: fingerprint of the images.
        paths, size, scratch, limit: see `decode`.
    """
    if (data, size) in _KEPT:
        return _KEPT[data, size]
    # They need not fit into memory beside the next.
    _KEPT.clear()
    found = decode(paths, size, scratch, limit)
    found.flags.writeable = False
    if not isinstance(found, np.memmap):
        _KEPT[data, size] = found
    return found


def decode(paths: Sequence[str], size: tuple[int, int], scratch: Path, limit: int | None) -> Pixels:
    """All images, (n, 3, *size).

    Args:
        paths: of the images.
        size: (height, width).
        scratch: where the file goes if they do not fit into memory.
        limit: bytes that they may take in memory, None for half of what is free.

    Raises:
        MemoryLimitError: they fit neither into memory nor on the disk.
        DataError: an image can't be read.
    """
    shape = (len(paths), 3, *size)
    needed = int(np.prod(shape))
    allowed = limit if limit is not None else psutil.virtual_memory().available // 2
    if needed <= allowed:
        found: Pixels = np.empty(shape, dtype=np.uint8)
    else:
        free = psutil.disk_usage(str(scratch)).free
        if needed > free:
            raise MemoryLimitError(
                f"{len(paths)} images at {size[0]} x {size[1]} take {needed / 1e9:.1f} GB: {allowed / 1e9:.1f} GB of "
                f"memory and {free / 1e9:.1f} GB at {scratch} found; expected one of them to do. Choose a smaller "
                "image_size, or another --output."
            )
        found = np.memmap(scratch / FILE, dtype=np.uint8, mode="w+", shape=shape)

    def one(index: int) -> None:
        found[index] = to_size(read_image(paths[index]), size)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        # Through a list, so that what went wrong with an image is raised.
        list(pool.map(one, range(len(paths))))
    return found

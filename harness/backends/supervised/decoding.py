"""Images decoded once, at the input size of the networks, in memory or in a file if memory is too small."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
from PIL import Image

from harness.backends.base import RunContext
from harness.common.errors import MemoryLimitError
from harness.common.threads import count
from harness.data.images import RGB, read_image

Pixels = npt.NDArray[np.uint8]
FILE = "images-{}x{}.dat"


def to_size(pixels: RGB, size: tuple[int, int]) -> Pixels:
    """Resize an image, bilinear with antialiasing.

    Args:
        pixels: (height, width, 3).
        size: (height, width) of the result.

    Returns:
        (3, *size).
    """
    height, width = size
    if pixels.shape[:2] != size:
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


# The images of the last call of `decode_once`, by fingerprint and size.
_CACHE: dict[tuple[str, tuple[int, int]], Pixels] = {}


def decode_once(data: str, paths: Sequence[str], size: tuple[int, int], scratch: Path, limit: int | None) -> Pixels:
    """Decode images, or return those of the last call: most runs of a sweep use the same images at one size.

    Args:
        data: fingerprint of the images.
        paths: paths of the images.
        size: (height, width) of the decoded images.
        scratch: folder for a file, if the images do not fit into memory.
        limit: memory limit in bytes, None for half of the free memory.

    Raises:
        MemoryLimitError: the images fit neither into memory nor on the disk.
        DataError: an image cannot be read.
    """
    if (data, size) in _CACHE:
        return _CACHE[data, size]
    # The old images must not take memory from the new ones.
    _CACHE.clear()
    pixels = decode(paths, size, scratch, limit)
    pixels.flags.writeable = False
    if not isinstance(pixels, np.memmap):
        _CACHE[data, size] = pixels
    return pixels


class ImagesBySize:
    """The decoded images of a run, at one size at a time.

    Args:
        data: fingerprint of the images.
        paths: paths of the images.
        context: resources and options of the run.

    Attributes:
        seconds: time of all decoding.
    """

    def __init__(self, data: str, paths: Sequence[str], context: RunContext) -> None:
        self._data, self._paths, self._context = data, paths, context
        self._current: tuple[tuple[int, int], Pixels] | None = None
        self.seconds = 0.0

    def at(self, size: tuple[int, int]) -> Pixels:
        """Return the images at a size, (n, 3, *size), and drop those of the size before; see `decode_once`.

        Args:
            size: (height, width).
        """
        if self._current is None or self._current[0] != size:
            self._context.stage("reading images")
            start, scratch, limit = time.perf_counter(), self._context.scratch, self._context.memory_limit
            # The old images must not take memory from the new ones.
            self._current = None
            self._current = size, decode_once(self._data, self._paths, size, scratch, limit)
            self.seconds += time.perf_counter() - start
        return self._current[1]


def decode(paths: Sequence[str], size: tuple[int, int], scratch: Path, limit: int | None) -> Pixels:
    """Decode images to one array, (n, 3, *size).

    Args:
        paths: paths of the images.
        size: (height, width) of the decoded images.
        scratch: folder for a file, if the images do not fit into memory.
        limit: memory limit in bytes, None for half of the free memory.

    Raises:
        MemoryLimitError: the images fit neither into memory nor on the disk.
        DataError: an image cannot be read.
    """
    shape = (len(paths), 3, *size)
    needed = int(np.prod(shape))
    allowed = limit if limit is not None else psutil.virtual_memory().available // 2
    if needed <= allowed:
        pixels: Pixels = np.empty(shape, dtype=np.uint8)
    else:
        free = psutil.disk_usage(str(scratch)).free
        if needed > free:
            raise MemoryLimitError(
                f"{len(paths)} images at {size[0]} x {size[1]} take {needed / 1e9:.1f} GB: {allowed / 1e9:.1f} GB of "
                f"memory and {free / 1e9:.1f} GB at {scratch} found, expected enough in one of them. Choose a smaller "
                "image_size, or another --output."
            )
        pixels = np.memmap(scratch / FILE.format(*size), dtype=np.uint8, mode="w+", shape=shape)

    def decode_image(index: int) -> None:
        pixels[index] = to_size(read_image(paths[index]), size)

    with ThreadPoolExecutor(count()) as pool:
        # The list raises the exceptions of the threads.
        list(pool.map(decode_image, range(len(paths))))
    return pixels

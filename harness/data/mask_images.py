"""Masks from image files, as booleans. A pixel is anomalous if one of its channels is not 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.common.errors import DataError
from harness.data.images import MAX_PIXELS, open_upright

MANY = 8  # values; a mask with more was smoothed or compressed with loss, one with fewer has classes
KEPT = 4096  # masks in memory: 32 MB at 256 x 256 pixels

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class MaskReading:
    """A mask, and properties of its file.

    Attributes:
        pixels: shape (height, width), True is anomalous.
        grey: whether the file has values between 0 and the largest: JPEG, or smoothed edges.
        differs_from_v01: whether version 0.1 read another mask: by the brightness of colours, without transparency.
        value: the only value of a grey mask that is not 0; 0 for another mask.
    """

    pixels: Mask
    grey: bool
    differs_from_v01: bool
    value: int = 0


@dataclass(frozen=True)
class ResizedMask:
    """A mask at the size of a map, and properties of its file.

    Attributes:
        bits: the pixels in C order, 8 in a byte.
        size: (height, width) of the mask.
        value: see `MaskReading.value`.
        area: number of anomalous pixels of the file.
        pixels_of_file: number of all pixels of the file.
    """

    bits: npt.NDArray[np.uint8]
    size: tuple[int, int]
    value: int
    area: int
    pixels_of_file: int

    @property
    def pixels(self) -> Mask:
        """Shape (height, width), True is anomalous."""
        return np.unpackbits(self.bits, count=self.size[0] * self.size[1]).reshape(self.size).view(np.bool_)


def resized_mask(path: Path | str, size: tuple[int, int]) -> ResizedMask:
    """A mask resized by `resize_nearest`. All runs of a process read an unchanged file once.

    Args:
        path: of the file.
        size: (height, width) of the result.

    Raises:
        DataError: see `mask_reading`.
    """
    try:
        stat = Path(path).stat()
    except OSError:
        # Reading the file says what is wrong.
        return _resized_mask.__wrapped__(str(path), 0, 0, size)
    return _resized_mask(str(path), stat.st_size, stat.st_mtime_ns, size)


@lru_cache(KEPT)
def _resized_mask(path: str, _size: int, _changed: int, size: tuple[int, int]) -> ResizedMask:
    reading = mask_reading(path, None)
    bits = np.packbits(resize_nearest(reading.pixels, size))
    return ResizedMask(bits, size, reading.value, int(reading.pixels.sum()), reading.pixels.size)


def read_mask(path: Path | str, size: tuple[int, int] | None = None) -> Mask:
    """A mask as booleans; True is anomalous.

    Args:
        path: of the file.
        size: (height, width) of the result, resized by `resize_nearest`; None for the size of the file.

    Raises:
        DataError: see `mask_reading`.
    """
    return mask_reading(path, None).pixels if size is None else resized_mask(path, size).pixels


def union(paths: Sequence[Path | str], size: tuple[int, int] | None = None) -> Mask:
    """The union of the masks of an image, see `read_mask`.

    Args:
        paths: at least one mask, all of the same size.
        size: (height, width) of the result; None for the size of the files.
    """
    return np.asarray(np.logical_or.reduce([read_mask(path, size) for path in paths]), dtype=np.bool_)


def mask_reading(path: Path | str, max_pixels: int | None = MAX_PIXELS) -> MaskReading:
    """Read a mask. A pixel is anomalous if one of its channels is not 0.

    In a mask with transparent pixels, all other pixels are anomalous: they were painted on a transparent layer.

    Args:
        path: of the file.
        max_pixels: largest allowed number of pixels; None without a limit.

    Raises:
        DataError: the file can't be read, is too large or is transparent everywhere; or colours and transparency
            contradict each other.
    """
    image, _ = open_upright(Path(path), path, max_pixels)
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        if not np.isfinite(values).all():
            raise DataError(f"{path}: values found that are no numbers; expected a mask of finite values.")
        anomalous: Mask = np.asarray(values != 0, dtype=np.bool_)
        return MaskReading(anomalous, len(np.unique(values)) > MANY, bool((values < 0).any()))
    earlier: Mask = np.asarray(image.convert("L"), dtype=np.uint8) > 0
    alpha = None
    if image.mode in {"LA", "PA", "RGBA", "RGBa", "La"} or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = np.asarray(image.getchannel("A"))
    values = np.asarray(image if image.mode == "1" else image.convert("RGB"))
    coloured: Mask = np.asarray(values.reshape(*values.shape[:2], -1).any(axis=2), dtype=np.bool_)
    pixels, grey = coloured, _is_grey(values)
    if alpha is not None and (alpha == 0).any():
        pixels = _painted(alpha, coloured, str(path))
        grey = _is_grey(alpha)
    marked = values[pixels] if image.mode == "L" else np.empty(0, np.uint8)
    value = int(marked.max(initial=0)) if len(np.unique(marked)) == 1 else 0
    return MaskReading(pixels, grey, not np.array_equal(pixels, earlier), value)


def _painted(alpha: npt.NDArray[np.uint8], coloured: Mask, path: str) -> Mask:
    """The opaque pixels of a mask with transparency.

    Raises:
        DataError: all pixels are transparent, or colours and transparency contradict each other.
    """
    opaque: Mask = alpha > 0
    if not opaque.any():
        raise DataError(f"{path}: a mask that is transparent everywhere found; expected an anomalous region.")
    black = not coloured[opaque].any()
    if black and coloured[~opaque].any():
        raise DataError(
            f"{path}: a mask with black opaque pixels and coloured transparent pixels found: either may be meant. "
            "Save the mask without transparency: 0 for normal pixels, 255 for anomalous pixels."
        )
    if not black and not coloured[opaque].all():
        raise DataError(
            f"{path}: a mask with transparent pixels found, whose other pixels are black and coloured. Save the mask "
            "without transparency: 0 for normal pixels, 255 for anomalous pixels."
        )
    return opaque


def _is_grey(values: npt.NDArray[Any]) -> bool:
    """Whether more than `MANY` values occur, and one of them lies between 0 and the largest."""
    if values.dtype == np.bool_:
        return False
    return bool(((values > 0) & (values < values.max(initial=0))).any()) and len(np.unique(values)) > MANY


def resize_nearest(mask: Mask, size: tuple[int, int]) -> Mask:
    """Resize a mask by nearest neighbour, as Torch's `nearest`: index floor(i * in / out).

    Args:
        mask: shape (height, width).
        size: (height, width) of the result.
    """
    rows = np.arange(size[0]) * mask.shape[0] // size[0]
    columns = np.arange(size[1]) * mask.shape[1] // size[1]
    resized: Mask = mask[rows[:, None], columns[None, :]]
    return resized

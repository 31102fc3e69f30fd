"""Masks from image files, as booleans. A pixel is anomalous if one of its channels is not 0.

With the rule `above_half`, a channel must be above half of its range. This is the rule of public evaluation code that
scales a mask to 0 to 1 and compares with 0.5. Both rules differ for grey values: smooth edges, and masks saved as JPEG.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.common.errors import DataError
from harness.data.images import FULL_SCALE, MAX_PIXELS, open_upright

MANY = 8  # values; a mask with more was smoothed or compressed with loss, one with fewer has classes
KEPT = 4096  # masks in memory: 32 MB at 256 x 256 pixels
# Rules for the anomalous pixels of a mask.
ABOVE_0, ABOVE_HALF = "above_0", "above_half"
# The largest value of each type of pixel, for `above_half`. Whole numbers of 32 bits hold 16 bits of a file.
FULL = {"bool": 1.0, "uint8": 255.0, "float32": 1.0}

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


def resized_mask(path: Path | str, size: tuple[int, int] | None = None, rule: str = ABOVE_0) -> ResizedMask:
    """A mask resized by `resize_nearest`. All runs of a process read an unchanged file once for each size.

    Args:
        path: of the file.
        size: (height, width) of the result; None for the size of the file. Such a mask may be large, and is read again.
        rule: `ABOVE_0` or `ABOVE_HALF`.

    Raises:
        DataError: see `mask_reading`.
    """
    try:
        stat = Path(path).stat()
    except OSError:
        # Reading the file says what is wrong.
        return _resized_mask.__wrapped__(str(path), 0, 0, size, rule)
    read = _resized_mask.__wrapped__ if size is None else _resized_mask
    return read(str(path), stat.st_size, stat.st_mtime_ns, size, rule)


@lru_cache(KEPT)
def _resized_mask(path: str, _size: int, _changed: int, size: tuple[int, int] | None, rule: str) -> ResizedMask:
    reading = mask_reading(path, None, rule)
    height, width = size or reading.pixels.shape
    bits = np.packbits(resize_nearest(reading.pixels, (height, width)))
    return ResizedMask(bits, (height, width), reading.value, int(reading.pixels.sum()), reading.pixels.size)


def read_mask(path: Path | str, size: tuple[int, int] | None = None, rule: str = ABOVE_0) -> Mask:
    """A mask as booleans; True is anomalous.

    Args:
        path: of the file.
        size: (height, width) of the result, resized by `resize_nearest`; None for the size of the file.
        rule: `ABOVE_0` or `ABOVE_HALF`.

    Raises:
        DataError: see `mask_reading`.
    """
    return mask_reading(path, None, rule).pixels if size is None else resized_mask(path, size, rule).pixels


def union(paths: Sequence[Path | str], size: tuple[int, int] | None = None, rule: str = ABOVE_0) -> Mask:
    """The union of the masks of an image, see `read_mask`.

    Args:
        paths: at least one mask, all of the same size.
        size: (height, width) of the result; None for the size of the files.
        rule: `ABOVE_0` or `ABOVE_HALF`.
    """
    return np.asarray(np.logical_or.reduce([read_mask(path, size, rule) for path in paths]), dtype=np.bool_)


def marked_pixels(paths: Sequence[Path | str], rule: str) -> int:
    """The anomalous pixels of the masks of an image at their own size. Unchanged files are read once for a process.

    Args:
        paths: of the masks; a pixel of several masks counts for each of them.
        rule: `ABOVE_0` or `ABOVE_HALF`.

    Raises:
        DataError: see `mask_reading`.
    """
    # The area is that of the file, so the smallest result is enough.
    return sum(resized_mask(path, (1, 1), rule).area for path in paths)


def mask_reading(path: Path | str, max_pixels: int | None = MAX_PIXELS, rule: str = ABOVE_0) -> MaskReading:
    """Read a mask. A pixel is anomalous if one of its channels is not 0, or above half of the range.

    In a mask with transparent pixels, all other pixels are anomalous: they were painted on a transparent layer. There
    the rule is about the opacity.

    Args:
        path: of the file.
        max_pixels: largest allowed number of pixels; None without a limit.
        rule: `ABOVE_0` or `ABOVE_HALF`.

    Raises:
        DataError: the file can't be read, is too large or is transparent everywhere; or colours and transparency
            contradict each other.
    """
    image, _ = open_upright(Path(path), path, max_pixels)
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        if not np.isfinite(values).all():
            raise DataError(f"{path}: values found that are no numbers; expected a mask of finite values.")
        return MaskReading(_marked(values, rule), len(np.unique(values)) > MANY, bool((values < 0).any()))
    earlier: Mask = np.asarray(image.convert("L"), dtype=np.uint8) > 0
    alpha = None
    if image.mode in {"LA", "PA", "RGBA", "RGBa", "La"} or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = np.asarray(image.getchannel("A"))
    values = np.asarray(image if image.mode == "1" else image.convert("RGB"))
    coloured = _marked(values, ABOVE_0)
    pixels, source = coloured, values
    if alpha is not None and (alpha == 0).any():
        pixels, source = _painted(alpha, coloured, str(path)), alpha
    marked = values[pixels] if image.mode == "L" else np.empty(0, np.uint8)
    value = int(marked.max(initial=0)) if len(np.unique(marked)) == 1 else 0
    differs = not np.array_equal(pixels, earlier)
    return MaskReading(pixels if rule == ABOVE_0 else _marked(source, rule), _is_grey(source), differs, value)


def _marked(values: npt.NDArray[Any], rule: str) -> Mask:
    """The anomalous pixels of a mask, shape (height, width), from values with or without channels."""
    above = values != 0 if rule == ABOVE_0 else values > FULL.get(values.dtype.name, float(FULL_SCALE)) / 2
    return np.asarray(above.reshape(*values.shape[:2], -1).any(axis=2), dtype=np.bool_)


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

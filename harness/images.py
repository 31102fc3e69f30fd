"""The one place that reads images and masks.

Images come out as 8-bit RGB, upright; masks as booleans. What is anomalous in a mask: every pixel that is not 0.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from harness.errors import DataError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

RGB = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


def list_images(folder: Path, extensions: tuple[str, ...] = EXTENSIONS) -> list[Path]:
    """All images below `folder`, sorted; hidden files and folders left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in extensions
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def _open(path: Path) -> Image.Image:
    """Decode a whole file (so that a truncated one is noticed) and turn it upright."""
    try:
        with Image.open(path) as image:
            image.load()
            return ImageOps.exif_transpose(image)
    # Pillow's decoders raise nearly anything on damaged bytes.
    except Exception as error:
        raise DataError(f"{path}: can't be read as an image ({type(error).__name__}: {error}).") from error


def probe(path: Path) -> tuple[int, int]:
    """Decode `path` fully and give its (height, width).

    Raises:
        DataError: the file is missing, truncated or no image.
    """
    image = _open(path)
    return image.height, image.width


def read_image(path: Path | str) -> RGB:
    """An image as RGB, shape (height, width, 3), uint8.

    16-bit and float images are scaled linearly to 8 bits (a plain conversion would clip them); grey is repeated,
    an alpha channel dropped, palettes and CMYK converted.

    Raises:
        DataError: the file can't be read, or a float image has values outside [0, 1].
    """
    image = _open(Path(path))
    if image.mode.startswith("I"):
        return _grey_to_rgb(np.asarray(image).astype(np.float64) / 65535, path)
    if image.mode == "F":
        return _grey_to_rgb(np.asarray(image).astype(np.float64), path)
    return np.asarray(image.convert("RGB"), dtype=np.uint8)


def _grey_to_rgb(unit: npt.NDArray[np.float64], path: Path | str) -> RGB:
    if unit.size and not (unit.min() >= 0 and unit.max() <= 1):
        raise DataError(
            f"{path}: grey values from {unit.min():g} to {unit.max():g} of full scale found, 0 to 1 expected."
        )
    grey = np.rint(unit * 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def read_mask(path: Path | str, size: tuple[int, int] | None = None) -> Mask:
    """A mask as booleans, shape `size` = (height, width) or the file's own; True is anomalous.

    Resizing takes the nearest pixel (index floor(i * in / out), Torch's `nearest`), so a mask stays binary.
    """
    image = _open(Path(path))
    grey = np.asarray(image if image.mode.startswith(("I", "F")) else image.convert("L"))
    mask: Mask = np.asarray(grey > 0, dtype=np.bool_)
    return mask if size is None else resize_nearest(mask, size)


def resize_nearest(mask: Mask, size: tuple[int, int]) -> Mask:
    """Nearest-neighbour resize of a 2-D array to (height, width)."""
    rows = np.arange(size[0]) * mask.shape[0] // size[0]
    columns = np.arange(size[1]) * mask.shape[1] // size[1]
    resized: Mask = mask[rows[:, None], columns[None, :]]
    return resized

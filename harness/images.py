"""The one place that reads images and masks.

Images come out as 8-bit RGB, upright; masks as booleans. What is anomalous in a mask: every pixel that is not 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from harness.errors import DataError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

FULL_SCALE = 65535  # of 16 bits
ORIENTATION = 0x0112  # in EXIF
CONVERTED = {
    "L": "grey repeated",
    "LA": "grey repeated",
    "1": "black and white repeated",
    "P": "palette converted",
    "PA": "palette converted",
    "CMYK": "CMYK converted",
}

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


def _open(path: Path) -> tuple[Image.Image, tuple[str, ...]]:
    """Decode a whole file, so that a truncated one is noticed, and turn it upright; also what was done.

    Raises:
        DataError: it can't be.
    """
    try:
        with Image.open(path) as image:
            return _upright(image)
    # Pillow's decoders raise nearly anything on damaged bytes.
    except Exception as error:
        raise DataError(f"{path}: {_unreadable(path, error)}") from error


def _upright(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    notes = []
    pages = getattr(image, "n_frames", 1)
    if pages > 1:
        notes.append(f"page {image.tell() + 1} of {pages}")
    # How a file stores its values; Pillow forgets it once they are decoded.
    if ";16" in str(getattr(image, "tile", "")) and not image.mode.startswith("I"):
        notes.append("upper 8 of 16 bits")
    image.load()
    if image.getexif().get(ORIENTATION) in range(2, 9):
        notes.append("turned upright")
    turned: Image.Image = ImageOps.exif_transpose(image)
    return turned, tuple(notes)


def _unreadable(path: Path, error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"can't be read as an image ({error.strerror})."
    if isinstance(error, UnidentifiedImageError):
        return f"can't be read as an image ({'the file is empty' if not path.stat().st_size else 'no known format'})."
    return f"can't be read as an image ({type(error).__name__}: {error})."


def probe(path: Path) -> tuple[int, int]:
    """Decode `path` fully and give its (height, width), upright.

    Raises:
        DataError: the file is missing, truncated or no image.
    """
    image, _ = _open(path)
    return image.height, image.width


def read_image(path: Path | str) -> RGB:
    """An image as RGB, shape (height, width, 3), uint8; see `read`."""
    return read(path).pixels


@dataclass(frozen=True)
class Reading:
    """An image, and what was done to it.

    Attributes:
        pixels: RGB, shape (height, width, 3), uint8.
        notes: what was done beside decoding, a few words each; none for a plain 8-bit RGB file.
    """

    pixels: RGB
    notes: tuple[str, ...] = ()


def read(path: Path | str) -> Reading:
    """Read a file.

    Turned upright by its EXIF orientation. 16-bit and float grey is scaled linearly to 8 bits (a plain conversion
    would clip it), of 16-bit colours the upper 8 are taken; grey is repeated, transparency ignored, palettes and CMYK
    converted; of several pages the first is taken.

    Raises:
        DataError: the file can't be read, or has values beyond full scale.
    """
    return _as_rgb(*_open(Path(path)), str(path))


def from_pil(image: Image.Image) -> Reading:
    """As `read`, of an image of any mode that is open already.

    Raises:
        DataError: its file is damaged, or it has values beyond full scale.
    """
    try:
        upright, notes = _upright(image)
    except Exception as error:
        raise DataError(f"image: can't be decoded ({type(error).__name__}: {error}).") from error
    return _as_rgb(upright, notes, "image")


def _as_rgb(image: Image.Image, notes: tuple[str, ...], name: str) -> Reading:
    mode = image.mode
    if mode.startswith("I"):
        pixels = _grey_to_rgb(np.asarray(image).astype(np.float64) / FULL_SCALE, name)
        stored = "16-bit grey" if ";16" in mode else "32-bit grey, taken for 16 bits,"
        brightest = int(np.asarray(image).max(initial=0))
        if 255 < brightest < 4096:
            # Cameras of 10 and 12 bits; not stretched, since a dark picture of 16 bits looks the same.
            notes = (*notes, f"brightest value {brightest} of 65535: a camera of 12 bits or less?")
        return Reading(pixels, (*notes, f"{stored} scaled to 8 bits"))
    if mode == "F":
        pixels = _grey_to_rgb(np.asarray(image).astype(np.float64), name)
        return Reading(pixels, (*notes, "float grey scaled to 8 bits"))
    if mode not in {"RGB", "RGBA", "RGBa"}:
        notes = (*notes, CONVERTED.get(mode, f"{mode} converted"))
    if mode in {"LA", "PA", "RGBA", "RGBa"} or "transparency" in image.info:
        notes = (*notes, "transparency ignored")
    try:
        return Reading(np.asarray(image.convert("RGB"), dtype=np.uint8), notes)
    except ValueError as error:
        raise DataError(f"{name}: pixels of mode {mode} found, which Pillow can't turn into RGB ({error}).") from error


def from_array(pixels: npt.NDArray[Any]) -> Reading:
    """As `read`, of an array: uint8 or uint16, (height, width) grey or (height, width, 3) RGB.

    Raises:
        DataError: it is something else.
    """
    if pixels.dtype not in (np.uint8, np.uint16) or not (
        pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    ):
        raise DataError(
            f"image: a {pixels.dtype} array of shape {pixels.shape} found; expected uint8 or uint16, "
            "(height, width, 3) RGB or (height, width) grey."
        )
    if not pixels.size:
        raise DataError(f"image: an empty array of shape {pixels.shape} found; expected pixels.")
    notes = ["grey repeated"] if pixels.ndim == 2 else []
    if pixels.dtype == np.uint16:
        pixels = np.rint(pixels.astype(np.float64) * (255 / FULL_SCALE)).astype(np.uint8)
        notes.append("16 bits scaled to 8")
    rgb = np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels
    return Reading(np.asarray(rgb, dtype=np.uint8), tuple(notes))


def _grey_to_rgb(unit: npt.NDArray[np.float64], name: str) -> RGB:
    if unit.size and not (unit.min() >= 0 and unit.max() <= 1):
        raise DataError(
            f"{name}: grey values from {unit.min():g} to {unit.max():g} of full scale found, 0 to 1 expected."
        )
    grey = np.rint(unit * 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def read_mask(path: Path | str, size: tuple[int, int] | None = None) -> Mask:
    """A mask as booleans, shape `size` = (height, width) or the file's own; True is anomalous.

    Resizing takes the nearest pixel (index floor(i * in / out), Torch's `nearest`), so a mask stays binary.
    """
    image, _ = _open(Path(path))
    grey = np.asarray(image if image.mode.startswith(("I", "F")) else image.convert("L"))
    mask: Mask = np.asarray(grey > 0, dtype=np.bool_)
    return mask if size is None else resize_nearest(mask, size)


def resize_nearest(mask: Mask, size: tuple[int, int]) -> Mask:
    """Nearest-neighbour resize of a 2-D array to (height, width)."""
    rows = np.arange(size[0]) * mask.shape[0] // size[0]
    columns = np.arange(size[1]) * mask.shape[1] // size[1]
    resized: Mask = mask[rows[:, None], columns[None, :]]
    return resized

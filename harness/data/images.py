"""The only module that decodes image files, for images and for masks (see `mask_images.py`).

Images become upright 8-bit RGB. The content of a file determines its format, not its name. Decoders of other formats
are never called, because some start other programs.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from harness.common.errors import DataError, ImageTooLargeError

# Pillow's names of formats. Its JPEG decoder also reads MPO, which some cameras write.
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
# Default limit of an image. Reading needs up to 16 bytes for each pixel: 1.6 GB.
MAX_PIXELS = 100_000_000
LARGE = 20_000_000  # pixels; threads read larger files one at a time, so that memory does not grow with the processors
ROWS = 256  # rows of an image in one step of a conversion
FULL_SCALE = 65535  # largest value of 16 bits
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

# `max_pixels` replaces Pillow's limits, which warn at 89 and stop at 179 megapixels, so that the message has a remedy.
Image.MAX_IMAGE_PIXELS = None


def open_upright(source: Path | BytesIO, name: object, max_pixels: int | None) -> tuple[Image.Image, tuple[str, ...]]:
    """Decode a file completely, so that a truncated file raises, and turn the image upright.

    Args:
        source: the file, or its content.
        name: of the file, for messages.
        max_pixels: largest allowed number of pixels; None without a limit.

    Returns:
        The image, and notes on its conversion.

    Raises:
        DataError: the file can't be decoded, or has too many pixels.
    """
    try:
        with Image.open(source, formats=FORMATS) as image:
            # The header states the size, so that the check comes before the image is decoded.
            if max_pixels is not None and image.width * image.height > max_pixels:
                raise ImageTooLargeError(
                    f"{name}: {image.width} x {image.height} pixels found, "
                    f"at most {max_pixels / 1e6:g} million expected."
                )
            return _upright(image)
    except ImageTooLargeError:
        raise
    # Pillow's decoders raise many types of exceptions for damaged files.
    except Exception as error:
        raise DataError(f"{name}: can't be read as an image ({_reason(source, error)}).") from error


def _upright(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    notes = []
    pages = getattr(image, "n_frames", 1)
    if pages > 1:
        notes.append(f"page {image.tell() + 1} of {pages}")
    # Pillow discards the file's bit depth when it decodes the file.
    if ";16" in str(getattr(image, "tile", "")) and not image.mode.startswith("I"):
        notes.append("upper 8 of 16 bits")
    image.load()
    if image.getexif().get(ORIENTATION) in range(2, 9):
        notes.append("turned upright")
        # `exif_transpose` copies every image, so it is called only where needed.
        image = ImageOps.exif_transpose(image)
    return image, tuple(notes)


def _reason(source: Path | BytesIO, error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, UnidentifiedImageError):
        empty = isinstance(source, Path) and not source.stat().st_size
        return "the file is empty" if empty else "no PNG, JPEG, BMP, TIFF or WebP"
    return f"{type(error).__name__}: {error}"


def probe(path: Path) -> tuple[int, int]:
    """(height, width) of an image after it is turned upright. The whole file is decoded.

    Raises:
        DataError: the file is missing, truncated, too large or no image.
    """
    image, _ = open_upright(path, path, MAX_PIXELS)
    return image.height, image.width


def pixels_of(path: Path) -> int:
    """The number of pixels of an image, from its header alone; 0 for a header that can't be read."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.width * image.height
    except Exception:  # noqa: BLE001  # `read` raises the error of a damaged file
        return 0


def is_large(path: Path) -> bool:
    """Whether threads should read an image one at a time."""
    return pixels_of(path) > LARGE


def upright_size(path: Path | str) -> tuple[int, int]:
    """(height, width) of an image after it is turned upright, from its header alone.

    Raises:
        DataError: the header can't be read.
    """
    width, height, _ = header(Path(path))
    with Image.open(path, formats=FORMATS) as image:
        # The last four orientations exchange height and width.
        return (width, height) if image.getexif().get(ORIENTATION) in range(5, 9) else (height, width)


def header(path: Path) -> tuple[int, int, str]:
    """(width, height, mode) of an image, from its header alone.

    Raises:
        DataError: the header can't be read.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.width, image.height, image.mode
    # Pillow's decoders raise many types of exceptions for damaged files.
    except Exception as error:
        raise DataError(f"{path}: can't be read as an image ({_reason(path, error)}).") from error


def read_image(path: Path | str) -> RGB:
    """An image as RGB, shape (height, width, 3), uint8, see `read`. No size limit: `FileIndex` checked the data set."""
    return read(path, max_pixels=None).pixels


@dataclass(frozen=True)
class Reading:
    """An image, and notes on its conversion.

    Attributes:
        pixels: RGB, shape (height, width, 3), uint8.
        notes: conversions, in a few words each; empty for a plain 8-bit RGB file.
    """

    pixels: RGB
    notes: tuple[str, ...] = ()


def read(path: Path | str, max_pixels: int | None = MAX_PIXELS) -> Reading:
    """Read an image file.

    The image is turned upright by its EXIF orientation. Grey of 16 bits or floats is scaled linearly to 8 bits, because
    Pillow's conversion would clip the values. Colours of 16 bits keep their upper 8 bits. Grey is repeated,
    transparency is ignored, and palettes and CMYK are converted. Of several pages the first is read.

    Args:
        path: of the file.
        max_pixels: largest allowed number of pixels; None without a limit.

    Raises:
        DataError: the file can't be read, is too large, or has values beyond full scale.
    """
    return _as_rgb(*open_upright(Path(path), path, max_pixels), str(path))


def from_bytes(content: bytes, name: str, max_pixels: int | None = MAX_PIXELS) -> Reading:
    """Read an image from the content of a file, see `read`.

    Args:
        content: of the file.
        name: of the file, for messages.
        max_pixels: largest allowed number of pixels; None without a limit.

    Raises:
        DataError: the content can't be decoded, is too large, or has values beyond full scale.
    """
    if not content:
        raise DataError(f"{name}: the file is empty.")
    return _as_rgb(*open_upright(BytesIO(content), name, max_pixels), name)


def from_pil(image: Image.Image) -> Reading:
    """Convert an open image of Pillow of any mode, see `read`.

    Raises:
        DataError: the file is damaged, or has values beyond full scale.
    """
    try:
        upright, notes = _upright(image)
    except Exception as error:
        raise DataError(f"image: can't be decoded ({type(error).__name__}: {error}).") from error
    return _as_rgb(upright, notes, "image")


def _as_rgb(image: Image.Image, notes: tuple[str, ...], name: str) -> Reading:
    mode = image.mode
    if mode.startswith("I"):
        pixels = _grey_to_rgb(np.asarray(image), FULL_SCALE, name)
        stored = "16-bit grey" if ";16" in mode else "32-bit grey, taken for 16 bits,"
        brightest = int(np.asarray(image).max(initial=0))
        if 255 < brightest < 4096:
            # A camera of 10 or 12 bits and a dark image of 16 bits have such values, so they are not scaled further.
            notes = (*notes, f"brightest value {brightest} of 65535: a camera of 12 bits or less?")
        return Reading(pixels, (*notes, f"{stored} scaled to 8 bits"))
    if mode == "F":
        pixels = _grey_to_rgb(np.asarray(image), 1, name)
        return Reading(pixels, (*notes, "float grey scaled to 8 bits"))
    if mode not in {"RGB", "RGBA", "RGBa"}:
        notes = (*notes, CONVERTED.get(mode, f"{mode} converted"))
    if mode in {"LA", "PA", "RGBA", "RGBa"} or "transparency" in image.info:
        notes = (*notes, "transparency ignored")
    try:
        # `convert` copies an image even if its mode is RGB.
        return Reading(np.asarray(image if mode == "RGB" else image.convert("RGB"), dtype=np.uint8), notes)
    except ValueError as error:
        raise DataError(f"{name}: pixels of mode {mode} found, which Pillow can't turn into RGB ({error}).") from error


def from_array(pixels: npt.NDArray[Any]) -> Reading:
    """Convert an array, see `read`.

    Args:
        pixels: uint8 or uint16, (height, width) grey or (height, width, 3) RGB.

    Raises:
        DataError: the array has another type or shape, or is empty.
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


def _grey_to_rgb(values: npt.NDArray[Any], full_scale: float, name: str) -> RGB:
    low, high = (float(values.min(initial=0)) / full_scale, float(values.max(initial=0)) / full_scale)
    if not (low >= 0 and high <= 1):
        raise DataError(f"{name}: grey values from {low:g} to {high:g} of full scale found, 0 to 1 expected.")
    rgb = np.empty((*values.shape, 3), dtype=np.uint8)
    # In steps of a few rows, because floats of a whole large image need more memory than the image.
    for row in range(0, len(values), ROWS):
        unit = values[row : row + ROWS].astype(np.float64) / full_scale
        rgb[row : row + ROWS] = np.rint(unit * 255).astype(np.uint8)[..., None]
    return rgb

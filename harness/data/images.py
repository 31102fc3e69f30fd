"""The only module that reads images and masks.

Images become upright 8-bit RGB, and masks become booleans. A pixel of a mask is anomalous if one of its channels is not
0. The content of a file determines its format, not its name. Decoders of other formats are never called, because some
start other programs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from harness.common.errors import DataError, ImageTooLargeError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
# Pillow's names of formats. Its JPEG decoder also reads MPO, which some cameras write.
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
# Default limit of an image. Reading needs up to 16 bytes for each pixel: 1.6 GB.
MAX_PIXELS = 100_000_000
# Folders that network storage, operating systems and editors create; hidden folders are ignored too.
LEFTOVERS = {
    "@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot", "$recycle.bin", "__macosx",
    "__pycache__", "lost+found", "recycler", "system volume information",
}  # fmt: skip

ROWS = 256  # rows of an image in one step of a conversion
MANY = 8  # values; a mask with more was smoothed or compressed with loss, one with fewer has classes
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
Mask = npt.NDArray[np.bool_]

# `max_pixels` replaces Pillow's limits, which warn at 89 and stop at 179 megapixels, so that the message has a remedy.
Image.MAX_IMAGE_PIXELS = None


def list_images(folder: Path, extensions: tuple[str, ...] = EXTENSIONS) -> list[Path]:
    """All images below a folder, sorted.

    Args:
        folder: links in it are followed; hidden files and folders, and `LEFTOVERS`, are ignored.
        extensions: of images, in lower case with a dot.

    Raises:
        DataError: a folder can't be read.
    """
    return sorted(
        path
        for parent, names in _walk(str(folder), ())
        for name in names
        if not name.startswith(".") and (path := Path(parent, name)).suffix.lower() in extensions and path.is_file()
    )


def _walk(folder: str, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, list[str]]]:
    """Each folder with the names of its files. A link to one of the folders above ends there."""
    try:
        status = Path(folder).stat()
        entries = list(os.scandir(folder))
    except OSError as error:
        raise DataError(f"{folder}: can't be read ({error.strerror}).") from error
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    yield folder, [entry.name for entry in entries if not _is_folder(entry)]
    for entry in entries:
        if _is_folder(entry) and not is_leftover(entry.name):
            yield from _walk(entry.path, (*above, identity))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_leftover(name: str) -> bool:
    """Whether a folder is hidden, a recycle bin, or created by network storage, and holds no images of the user."""
    return name.startswith(".") or name.lower() in LEFTOVERS


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in `folder` that may hold images, sorted."""
    return sorted(path.name for path in folder.iterdir() if not is_leftover(path.name) and path.is_dir())


def _open(path: Path, max_pixels: int | None) -> tuple[Image.Image, tuple[str, ...]]:
    """Decode a file completely, so that a truncated file raises, and turn the image upright.

    Returns:
        The image, and notes on its conversion.

    Raises:
        DataError: the file can't be decoded, or has too many pixels.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            _refuse_large(image, max_pixels)
            return _upright(image)
    except ImageTooLargeError as error:
        raise ImageTooLargeError(f"{path}: {error}") from error
    # Pillow's decoders raise many types of exceptions for damaged files.
    except Exception as error:
        raise DataError(f"{path}: {_unreadable(path, error)}") from error


def _refuse_large(image: Image.Image, max_pixels: int | None) -> None:
    """Check the number of pixels before the image is decoded."""
    if max_pixels is not None and image.width * image.height > max_pixels:
        raise ImageTooLargeError(
            f"{image.width} x {image.height} pixels found, at most {max_pixels / 1e6:g} million expected."
        )


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


def _unreadable(path: Path, error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"can't be read as an image ({error.strerror})."
    if isinstance(error, UnidentifiedImageError):
        empty = not path.stat().st_size
        return f"can't be read as an image ({'the file is empty' if empty else 'no PNG, JPEG, BMP, TIFF or WebP'})."
    return f"can't be read as an image ({type(error).__name__}: {error})."


def probe(path: Path) -> tuple[int, int]:
    """(height, width) of an image after it is turned upright. The whole file is decoded.

    Raises:
        DataError: the file is missing, truncated, too large or no image.
    """
    image, _ = _open(path, MAX_PIXELS)
    return image.height, image.width


def pixels_of(path: Path) -> int:
    """The number of pixels of an image, from its header alone; 0 for a header that can't be read."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.width * image.height
    except Exception:  # noqa: BLE001  # `read` raises the error of a damaged file
        return 0


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
    return _as_rgb(*_open(Path(path), max_pixels), str(path))


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
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            _refuse_large(image, max_pixels)
            upright, notes = _upright(image)
    except ImageTooLargeError as error:
        raise ImageTooLargeError(f"{name}: {error}") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{name}: can't be read as an image (no PNG, JPEG, BMP, TIFF or WebP).") from error
    # Pillow's decoders raise many types of exceptions for damaged files.
    except Exception as error:
        raise DataError(f"{name}: can't be read as an image ({type(error).__name__}: {error}).") from error
    return _as_rgb(upright, notes, name)


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


@dataclass(frozen=True)
class MaskReading:
    """A mask, and properties of its file.

    Attributes:
        pixels: shape (height, width), True is anomalous.
        grey: whether the file has values between 0 and the largest: JPEG, or smoothed edges.
        differs_from_v01: whether version 0.1 read another mask: by the brightness of colours, without transparency.
    """

    pixels: Mask
    grey: bool
    differs_from_v01: bool


def read_mask(path: Path | str, size: tuple[int, int] | None = None) -> Mask:
    """A mask as booleans; True is anomalous.

    Args:
        path: of the file.
        size: (height, width) of the result, resized by `resize_nearest`; None for the size of the file.

    Raises:
        DataError: see `mask_reading`.
    """
    mask = mask_reading(path, None).pixels
    return mask if size is None else resize_nearest(mask, size)


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
    image, _ = _open(Path(path), max_pixels)
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
    return MaskReading(pixels, grey, not np.array_equal(pixels, earlier))


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

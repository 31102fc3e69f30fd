"""The one place that reads images and masks.

Images come out as 8-bit RGB, upright; masks as booleans. What is anomalous in a mask: every pixel that is not 0 in some
channel. What a file is goes by its content, whatever it is called: decoders of other formats, some of which start other
programs, are never asked.
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
# Pillow's names of what is read; its JPEG takes what some cameras write as MPO, too.
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
# Of an image. Reading takes up to 16 bytes a pixel: 1.6 GB.
MAX_PIXELS = 100_000_000
# Folders that network storage, systems and editors leave behind; names that begin with a dot are left out anyway.
LEFTOVERS = {
    "@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot", "$recycle.bin", "__macosx",
    "__pycache__", "lost+found", "recycler", "system volume information",
}  # fmt: skip

ROWS = 256  # converted at a time
MANY = 8  # values; a mask with fewer has classes, one with more was smoothed or compressed with loss
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

# The limit is ours, so that one sentence says what to do. Pillow's own would warn at 89 and stop at 179 megapixels.
Image.MAX_IMAGE_PIXELS = None


def list_images(folder: Path, extensions: tuple[str, ...] = EXTENSIONS) -> list[Path]:
    """All images below `folder`, sorted. Linked folders are followed; hidden names and leftovers are left out."""
    return sorted(
        path
        for parent, names in _walk(str(folder), ())
        for name in names
        if not name.startswith(".") and (path := Path(parent, name)).suffix.lower() in extensions and path.is_file()
    )


def _walk(folder: str, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, list[str]]]:
    """Each folder with the names of its files; a link to a folder above is not followed again."""
    try:
        status = Path(folder).stat()
        entries = list(os.scandir(folder))
    except OSError as error:
        raise DataError(f"{folder}: can't be read ({error.strerror}).") from error
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    yield folder, [entry.name for entry in entries if not _is_folder(entry)]
    for entry in entries:
        if _is_folder(entry) and not is_leftover(entry.name):
            yield from _walk(entry.path, (*above, here))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_leftover(name: str) -> bool:
    """Whether a folder holds no images of the user: hidden ones, recycle bins, thumbnails of network storage."""
    return name.startswith(".") or name.lower() in LEFTOVERS


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in `folder` that may hold images, sorted."""
    return sorted(path.name for path in folder.iterdir() if not is_leftover(path.name) and path.is_dir())


def _open(path: Path, max_pixels: int | None) -> tuple[Image.Image, tuple[str, ...]]:
    """Decode a whole file, so that a truncated one is noticed, and turn it upright; also what was done.

    Raises:
        DataError: it can't be, or has too many pixels.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            _refuse_large(image, max_pixels)
            return _upright(image)
    except ImageTooLargeError as error:
        raise ImageTooLargeError(f"{path}: {error}") from error
    # Pillow's decoders raise nearly anything on damaged bytes.
    except Exception as error:
        raise DataError(f"{path}: {_unreadable(path, error)}") from error


def _refuse_large(image: Image.Image, max_pixels: int | None) -> None:
    """See that an image is not larger than it may be, before it is decoded."""
    if max_pixels is not None and image.width * image.height > max_pixels:
        raise ImageTooLargeError(
            f"{image.width} x {image.height} pixels found, at most {max_pixels / 1e6:g} million expected."
        )


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
        # Only then: it copies whatever it is given.
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
    """Decode `path` fully and give its (height, width), upright.

    Raises:
        DataError: the file is missing, truncated, too large or no image.
    """
    image, _ = _open(path, MAX_PIXELS)
    return image.height, image.width


def pixels_of(path: Path) -> int:
    """How many pixels an image has, by its header alone; 0 where that can't be read."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.width * image.height
    except Exception:  # noqa: BLE001  # whatever damaged bytes make Pillow raise; reading says what is wrong
        return 0


def read_image(path: Path | str) -> RGB:
    """An image as RGB, shape (height, width, 3), uint8; see `read`. Of any size: its data set was looked at before."""
    return read(path, max_pixels=None).pixels


@dataclass(frozen=True)
class Reading:
    """An image, and what was done to it.

    Attributes:
        pixels: RGB, shape (height, width, 3), uint8.
        notes: what was done beside decoding, a few words each; none for a plain 8-bit RGB file.
    """

    pixels: RGB
    notes: tuple[str, ...] = ()


def read(path: Path | str, max_pixels: int | None = MAX_PIXELS) -> Reading:
    """Read a file.

    Turned upright by its EXIF orientation. 16-bit and float grey is scaled linearly to 8 bits (a plain conversion
    would clip it), of 16-bit colours the upper 8 are taken; grey is repeated, transparency ignored, palettes and CMYK
    converted; of several pages the first is taken.

    Args:
        path: of the file.
        max_pixels: that it may have; None for any number.

    Raises:
        DataError: the file can't be read, is too large, or has values beyond full scale.
    """
    return _as_rgb(*_open(Path(path), max_pixels), str(path))


def from_bytes(content: bytes, name: str, max_pixels: int | None = MAX_PIXELS) -> Reading:
    """As `read`, of a file's content.

    Args:
        content: of the file.
        name: for messages.
        max_pixels: that it may have; None for any number.

    Raises:
        DataError: as `read`.
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
    # Pillow's decoders raise nearly anything on damaged bytes.
    except Exception as error:
        raise DataError(f"{name}: can't be read as an image ({type(error).__name__}: {error}).") from error
    return _as_rgb(upright, notes, name)


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
        pixels = _grey_to_rgb(np.asarray(image), FULL_SCALE, name)
        stored = "16-bit grey" if ";16" in mode else "32-bit grey, taken for 16 bits,"
        brightest = int(np.asarray(image).max(initial=0))
        if 255 < brightest < 4096:
            # Cameras of 10 and 12 bits; not stretched, since a dark picture of 16 bits looks the same.
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
        # Pillow copies an image whose mode it does not have to change.
        return Reading(np.asarray(image if mode == "RGB" else image.convert("RGB"), dtype=np.uint8), notes)
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


def _grey_to_rgb(values: npt.NDArray[Any], full: float, name: str) -> RGB:
    low, high = (float(values.min(initial=0)) / full, float(values.max(initial=0)) / full)
    if not (low >= 0 and high <= 1):
        raise DataError(f"{name}: grey values from {low:g} to {high:g} of full scale found, 0 to 1 expected.")
    rgb = np.empty((*values.shape, 3), dtype=np.uint8)
    # A few rows at a time: floats of a whole large image would take more memory than the image.
    for row in range(0, len(values), ROWS):
        unit = values[row : row + ROWS].astype(np.float64) / full
        rgb[row : row + ROWS] = np.rint(unit * 255).astype(np.uint8)[..., None]
    return rgb


@dataclass(frozen=True)
class MaskReading:
    """A mask, and what there is to know of its file.

    Attributes:
        pixels: shape (height, width), True is anomalous.
        grey: whether it has values between none and full: JPEG, or smoothed edges.
        otherwise: whether version 0.1 read it as another mask: by the brightness of its colours, whatever its
            transparency.
    """

    pixels: Mask
    grey: bool
    otherwise: bool


def read_mask(path: Path | str, size: tuple[int, int] | None = None) -> Mask:
    """A mask as booleans, shape `size` = (height, width) or the file's own; True is anomalous.

    Resizing takes the nearest pixel (index floor(i * in / out), Torch's `nearest`), so a mask stays binary.

    Raises:
        DataError: see `mask_reading`.
    """
    mask = mask_reading(path, None).pixels
    return mask if size is None else resize_nearest(mask, size)


def mask_reading(path: Path | str, max_pixels: int | None = MAX_PIXELS) -> MaskReading:
    """Read a mask: anomalous is what is not 0 in some channel.

    Of a mask with transparent parts, what is not transparent is anomalous: it was painted on a layer.

    Args:
        path: of the file.
        max_pixels: that it may have; None for any number.

    Raises:
        DataError: the file can't be read or is too large; it is transparent everywhere; or what is not transparent is
            partly black, so that nobody can know which of the two is meant.
    """
    image, _ = _open(Path(path), max_pixels)
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        if not np.isfinite(values).all():
            raise DataError(f"{path}: values found that are no numbers, a mask of finite values expected.")
        marked: Mask = np.asarray(values != 0, dtype=np.bool_)
        return MaskReading(marked, len(np.unique(values)) > MANY, bool((values < 0).any()))
    before: Mask = np.asarray(image.convert("L"), dtype=np.uint8) > 0
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
    return MaskReading(pixels, grey, not np.array_equal(pixels, before))


def _painted(alpha: npt.NDArray[np.uint8], coloured: Mask, path: str) -> Mask:
    """What was painted on a transparent layer."""
    opaque: Mask = alpha > 0
    if not opaque.any():
        raise DataError(f"{path}: a mask that is transparent everywhere found; expected one with an anomalous region.")
    black = not coloured[opaque].any()
    if black and coloured[~opaque].any():
        raise DataError(
            f"{path}: a mask whose opaque part is black and whose transparent part is not found: either may be meant. "
            "Save it without transparency: 0 where the part is normal, 255 where it is anomalous."
        )
    if not black and not coloured[opaque].all():
        raise DataError(
            f"{path}: a mask with transparent parts found, whose other parts are black and coloured. Save it without "
            "transparency: 0 where the part is normal, 255 where it is anomalous."
        )
    return opaque


def _is_grey(values: npt.NDArray[Any]) -> bool:
    """Whether some value lies between 0 and the largest."""
    if values.dtype == np.bool_:
        return False
    return bool(((values > 0) & (values < values.max(initial=0))).any()) and len(np.unique(values)) > MANY


def resize_nearest(mask: Mask, size: tuple[int, int]) -> Mask:
    """Nearest-neighbour resize of a 2-D array to (height, width)."""
    rows = np.arange(size[0]) * mask.shape[0] // size[0]
    columns = np.arange(size[1]) * mask.shape[1] // size[1]
    resized: Mask = mask[rows[:, None], columns[None, :]]
    return resized

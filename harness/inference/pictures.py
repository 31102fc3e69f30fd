"""Overlay, map and outline of one image, as files."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from harness.common.errors import ConfigError, DataError, StoreError
from harness.data.images import RGB
from harness.inference.result import Result
from harness.predictions.decision import Thresholds, normalize
from harness.predictions.detection import Floats
from harness.predictions.drawing import Span, line_width, outlined, overlay

MapFormat = Literal["tiff", "png"]
QUALITY = 92
JPEG_SIDE = 65500
LARGEST = 65535
LONGEST = 80  # characters of a file name
FATAL = {errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EIO}


def check_map_format(map_format: MapFormat, thresholds: Thresholds) -> None:
    """Check that maps can be written in this format. A PNG needs a threshold and a scale for its 16 bits.

    Args:
        map_format: tiff or png.
        thresholds: raw thresholds and scales of the model.

    Raises:
        ConfigError: the format is png, and there is no pixel threshold or no scale.
    """
    if map_format == "png" and (thresholds.pixel is None or thresholds.pixel_scale is None):
        raise ConfigError(
            "--map: png found, but this model has no "
            + ("pixel threshold" if thresholds.pixel is None else "scale (threshold minus median of normal pixels)")
            + ", so maps can't be normalised to 16 bits; expected tiff, which holds raw values."
        )


def stems(paths: Iterable[Path]) -> dict[Path, str]:
    """Map each image to a stem for its pictures, relative to the folder common to all. All stems differ."""
    absolute = {path: path.absolute() for path in paths}
    parents = [path.parent.parts for path in absolute.values()]
    common = 0
    while parents and all(len(p) > common for p in parents) and len({p[common] for p in parents}) == 1:
        common += 1
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for path, full in absolute.items():
        folders = [_safe_name(folder) for folder in full.parts[common:-1]]
        name = "/".join([*folders, _safe_name(full.stem)])
        for candidate in (name, f"{name}{full.suffix.replace('.', '-')}", *(f"{name}-{i}" for i in range(2, 10**6))):
            if candidate.lower() not in taken:
                break
        # Some file systems ignore the case of names.
        taken.add(candidate.lower())
        names[path] = candidate
    return names


def _safe_name(name: str) -> str:
    """A folder or file name that every system allows; never `.` or `..`, and short enough for a suffix."""
    return re.sub(r"[^\w .+()-]+", "-", name).strip(" .")[:LONGEST] or "image"


def write_pictures(folder: Path, stem: str, pixels: RGB, result: Result, map_format: MapFormat) -> None:
    """Write `<stem>.overlay.jpg`, `<stem>.map.tiff` (or .png), and with a threshold `<stem>.outline.jpg`.

    All pictures have the image's own size. A TIFF holds the raw map as 32-bit floats, NaN outside the centre crop. A
    PNG holds the normalised map in 16 bits, 32768 at the pixel threshold, 0 outside the centre crop. A result without a
    map has no pictures.

    Args:
        folder: folder of all pictures; created if missing.
        stem: start of the file names, relative to `folder`.
        pixels: the image, uint8 RGB of shape (height, width, 3).
        result: the prediction for the image.
        map_format: tiff or png.

    Raises:
        StoreError: the folder can't be written.
        DataError: the pictures of this image can't be written.
    """
    full_map = result.map_at_image_size()
    if full_map is None:
        return
    target = folder / stem
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        span = result.thresholds.span or value_range(full_map)
        _write_jpeg(target.with_name(f"{target.name}.overlay.jpg"), overlay(pixels, full_map, span))
        if result.thresholds.pixel is not None:
            drawn = outlined(pixels, full_map, result.thresholds.pixel, line_width(result.image_size))
            _write_jpeg(target.with_name(f"{target.name}.outline.jpg"), drawn)
        _write_map(target.with_name(f"{target.name}.map.{map_format}"), full_map, result.thresholds, map_format)
    except OSError as error:
        error_type = StoreError if error.errno in FATAL else DataError
        raise error_type(f"{target}: pictures can't be written ({error.strerror or error}).") from error


def value_range(anomaly_map: Floats) -> Span:
    """The smallest and the largest value of a map: its colour scale if the model has no threshold."""
    return float(np.nanmin(anomaly_map)), float(np.nanmax(anomaly_map))


def _write_map(file: Path, full_map: Floats, thresholds: Thresholds, map_format: MapFormat) -> None:
    if map_format == "tiff":
        Image.fromarray(full_map).save(file, compression="tiff_adobe_deflate")
        return
    assert thresholds.pixel is not None
    assert thresholds.pixel_scale is not None
    normalized = normalize(full_map, thresholds.pixel, thresholds.pixel_scale)
    steps: npt.NDArray[np.uint16] = np.nan_to_num(np.rint(normalized * LARGEST), nan=0).astype(np.uint16)
    Image.fromarray(steps).save(file)


def _write_jpeg(file: Path, picture: RGB) -> None:
    if max(picture.shape) > JPEG_SIDE:
        raise OSError(f"a side of {max(picture.shape)} pixels found; a JPEG has at most {JPEG_SIDE}")
    _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    file.write_bytes(data.tobytes())

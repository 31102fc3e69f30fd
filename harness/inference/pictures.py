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
LONGEST = 80  # characters of a name
FATAL = {errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EIO}


def check_map_format(map_format: MapFormat, thresholds: Thresholds) -> None:
    """Whether maps can be written so.

    Raises:
        ConfigError: a PNG has whole numbers only, and without a threshold there is nothing to scale by.
    """
    if map_format == "png" and (thresholds.pixel is None or thresholds.pixel_scale is None):
        raise ConfigError(
            "--map: png found, but for this model there is "
            + ("no pixel threshold" if thresholds.pixel is None else "no scale of pixels above those of normal images")
            + ", so nothing to bring all maps to 16 bits by; expected tiff, which has raw values."
        )


def stems(paths: Iterable[Path]) -> dict[Path, str]:
    """A name for the files of each image, relative to what all have in common; no two alike, whatever the suffixes."""
    known = list(paths)
    absolute = {path: path.absolute() for path in known}
    parents = [path.parent.parts for path in absolute.values()]
    common = 0
    while parents and all(len(p) > common for p in parents) and len({p[common] for p in parents}) == 1:
        common += 1
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for path, whole in absolute.items():
        parts = [_plain(part) for part in whole.parts[common:-1]]
        name = "/".join([*parts, _plain(whole.stem)])
        for candidate in (name, f"{name}{whole.suffix.replace('.', '-')}", *(f"{name}-{i}" for i in range(2, 10**6))):
            if candidate.lower() not in taken:
                break
        # Some file systems do not tell upper from lower case.
        taken.add(candidate.lower())
        names[path] = candidate
    return names


def _plain(part: str) -> str:
    """A part of a path that is a name on every system, and neither `.` nor `..`; not too long for what is added."""
    return re.sub(r"[^\w .+()-]+", "-", part).strip(" .")[:LONGEST] or "image"


def write_pictures(folder: Path, stem: str, pixels: RGB, result: Result, map_format: MapFormat) -> None:
    """`<stem>.overlay.jpg`, `<stem>.map.tiff` (or .png), and with a threshold `<stem>.outline.jpg`.

    All have the image's own size. A TIFF holds the raw map as 32-bit floats, NaN where the model did not look; a PNG
    16-bit `normalize` of it, 32768 at the pixel threshold, 0 where the model did not look.

    Raises:
        StoreError: nothing can be written there.
        DataError: those of this image can't.
    """
    whole = result.map_at_image_size()
    if whole is None:
        return
    target = folder / stem
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        span = result.thresholds.span or own_span(whole)
        _write_jpeg(target.with_name(f"{target.name}.overlay.jpg"), overlay(pixels, whole, span))
        if result.thresholds.pixel is not None:
            drawn = outlined(pixels, whole, result.thresholds.pixel, line_width(result.image_size))
            _write_jpeg(target.with_name(f"{target.name}.outline.jpg"), drawn)
        _write_map(target.with_name(f"{target.name}.map.{map_format}"), whole, result.thresholds, map_format)
    except OSError as error:
        kind = StoreError if error.errno in FATAL else DataError
        raise kind(f"{target}: pictures can't be written ({error.strerror or error}).") from error


def own_span(anomaly_map: Floats) -> Span:
    """Colour scale of a map that nothing else is known of: its own values."""
    return float(np.nanmin(anomaly_map)), float(np.nanmax(anomaly_map))


def _write_map(file: Path, whole: Floats, thresholds: Thresholds, map_format: MapFormat) -> None:
    if map_format == "tiff":
        Image.fromarray(whole).save(file, compression="tiff_adobe_deflate")
        return
    assert thresholds.pixel is not None
    assert thresholds.pixel_scale is not None
    unit = normalize(whole, thresholds.pixel, thresholds.pixel_scale)
    steps: npt.NDArray[np.uint16] = np.nan_to_num(np.rint(unit * LARGEST), nan=0).astype(np.uint16)
    Image.fromarray(steps).save(file)


def _write_jpeg(file: Path, picture: RGB) -> None:
    if max(picture.shape) > JPEG_SIDE:
        raise OSError(f"a side of {max(picture.shape)} pixels, where a JPEG has at most {JPEG_SIDE}")
    _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    file.write_bytes(data.tobytes())

"""Overlay, map and outline of one image, as files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from harness.cut import Cut, normalize
from harness.drawing import Span, line_width, outlined, overlay
from harness.errors import ConfigError, StoreError
from harness.images import RGB
from harness.inference.result import Result
from harness.predictions import Floats

MapFormat = Literal["tiff", "png"]
QUALITY = 92
LARGEST = 65535


def check_map_format(map_format: MapFormat, cut: Cut) -> None:
    """Whether maps can be written so.

    Raises:
        ConfigError: a PNG has whole numbers only, and without a threshold there is nothing to scale by.
    """
    if map_format == "png" and (cut.pixel is None or cut.pixel_scale is None):
        raise ConfigError(
            "--map: png found, but this run fixed no pixel threshold from normal images, so there is no scale for its "
            "maps that holds for all images; expected tiff, which has raw values."
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
        parts = [re.sub(r"[^A-Za-z0-9._ +-]+", "-", part) for part in whole.parts[common:]]
        stem = "/".join(part for part in parts[:-1] if part not in {"..", "."})
        name = f"{stem}/{Path(parts[-1]).stem}" if stem else Path(parts[-1]).stem
        for candidate in (name, f"{name}{whole.suffix.replace('.', '-')}", *(f"{name}-{i}" for i in range(2, 10**6))):
            if candidate.lower() not in taken:
                break
        # Some file systems do not tell upper from lower case.
        taken.add(candidate.lower())
        names[path] = candidate
    return names


def write_pictures(folder: Path, stem: str, pixels: RGB, result: Result, map_format: MapFormat) -> None:
    """`<stem>.overlay.jpg`, `<stem>.map.tiff` (or .png), and with a threshold `<stem>.outline.jpg`.

    All have the image's own size. A TIFF holds the raw map as 32-bit floats, NaN where the model did not look; a PNG
    16-bit `normalize` of it, 32768 at the pixel threshold, 0 where the model did not look.

    Raises:
        StoreError: one can't be written.
    """
    whole = result.map_at_image_size()
    if whole is None:
        return
    target = folder / stem
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        span = result.cut.span or own_span(whole)
        _write_jpeg(target.with_name(f"{target.name}.overlay.jpg"), overlay(pixels, whole, span))
        if result.cut.pixel is not None:
            drawn = outlined(pixels, whole, result.cut.pixel, line_width(result.image_size))
            _write_jpeg(target.with_name(f"{target.name}.outline.jpg"), drawn)
        _write_map(target.with_name(f"{target.name}.map.{map_format}"), whole, result.cut, map_format)
    except OSError as error:
        raise StoreError(f"{target}: pictures can't be written ({error.strerror or error}).") from error


def own_span(anomaly_map: Floats) -> Span:
    """Colour scale of a map that nothing else is known of: its own values."""
    return float(np.nanmin(anomaly_map)), float(np.nanmax(anomaly_map))


def _write_map(file: Path, whole: Floats, cut: Cut, map_format: MapFormat) -> None:
    if map_format == "tiff":
        Image.fromarray(whole).save(file, compression="tiff_adobe_deflate")
        return
    assert cut.pixel is not None
    assert cut.pixel_scale is not None
    unit = normalize(whole, cut.pixel, cut.pixel_scale)
    steps: npt.NDArray[np.uint16] = np.nan_to_num(np.rint(unit * LARGEST), nan=0).astype(np.uint16)
    Image.fromarray(steps).save(file)


def _write_jpeg(file: Path, picture: RGB) -> None:
    done, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not done:
        raise OSError("JPEG has at most 65535 pixels a side")
    file.write_bytes(data.tobytes())

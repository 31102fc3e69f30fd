"""Anomaly maps as colours, alone and over their images."""

from __future__ import annotations

import cv2
import numpy as np

from harness.data.images import RGB
from harness.predictions.detection import Floats, centre

OUTLINE = (255, 60, 160)  # does not occur in the colour map
# Map values at the two ends of the colour scale.
Span = tuple[float, float]


def heat(anomaly_map: Floats, span: Span) -> RGB:
    """The map in Viridis: dark for `span[0]` and less, yellow for `span[1]` and more, dark for NaN.

    Args:
        anomaly_map: (height, width).
        span: (low, high) in the map's units.
    """
    low, high = span
    unit = np.clip((np.nan_to_num(anomaly_map, nan=low) - low) / max(high - low, 1e-12), 0, 1)
    colours = cv2.applyColorMap((unit * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    return np.asarray(cv2.cvtColor(colours, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def overlay(image: RGB, anomaly_map: Floats, span: Span, opacity: float = 0.5) -> RGB:
    """The colours of `heat` over the image; pixels where the map is NaN show the image alone.

    Args:
        image: (height, width, 3).
        anomaly_map: (height, width).
        span: see `heat`.
        opacity: 0 for the image alone, 1 for the colours alone.
    """
    mixed = cv2.addWeighted(image, 1 - opacity, heat(anomaly_map, span), opacity, 0)
    outside = np.isnan(anomaly_map)
    mixed[outside] = image[outside]
    return np.asarray(mixed, dtype=np.uint8)


def outlined(image: RGB, anomaly_map: Floats, threshold: float, width: int = 2) -> RGB:
    """The image with a line around each region above the threshold.

    Args:
        image: (height, width, 3).
        anomaly_map: (height, width).
        threshold: in the map's units.
        width: thickness of the line in pixels.
    """
    above = (anomaly_map > threshold).astype(np.uint8)
    contours, _ = cv2.findContours(above, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    drawn = np.ascontiguousarray(image).copy()
    cv2.drawContours(drawn, contours, -1, OUTLINE, width)
    return drawn


def seen_part(
    image: tuple[int, int], resized: tuple[int, int] | None, map_size: tuple[int, int]
) -> tuple[slice, slice]:
    """The region of an image that its map covers.

    Args:
        image: (height, width) of the image.
        resized: (height, width) of the resized image before the centre crop; None without a crop.
        map_size: (height, width) of the map.

    Returns:
        Rows and columns, in pixels of the image.
    """
    if resized is None:
        return slice(0, image[0]), slice(0, image[1])
    slices = []
    for side, whole, size, begin in zip(image, resized, map_size, centre(resized, map_size), strict=True):
        first, last = (min(max(round(edge * side / whole), 0), side) for edge in (begin, begin + size))
        # A side of one or two pixels must keep one.
        slices.append(slice(first, last) if last > first else slice(min(first, side - 1), min(first, side - 1) + 1))
    return slices[0], slices[1]


def at_image_size(anomaly_map: Floats, image: tuple[int, int], resized: tuple[int, int] | None) -> Floats:
    """A map resized bilinearly to its image; pixels outside the model's input are NaN.

    Args:
        anomaly_map: (height, width).
        image, resized: see `seen_part`.
    """
    rows, columns = seen_part(image, resized, (anomaly_map.shape[0], anomaly_map.shape[1]))
    whole = np.full(image, np.nan, dtype=np.float32)
    size = (columns.stop - columns.start, rows.stop - rows.start)
    whole[rows, columns] = cv2.resize(anomaly_map, size, interpolation=cv2.INTER_LINEAR)
    return whole


def line_width(image: tuple[int, int]) -> int:
    """Thickness, in pixels, of an outline that is visible on an image of that (height, width)."""
    return max(2, round(max(image) / 300))

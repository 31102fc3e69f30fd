"""Pictures of single test images with four panels: image, anomaly map, mask, and outline of the predicted defect."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from harness.common import threads
from harness.data.images import RGB, read_image
from harness.predictions.decision import Thresholds
from harness.predictions.detection import Predictions
from harness.predictions.drawing import Span, heat, outlined, seen_part

FOLDER = "heatmaps"
COUNT = 9  # most pictures of a run
PANELS = 4
SMALLEST, LARGEST = 256, 384  # pixels of a panel's longer side
QUALITY = 88
KEPT = 64  # panels in memory, of at most half a megabyte each
# Reasons to show an image, the most important reason first.
ROLES = ("missed", "false-alarm", "lowest-anomalous", "highest-normal", "highest-anomalous")


@dataclass(frozen=True)
class GalleryImage:
    """A test image of the gallery.

    Attributes:
        role: one of `ROLES`.
        index: of the image in the test set.
    """

    role: str
    index: int


def draw_gallery(folder: Path, test: Predictions, thresholds: Thresholds) -> list[dict[str, Any]]:
    """Write some pictures under heatmaps/. All pictures have the same colour scale, for the maps of the whole test set.

    Args:
        folder: of the run.
        test: predictions for the test images.
        thresholds: of the run.

    Returns:
        File, role, image and size of each picture, missed images first.
    """
    (folder / FOLDER).mkdir()
    span = (0.0, 1.0)
    if test.maps is not None:
        low, high = np.quantile(test.maps[:, ::4, ::4], [0.02, 0.998])
        span = (float(low), float(high))
    images = select_images(test, thresholds.image)

    def write(number: int) -> dict[str, Any]:
        role, index = images[number].role, images[number].index
        sample = test.samples[index]
        anomaly_map, mask = (None if arrays is None else arrays[index] for arrays in (test.maps, test.masks))
        map_size = None if anomaly_map is None else (anomaly_map.shape[0], anomaly_map.shape[1])
        image = _panel(sample.path, Path(sample.path).stat().st_mtime_ns, test.resized, map_size)
        picture = draw(image, anomaly_map, mask, thresholds.pixel, span)
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(sample.name).with_suffix("").as_posix())
        file = f"{FOLDER}/{number}-{role}-{name[-80:]}.jpg"
        bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        success, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        assert success
        (folder / file).write_bytes(jpeg.tobytes())
        return {
            "file": file,
            "role": role,
            "name": sample.name,
            "defect": sample.defect,
            "label": sample.label,
            "score": float(test.scores[index]),
            "width": picture.shape[1],
            "height": picture.shape[0],
        }

    # OpenCV decodes and encodes without Python's lock. In a sweep of fast runs the gallery takes most of the time.
    with ThreadPoolExecutor(threads.count()) as pool:
        return list(pool.map(write, range(len(images))))


def select_images(test: Predictions, threshold: float | None) -> list[GalleryImage]:
    """Select anomalous images with low scores, normal images with high scores, and the most anomalous images.

    A wrong prediction comes before a right prediction, and takes its place where `COUNT` is too small.

    Args:
        test: predictions for the test images.
        threshold: of the image scores; None for no threshold, so no wrong predictions.
    """
    order = np.argsort(test.scores, kind="stable")
    anomalous = [int(i) for i in order if test.labels[i]]
    lowest = [_with_role("lowest-anomalous", i, test, threshold) for i in anomalous]
    highest = [_with_role("highest-normal", int(i), test, threshold) for i in order[::-1] if not test.labels[i]]
    third = COUNT // 3
    selection = lowest[:third] + highest[:third]
    errors = [image for image in lowest[third:] + highest[third:] if image.role in ROLES[:2]]
    selection += errors[: COUNT - len(selection)]
    indices = {image.index for image in selection}
    rest = [_with_role("highest-anomalous", i, test, threshold) for i in anomalous[::-1] if i not in indices]
    selection += rest[: COUNT - len(selection)]
    return sorted(selection, key=lambda image: ROLES.index(image.role))


def _with_role(role: str, index: int, test: Predictions, threshold: float | None) -> GalleryImage:
    """A test image with a role, or with the role of a wrong prediction."""
    anomalous = bool(test.labels[index])
    if threshold is not None and (test.scores[index] > threshold) != anomalous:
        role = "missed" if anomalous else "false-alarm"
    return GalleryImage(role, index)


@lru_cache(maxsize=KEPT)
def _panel(path: str, changed: int, resized: tuple[int, int] | None, map_size: tuple[int, int] | None) -> RGB:
    """The part of an image that the map covers, at the size of a panel. The runs of a sweep show the same images."""
    del changed  # A changed file is another image.
    image = read_image(path)
    if map_size is not None:
        image = image[seen_part((image.shape[0], image.shape[1]), resized, map_size)]
    return _at_size(image, map_size or (image.shape[0], image.shape[1]))


def _at_size(image: RGB, proportions: tuple[int, int]) -> RGB:
    """Resize an image to a panel with the proportions (height, width) of a map."""
    rows, columns = proportions
    longer = max(rows, columns)
    scale = min(max(longer, SMALLEST), LARGEST) / longer
    size = (round(columns * scale), round(rows * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def draw(
    image: RGB,
    anomaly_map: npt.NDArray[np.float32] | None,
    mask: npt.NDArray[np.bool_] | None,
    threshold: float | None,
    span: Span,
) -> RGB:
    """Draw four panels of equal width in one row: image, map, mask, and image with the outline of the predicted defect.

    Args:
        image: RGB, any size; resized to the proportions of the map.
        anomaly_map: shape (height, width), raw scores; None for a grey panel.
        mask: shape (height, width); None for a grey panel.
        threshold: of the pixel scores; None for no outline.
        span: scores at the ends of the colour scale (viridis).

    Returns:
        Shape (height, 4 * width, 3), RGB.
    """
    rows, columns = image.shape[:2] if anomaly_map is None else anomaly_map.shape
    small = _at_size(image, (rows, columns))
    size = (small.shape[1], small.shape[0])
    heatmap, truth, outline = np.full_like(small, 128), np.full_like(small, 128), small.copy()
    if mask is not None:
        grey = cv2.resize(mask.astype(np.uint8) * 255, size, interpolation=cv2.INTER_NEAREST)
        truth = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), dtype=np.uint8)
    if anomaly_map is not None:
        scores = np.asarray(cv2.resize(anomaly_map, size, interpolation=cv2.INTER_LINEAR), dtype=np.float32)
        heatmap = heat(scores, span)
        if threshold is not None:
            outline = outlined(small, scores, threshold)
    return np.concatenate([small, heatmap, truth, outline], axis=1)

"""Pictures of single test images: the image, its anomaly map, the mask and the predicted outline, side by side."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from harness.data.images import RGB, read_image
from harness.predictions.decision import Thresholds
from harness.predictions.detection import Predictions
from harness.predictions.drawing import Span, heat, outlined, seen_part

FOLDER = "heatmaps"
COUNT = 9
PANELS = 4
SMALLEST, LARGEST = 256, 384  # pixels of a panel's longer side
QUALITY = 88
# Why a picture is there, what matters most first.
ROLES = ("missed", "false-alarm", "lowest-anomalous", "highest-normal", "highest-anomalous")


@dataclass(frozen=True)
class Chosen:
    """A test image to draw, and why."""

    role: str
    index: int


def draw_gallery(folder: Path, test: Predictions, thresholds: Thresholds) -> list[dict[str, Any]]:
    """Write a few pictures under heatmaps/, and give what there is to know of each, missed ones first.

    Colours span the maps of the whole test set, so they can be compared.
    """
    (folder / FOLDER).mkdir()
    span = (0.0, 1.0)
    if test.maps is not None:
        low, high = np.quantile(test.maps[:, ::4, ::4], [0.02, 0.998])
        span = (float(low), float(high))
    chosen = choose(test, thresholds.image)

    def write(number: int) -> dict[str, Any]:
        role, index = chosen[number].role, chosen[number].index
        sample = test.samples[index]
        anomaly_map, mask = (None if found is None else found[index] for found in (test.maps, test.masks))
        image = read_image(sample.path)
        if anomaly_map is not None:
            height, width = image.shape[:2]
            image = image[seen_part((height, width), test.resized, (anomaly_map.shape[0], anomaly_map.shape[1]))]
        picture = draw(image, anomaly_map, mask, thresholds.pixel, span)
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(sample.name).with_suffix("").as_posix())
        file = f"{FOLDER}/{number}-{role}-{name[-80:]}.jpg"
        done, jpeg = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        assert done
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

    # Decoding and encoding let other threads run; in a grid of cheap runs this is most of what a run costs.
    with ThreadPoolExecutor() as pool:
        return list(pool.map(write, range(len(chosen))))


def choose(test: Predictions, threshold: float | None, count: int = COUNT) -> list[Chosen]:
    """The anomalous images with the lowest scores and the normal ones with the highest, then the most anomalous ones.

    Each at most once; those on the wrong side of the threshold come first, and take the places of the last.
    """
    order = np.argsort(test.scores, kind="stable")
    bad = [int(i) for i in order if test.labels[i]]
    good = [int(i) for i in order if not test.labels[i]]
    third = max(1, count // 3)
    picked = [Chosen("lowest-anomalous", i) for i in bad[:third]]
    picked += [Chosen("highest-normal", i) for i in good[::-1][:third]]
    further = [Chosen("lowest-anomalous", i) for i in bad[third:]]
    further += [Chosen("highest-normal", i) for i in good[::-1][third:]]
    wrong = [
        one for one in further if _wrong(one, bool(test.labels[one.index]), test.scores[one.index], threshold) != one
    ]
    picked += wrong[: count - len(picked)]
    taken = {one.index for one in picked}
    rest = [i for i in bad[::-1] if i not in taken]
    picked += [Chosen("highest-anomalous", i) for i in rest[: count - len(picked)]]
    named = [_wrong(one, bool(test.labels[one.index]), float(test.scores[one.index]), threshold) for one in picked]
    return sorted(named, key=lambda one: ROLES.index(one.role))


def _wrong(one: Chosen, anomalous: bool, score: float, threshold: float | None) -> Chosen:
    if threshold is None or (score > threshold) == anomalous:
        return one
    return Chosen("missed" if anomalous else "false-alarm", one.index)


def draw(
    image: RGB,
    anomaly_map: npt.NDArray[np.float32] | None,
    mask: npt.NDArray[np.bool_] | None,
    threshold: float | None,
    span: Span,
) -> RGB:
    """Four panels of equal width in one row: image, map, mask, image with the outline of what is called anomalous.

    Args:
        image: RGB, any size; brought to the map's proportions.
        anomaly_map: shape (height, width), raw, or None: then the panel stays grey.
        mask: shape (height, width), or None: then the panel stays grey.
        threshold: of pixels; None: then there is no outline.
        span: what the ends of the colour scale (viridis) stand for.
    """
    rows, columns = image.shape[:2] if anomaly_map is None else anomaly_map.shape
    longer = max(rows, columns)
    scale = min(max(longer, SMALLEST), LARGEST) / longer
    size = (round(columns * scale), round(rows * scale))
    small: RGB = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    warm, truth, edged = np.full_like(small, 128), np.full_like(small, 128), small.copy()
    if mask is not None:
        grey = cv2.resize(mask.astype(np.uint8) * 255, size, interpolation=cv2.INTER_NEAREST)
        truth = np.repeat(np.asarray(grey, dtype=np.uint8)[..., None], 3, axis=2)
    if anomaly_map is not None:
        finer = np.asarray(cv2.resize(anomaly_map, size, interpolation=cv2.INTER_LINEAR), dtype=np.float32)
        warm = heat(finer, span)
        if threshold is not None:
            edged = outlined(small, finer, threshold)
    return np.concatenate([small, warm, truth, edged], axis=1)

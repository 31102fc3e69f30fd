"""What a person looks at in a run's folder: scores.csv and a few heatmaps."""

from __future__ import annotations

import csv
import io
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from harness.images import RGB, read_image
from harness.metrics.thresholds import Thresholds
from harness.predictions import Predictions
from harness.store import write_atomic

COLUMNS = ("path", "label", "defect_type", "score", "predicted_label")
GAP = 4  # pixels between the pictures of one heatmap
OUTLINE = (255, 60, 160)  # of the mask; does not occur in the colour map


def write_scores(folder: Path, test: Predictions, thresholds: Thresholds) -> None:
    """scores.csv: one row a test image; the predicted label is blank where there is no threshold."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for sample, score in zip(test.samples, test.scores, strict=True):
        predicted = "" if thresholds.image is None else int(score > thresholds.image)
        writer.writerow([sample.name, sample.label, sample.defect, repr(float(score)), predicted])
    write_atomic(folder / "scores.csv", text.getvalue())


def write_heatmaps(folder: Path, test: Predictions, count: int = 8) -> None:
    """A few PNGs under heatmaps/: the image, the map, and the image with the mask's outline, side by side.

    Chosen: the anomalous images with the lowest scores, the normal ones with the highest (where the model is most
    likely wrong), and the most anomalous ones. Colours span the maps of the whole test set, so they can be compared.
    """
    if test.maps is None:
        return
    target = folder / "heatmaps"
    target.mkdir()
    low, high = np.quantile(test.maps[:, ::4, ::4], [0.02, 0.998])

    def write(role: str, index: int) -> None:
        assert test.maps is not None
        sample = test.samples[index]
        mask = None if test.masks is None else test.masks[index]
        picture = draw(read_image(sample.path), test.maps[index], mask, float(low), float(high))
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(sample.name).with_suffix("").as_posix())
        done, png = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1])
        assert done
        (target / f"{role}-{name}.png").write_bytes(png.tobytes())

    # Decoding and encoding let other threads run; in a grid of cheap runs this is most of what a run costs.
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(lambda chosen: write(*chosen), choose(test, count)):
            pass


def choose(test: Predictions, count: int) -> list[tuple[str, int]]:
    """(why, index) of the images to draw, each at most once."""
    order = np.argsort(test.scores, kind="stable")
    bad = [int(i) for i in order if test.labels[i]]
    good = [int(i) for i in order if not test.labels[i]]
    third = max(1, count // 3)
    missed = bad[:third]
    alarms = good[::-1][:third]
    found = [i for i in bad[::-1] if i not in missed][: count - len(missed) - len(alarms)]
    named = (("lowest-anomalous", missed), ("highest-normal", alarms), ("highest-anomalous", found))
    return [(role, index) for role, indices in named for index in indices]


def draw(image: RGB, anomaly_map: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_] | None,
         low: float, high: float) -> RGB:  # fmt: skip
    """Three pictures in one row: image, map (viridis, from `low` to `high`), image with the mask's outline.

    Args:
        image: RGB, any size; brought to the map's.
        anomaly_map: shape (height, width), raw.
        mask: shape (height, width), or None.
        low, high: what the ends of the colour scale stand for.
    """
    height, width = anomaly_map.shape
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    unit = np.clip((anomaly_map - low) / max(high - low, 1e-12), 0, 1)
    colours = cv2.applyColorMap((unit * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    heat = cv2.cvtColor(colours, cv2.COLOR_BGR2RGB)
    outlined = small.copy()
    if mask is not None and mask.any():
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(outlined, contours, -1, OUTLINE, max(1, height // 256))
    gap = np.full((height, GAP, 3), 255, dtype=np.uint8)
    return np.concatenate([small, gap, heat, gap, outlined], axis=1)

"""F1 of all pixels as in the benchmark of MVTec AD 2, and its upper bound for each image.

Heckler-Kram, Neudeck, Scheler, König and Steger, The MVTec AD 2 Dataset: Advanced Scenarios for Unsupervised Anomaly
Detection, 2025.
"""

from __future__ import annotations

import numpy as np

from harness.metrics.extra import PixelCase
from harness.metrics.ranking import Ranking

DEVIATIONS = 3


def seg_f1(case: PixelCase) -> float:
    """F1 of all pixels at the mean plus three standard deviations of the pixels of held-out normal maps (SegF1).

    The threshold comes from `calibration_threshold`, and not from `threshold:`. Pixels above it count as anomalous.

    Args:
        case: of the run.

    Returns:
        2 TP / (2 TP + FP + FN); NaN without calibration maps, or where only one class is in the masks.
    """
    threshold = calibration_threshold(case)
    if threshold is None or not (case.ranking.positives and case.ranking.negatives):
        return float("nan")
    hits = calls = 0
    for anomaly_map, mask in case.pairs():
        above = anomaly_map > threshold
        hits += int((above & mask).sum())
        calls += int(above.sum())
    return 2 * hits / (calls + case.ranking.positives)


def calibration_threshold(case: PixelCase) -> float | None:
    """Mean plus three standard deviations of all pixels of the calibration maps; None without such maps.

    Args:
        case: of the run.
    """
    count, total, squares = 0, 0.0, 0.0
    # Differences from one value, so that large scores lose no digits.
    origin: float | None = None
    for anomaly_map in case.calibration_maps():
        values = anomaly_map.astype(np.float64)
        origin = float(values.mean()) if origin is None else origin
        values -= origin
        count, total, squares = count + values.size, total + values.sum(), squares + np.square(values).sum()
    if origin is None:
        return None
    mean = total / count
    return float(origin + mean + DEVIATIONS * np.sqrt(max(squares / count - mean**2, 0.0)))


def seg_f1_oracle(case: PixelCase) -> float:
    """Mean over the images with anomalous pixels of the largest F1 of the image over all thresholds.

    This is an upper bound, because the mask of each image chooses the threshold of this image.

    Args:
        case: of the run.

    Returns:
        A number between 0 and 1; NaN without anomalous pixels.
    """
    values = []
    for anomaly_map, mask in case.pairs():
        if mask.any():
            ranking = Ranking.of(anomaly_map, mask)
            values.append(float((2 * ranking.tp / (ranking.tp + ranking.fp + ranking.positives)).max()))
    return float(np.mean(values)) if values else float("nan")

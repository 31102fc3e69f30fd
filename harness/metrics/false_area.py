"""The false positive area of normal images at a fixed recall of pixels."""

from __future__ import annotations

import numpy as np

from harness.metrics.extra import PixelCase

RECALL_PERCENT = 95


def false_area95(case: PixelCase) -> float:
    """Mean share of the area of a normal image that is at or above the threshold with a pixel recall of 95%.

    The threshold is the highest one with TP / (TP + FN) >= 95%, as for FPR95 (Hendrycks and Gimpel, 2017). FPR95 also
    counts the normal pixels of anomalous images, where maps are often high around a defect. This metric counts normal
    images only, as AUPIMO does (Bertoldo et al., 2024). Every image has the same weight.

    Args:
        case: of the run.

    Returns:
        A share between 0 and 1, smaller is better; NaN without anomalous pixels or without normal images.
    """
    threshold = recall_threshold(case)
    if threshold is None:
        return float("nan")
    shares = [float((anomaly_map >= threshold).mean()) for anomaly_map in case.normal_maps()]
    return float(np.mean(shares)) if shares else float("nan")


def recall_threshold(case: PixelCase, percent: int = RECALL_PERCENT) -> np.float32 | None:
    """The highest score of an anomalous pixel with at least a share of the anomalous pixels at or above it.

    Args:
        case: of the run.
        percent: the share.

    Returns:
        The score; None without anomalous pixels.
    """
    positives = np.concatenate([anomaly_map[mask] for anomaly_map, mask in case.pairs()])
    if not len(positives):
        return None
    # Whole numbers avoid a rounding error that would need 96 of 100.
    needed = -(-percent * len(positives) // 100)
    return np.float32(np.partition(positives, len(positives) - needed)[len(positives) - needed])

"""The ranking of all pixels of a test set, from pairs of maps and masks that may differ in size."""

from __future__ import annotations

import numpy as np

from harness.metrics import regions
from harness.metrics.ranking import Ranking
from harness.metrics.spro import saturated_weights
from harness.predictions.detection import Predictions
from harness.predictions.pairs import pairs, sizes


def pixel_ranking(test: Predictions, threshold: float | None, fpr_limit: float) -> Ranking:
    """Count anomalous and normal pixels at each threshold.

    The memory is 4 bytes for each pixel, and some 110 bytes for each anomalous pixel.

    Args:
        test: predictions with maps and masks.
        threshold: of the pixel scores; None without one.
        fpr_limit: upper limit of the false positive rate in AUPRO.
    """
    total = sum(height * width for height, width in sizes(test))
    # One array for all images: a list of arrays and their concatenation would need twice the memory.
    negatives = np.empty(total, np.float32)
    positives, masks = [np.empty(0, np.float32)], []
    filled = 0
    for anomaly_map, mask in pairs(test):
        normal = anomaly_map[~mask]
        negatives[filled : filled + len(normal)] = normal
        filled += len(normal)
        if mask.any():
            positives.append(anomaly_map[mask])
            masks.append(mask)
    weights, saturated = regions.weights(masks), saturated_weights(test)
    scores = np.concatenate(positives)
    return Ranking.of_classes(scores, negatives[:filled], threshold, weights, fpr_limit, saturated)

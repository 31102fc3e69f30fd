"""The ranking of all pixels of a test set, from pairs of maps and masks that may differ in size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from harness.data.mask_images import Mask
from harness.metrics import regions
from harness.metrics.ranking import Ranking
from harness.metrics.spro import saturated_weights
from harness.predictions.detection import Floats, Predictions
from harness.predictions.pairs import pairs, sizes

BLOCK = 2**25  # normal pixels in memory at a time: 128 MiB
ANOMALOUS, NORMAL, LARGEST = (
    110,
    4,
    24,
)  # bytes for an anomalous pixel, a pixel of a block, and one of the largest image


def pixel_ranking(test: Predictions, threshold: float | None, fpr_limit: float) -> Ranking:
    """Count anomalous and normal pixels at each threshold.

    The memory is that of `bytes_needed`: it does not grow with the number of normal pixels.

    Args:
        test: predictions with maps and masks.
        threshold: of the pixel scores; None without one.
        fpr_limit: upper limit of the false positive rate in AUPRO.
    """
    scores, weights = _with_weights(test)
    return Ranking.of_classes(scores, normal_scores(test), threshold, weights, fpr_limit, saturated_weights(test))


def bytes_needed(areas: Sequence[int], anomalous: int) -> int:
    """At most the memory of `pixel_ranking`, in bytes.

    Args:
        areas: pixels of each image.
        anomalous: anomalous pixels of all images.
    """
    largest = max(areas, default=0)
    return ANOMALOUS * anomalous + NORMAL * min(sum(areas), max(BLOCK, largest)) + LARGEST * largest


def anomalous_scores(test: Predictions) -> Floats:
    """The scores of all anomalous pixels, shape (p,), in the order of the pairs.

    Args:
        test: predictions with maps and masks.
    """
    scores = [anomaly_map[mask] for anomaly_map, mask in pairs(_with_defects(test))]
    return np.concatenate([np.empty(0, np.float32), *scores])


def normal_scores(test: Predictions) -> Iterator[Floats]:
    """The scores of all normal pixels in parts, at most `BLOCK` of them or those of one image.

    All parts lie in the same memory: use one before you take the next.

    Args:
        test: predictions with maps and masks.
    """
    areas = [height * width for height, width in sizes(test)]
    block = np.empty(min(sum(areas), max(BLOCK, *areas, 0)), np.float32)
    filled = 0
    for area, (anomaly_map, mask) in zip(areas, pairs(test), strict=True):
        if filled + area > len(block):
            yield block[:filled]
            filled = 0
        normal = anomaly_map[~mask]
        block[filled : filled + len(normal)] = normal
        filled += len(normal)
    yield block[:filled]


def _with_weights(test: Predictions) -> tuple[Floats, npt.NDArray[np.float64]]:
    """The scores of all anomalous pixels, and their weights in the mean overlap of regions."""
    scores = [np.empty(0, np.float32)]

    def masks() -> Iterator[Mask]:
        for anomaly_map, mask in pairs(_with_defects(test)):
            scores.append(anomaly_map[mask])
            yield mask

    weights = regions.weights(masks())
    return np.concatenate(scores), weights


def _with_defects(test: Predictions) -> Predictions:
    """The predictions for images that may have anomalous pixels, so that no map of the others is resized."""
    assert test.masks is not None
    if not test.protocol.original:
        return test
    return test.part(test.labels | test.masks.any(axis=(1, 2)))

"""Anomalous regions: connected components of the masks."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt


def weights(masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Weight of each anomalous pixel in the mean overlap of regions: 1 / (regions * pixels of its region).

    A region is a connected component of one mask. Pixels that touch at a corner are connected (8-connectivity).

    Args:
        masks: shape (n, height, width), True is anomalous.

    Returns:
        One weight for each True, in C order; the sum is 1.
    """
    shares = [np.empty(0)]
    regions = 0
    for mask in masks:
        if mask.any():
            count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
            regions += count - 1
            shares.append(1.0 / stats[labels[mask], cv2.CC_STAT_AREA])
    return np.concatenate(shares) / max(regions, 1)

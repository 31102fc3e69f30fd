"""Anomalous regions: connected components of the masks."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt


def weights(masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """What each anomalous pixel counts for in the mean overlap of regions: 1 / (regions * pixels of its region).

    A region is a component of one image's mask, pixels that touch at a corner included (8-connectivity).

    Args:
        masks: shape (n, height, width), True is anomalous.

    Returns:
        One number for each True, in C order; they add up to 1.
    """
    found = [np.empty(0)]
    regions = 0
    for mask in masks:
        if mask.any():
            count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
            regions += count - 1
            found.append(1.0 / stats[labels[mask], cv2.CC_STAT_AREA])
    return np.concatenate(found) / max(regions, 1)

"""Anomalous regions: connected components of the masks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt


class Regions(NamedTuple):
    """The regions of one mask: connected components. Pixels that touch at a corner are connected (8-connectivity).

    Attributes:
        labels: shape (height, width), 0 outside all regions, then 1 for the first region.
        areas: pixels of each region, shape (regions,).
    """

    labels: npt.NDArray[np.int32]
    areas: npt.NDArray[np.int32]

    @classmethod
    def of(cls, mask: npt.NDArray[np.bool_]) -> Regions:
        """Find the regions of a mask.

        Args:
            mask: shape (height, width), True is anomalous.
        """
        pixels = np.ascontiguousarray(mask).view(np.uint8)
        _, labels, stats, _ = cv2.connectedComponentsWithStats(pixels, connectivity=8)
        return cls(np.asarray(labels, np.int32), np.asarray(stats[1:, cv2.CC_STAT_AREA], np.int32))

    def shares(self, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """1 / (pixels of its region) for each True of the mask, in C order.

        Args:
            mask: the mask of these regions.
        """
        return np.asarray(1.0 / self.areas[self.labels[mask] - 1])


def weights(masks: Iterable[npt.NDArray[np.bool_]]) -> npt.NDArray[np.float64]:
    """Weight of each anomalous pixel in the mean overlap of regions: 1 / (regions * pixels of its region).

    Args:
        masks: shape (height, width) each, True is anomalous.

    Returns:
        One weight for each True, in C order; the sum is 1.
    """
    shares = [np.empty(0)]
    count = 0
    for mask in masks:
        if mask.any():
            regions = Regions.of(mask)
            count += len(regions.areas)
            shares.append(regions.shares(mask))
    return np.concatenate(shares) / max(count, 1)

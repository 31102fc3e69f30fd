"""Precision and recall of regions at the pixel threshold, and recall by the area of the defect.

A defect is a region of a mask, and a call is a region of the pixels above the threshold. Regions below the protocol's
`min_area` do not count. A defect is found if at least a quarter of its pixels are called. A call is right if at least
a quarter of its pixels are anomalous. So a map that calls a whole image is wrong, although it covers every defect. The
rule for a call is the component-wise positive predictive value of Chan et al., SegmentMeIfYouCan, NeurIPS 2021, at its
lowest limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.data.mask_images import Mask
from harness.metrics.extra import PixelCase
from harness.metrics.ranking import ratio
from harness.metrics.regions import Regions

OVERLAP = 0.25
GROUPS = 10


@dataclass(frozen=True)
class RegionCounts:
    """The regions of a test set.

    Attributes:
        areas: pixels of each defect.
        detected: whether each defect is detected.
        calls: number of calls.
        right: number of right calls.
    """

    areas: npt.NDArray[np.int64]
    detected: npt.NDArray[np.bool_]
    calls: int
    right: int


def region_precision(case: PixelCase) -> float:
    """Share of the called regions with at least a quarter of their pixels in a mask, at the pixel threshold.

    Args:
        case: of the run.

    Returns:
        A share; NaN without a threshold, without a called region, or without a defect.
    """
    counts = region_counts(case)
    return float("nan") if counts is None or not len(counts.areas) else float(ratio(counts.right, counts.calls))


def region_recall(case: PixelCase) -> float:
    """Share of the defects with at least a quarter of their pixels in called regions, at the pixel threshold.

    Args:
        case: of the run.

    Returns:
        A share; NaN without a threshold, or without a defect.
    """
    counts = region_counts(case)
    return float("nan") if counts is None else float(ratio(counts.detected.sum(), len(counts.areas)))


def region_counts(case: PixelCase) -> RegionCounts | None:
    """Find the defects and the calls of all test images; None without a threshold.

    Args:
        case: of the run.
    """
    return case.once("regions", lambda: _count(case))


def _count(case: PixelCase) -> RegionCounts | None:
    if case.threshold is None:
        return None
    smallest = case.test.protocol.min_area
    areas, detected = [np.empty(0, np.int64)], [np.empty(0, np.bool_)]
    calls = right = 0
    for anomaly_map, mask in case.pairs():
        called = Regions.of(anomaly_map > case.threshold)
        large = called.areas >= smallest
        calls += int(large.sum())
        right += int((_overlaps(called, mask) & large).sum())
        if mask.any():
            defects = Regions.of(mask)
            large_calls = np.concatenate([[False], large])[called.labels]
            counted = defects.areas >= smallest
            areas.append(defects.areas[counted].astype(np.int64))
            detected.append(_overlaps(defects, large_calls)[counted])
    return RegionCounts(np.concatenate(areas), np.concatenate(detected), calls, right)


def _overlaps(regions: Regions, pixels: Mask) -> npt.NDArray[np.bool_]:
    """Whether at least a quarter of the pixels of each region are True."""
    inside = np.bincount(regions.labels[pixels], minlength=len(regions.areas) + 1)[1:]
    return np.asarray(inside >= OVERLAP * regions.areas, np.bool_)


def recall_by_area(case: PixelCase) -> list[dict[str, Any]]:
    """Recall of ten groups of defects, from the smallest defects to the largest.

    The groups are the deciles of the area: equally many defects each, up to one. Fewer than ten defects have as many
    groups as defects.

    Args:
        case: of the run.

    Returns:
        For each group its smallest and largest area in pixels, the number of defects and of found ones; empty without a
        threshold or without defects.
    """
    counts = region_counts(case)
    if counts is None or not len(counts.areas):
        return []
    order = np.argsort(counts.areas, kind="stable")
    return [
        {
            "smallest": int(counts.areas[group[0]]),
            "largest": int(counts.areas[group[-1]]),
            "defects": len(group),
            "found": int(counts.detected[group].sum()),
        }
        for group in np.array_split(order, min(GROUPS, len(order)))
    ]

"""The per-image overlap curve and its area: recall of each anomalous image at very few false positives.

Bertoldo, Ameln, Vaidya and Akçay, AUPIMO: Redefining Visual Anomaly Detection Benchmarks with High Speed and Low
Tolerance, BMVC 2024.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from harness.metrics.extra import PixelCase
from harness.predictions.detection import Floats

LOWER, UPPER = 1e-5, 1e-4  # limits of the shared false positive rate, of the paper
RATES = np.logspace(-6, -3, 121)  # of the points of the curve for plots, a decade more on both sides
Values = npt.NDArray[np.float64]


class Overlaps(NamedTuple):
    """Overlaps of all test images.

    Attributes:
        areas: AUPIMO of each image, shape (n,); NaN for an image without anomalous pixels, or where it is undefined.
        curve: mean overlap of the images with anomalous pixels at each of `RATES`; None where it is undefined.
    """

    areas: Values
    curve: Values | None


class SharedRate(NamedTuple):
    """The shared false positive rate: the mean over normal images of the share of their pixels.

    Attributes:
        scores: distinct scores of normal pixels, highest first, at least down to a rate of `UPPER`.
        above: rate of the pixels strictly above each score.
        at: rate of the pixels at or above each score.
    """

    scores: Floats
    above: Values
    at: Values


def aupimo(case: PixelCase) -> float:
    """Mean over the anomalous images of the area under the per-image overlap curve (AUPIMO).

    The overlap of an image is the share of its anomalous pixels at or above a threshold. The shared false positive rate
    of a threshold is the mean over the normal images of the share of their pixels. The area is an integral over the
    logarithm of this rate from 1e-5 to 1e-4, divided by log(10). All scores are thresholds.

    Args:
        case: of the run.

    Returns:
        A number between 0 and 1; NaN without anomalous pixels, or if the normal images have fewer than 100,000 pixels.
    """
    values = aupimo_of_images(case)
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")


def aupimo_of_images(case: PixelCase) -> Values:
    """AUPIMO of each test image, shape (n,); NaN for an image without anomalous pixels, or where it is undefined.

    Args:
        case: of the run.
    """
    return _overlaps(case).areas


def _overlaps(case: PixelCase) -> Overlaps:
    return case.once("pimo", lambda: _of_images(case))


def _of_images(case: PixelCase) -> Overlaps:
    areas, total = np.full(len(case.test.samples), np.nan), np.zeros(len(RATES))
    rate = shared_rate(case.normal_maps(), int((~case.test.labels).sum()), RATES[-1])
    if rate is None:
        return Overlaps(areas, None)
    for index, (anomaly_map, mask) in enumerate(case.pairs()):
        if mask.any():
            positives = anomaly_map[mask]
            areas[index] = area(positives, rate)
            total += overlap_at(RATES, positives, rate)
    count = int((~np.isnan(areas)).sum())
    return Overlaps(areas, total / count if count else None)


def pimo_curve(case: PixelCase) -> list[dict[str, Any]]:
    """Points of the mean per-image overlap curve: shared false positive rate and overlap. Empty where it is undefined.

    The area under these points from 1e-5 to 1e-4, over the logarithm of the rate, is AUPIMO.

    Args:
        case: of the run.
    """
    curve = _overlaps(case).curve
    if curve is None:
        return []
    return [
        {"rate": float(f"{rate:.4g}"), "overlap": round(float(value), 5)}
        for rate, value in zip(RATES, curve, strict=True)
    ]


def aupimo_by_image(case: PixelCase) -> list[dict[str, Any]]:
    """Name and AUPIMO of each image with anomalous pixels, the lowest first.

    Args:
        case: of the run.
    """
    values = aupimo_of_images(case)
    order = [int(index) for index in np.argsort(values, kind="stable") if not np.isnan(values[index])]
    return [{"name": case.test.samples[index].name, "value": float(values[index])} for index in order]


def shared_rate(maps: Iterable[Floats], count: int, upper: float = UPPER, lower: float = LOWER) -> SharedRate | None:
    """The shared false positive rate at the highest scores of normal images.

    Every image has the same weight, whatever its size. Only the highest scores of each image stay in memory.

    Args:
        maps: of normal images, each of any shape.
        count: number of maps.
        upper: largest rate that must be reached.
        lower: smallest rate that matters.

    Returns:
        The rate; None without images, or where one pixel of all is already more than `lower`.
    """
    heads, sizes = [], []
    for one in maps:
        needed = min(one.size, int(np.ceil(upper * count * one.size)) + 1)
        least = np.partition(one, one.size - needed, axis=None)[one.size - needed]
        heads.append(np.sort(one[one >= least]))
        sizes.append(one.size)
    if not count or lower * sum(sizes) < 1:
        return None
    # Below its lowest kept score, the counts of an image are incomplete. There the rate is above `upper` already.
    complete = max(head[0] for head in heads)
    scores = np.unique(np.concatenate([head[head >= complete] for head in heads]))[::-1]
    above, at = np.zeros(len(scores)), np.zeros(len(scores))
    for head, size in zip(heads, sizes, strict=True):
        above += (len(head) - np.searchsorted(head, scores, side="right")) / (count * size)
        at += (len(head) - np.searchsorted(head, scores, side="left")) / (count * size)
    return SharedRate(scores, above, at)


def area(positives: Floats, rate: SharedRate, lower: float = LOWER, upper: float = UPPER) -> float:
    """The normalised area under the curve of one image between two limits of the shared rate.

    Args:
        positives: scores of the anomalous pixels of the image; at least one.
        rate: of the normal images.
        lower, upper: limits.
    """
    share_above, share_at = _shares(positives, rate)
    first, last = np.maximum(rate.above, lower), np.minimum(rate.at, upper)
    inside = last > first
    begin, end = np.log(first[inside]), np.log(last[inside])
    # A step that begins at a rate of 0 has no logarithm: there the overlap above the highest scores counts.
    starts = rate.above[inside] > 0
    low = np.log(np.where(starts, rate.above[inside], rate.at[inside]))
    high = np.log(rate.at[inside])
    width = np.where(high > low, high - low, 1.0)
    gain = np.where(starts, share_at[inside] - share_above[inside], 0.0) / width
    middle = share_above[inside] + gain * ((begin + end) / 2 - low)
    return float((middle * (end - begin)).sum() / np.log(upper / lower))


def overlap_at(levels: Values, positives: Floats, rate: SharedRate) -> Values:
    """The overlap of one image at several shared rates.

    Args:
        levels: the rates, ascending; at most the largest one of `rate`.
        positives: scores of the anomalous pixels of the image; at least one.
        rate: of the normal images.
    """
    share_above, share_at = _shares(positives, rate)
    step = np.minimum(np.searchsorted(rate.at, levels, side="left"), len(rate.at) - 1)
    above, at = rate.above[step], rate.at[step]
    # Where a step begins at a rate of 0, the overlap above the highest score counts.
    inside = above > 0
    low, high = np.log(np.where(inside, above, at)), np.log(at)
    share = np.where(inside, (np.log(levels) - low) / np.where(high > low, high - low, 1.0), 0.0)
    overlaps: Values = share_above[step] + share * (share_at[step] - share_above[step])
    return overlaps


def _shares(positives: Floats, rate: SharedRate) -> tuple[Values, Values]:
    """The overlap of one image above each score of normal pixels, and at or above it.

    At each score of a normal pixel the rate rises, and the overlap is straight over the logarithm of the rate. It is
    constant unless anomalous pixels have the same score.
    """
    ascending = np.sort(positives)
    above, at = (1 - np.searchsorted(ascending, rate.scores, side=side) / len(ascending) for side in ("right", "left"))
    return above, at

"""Saturated per-region overlap (sPRO), for data that say how much of a defect a detector must find.

The source is Bergmann et al., Beyond Dents and Scratches (MVTec LOCO AD), International Journal of Computer Vision
130, 2022, the section on the saturated per-region overlap:

    sPRO(P) = 1/m * sum over i of min(|A_i and P| / s_i, 1)

A_i are the m defects of all images, P are the predicted pixels, and s_i is the saturation of a defect. As in the
evaluation that belongs to the data set:

- Each file of a mask is one defect, also where it has several parts. Defects may overlap.
- A relative saturation is a share of the defect's area, rounded down to whole pixels. An absolute saturation is an area
  in pixels of the image, at most the defect's area.
- A false positive is a pixel outside all masks. The rate counts the pixels of all images.

Under the protocol `input` the harness measures at the size of the map. There an absolute saturation shrinks as the area
of the image does. Under `original` it measures at the size of the mask, as the evaluation of the data set does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.common.errors import DataError
from harness.data.mask_images import Mask, ResizedMask, resized_mask
from harness.data.samples import Sample, Saturation
from harness.metrics.aupro import area_under
from harness.metrics.ranking import Ranking
from harness.predictions.detection import Predictions
from harness.predictions.pairs import counted_part, mask_size, pairs

Floats = npt.NDArray[np.float64]


def auspro5(ranking: Ranking) -> Floats:
    """Area under the mean saturated overlap of the defects up to a false positive rate of 0.05, over this rate.

    Args:
        ranking: counts of pixels at each threshold.

    Returns:
        A number between 0 and 1; NaN without saturation, defects or normal pixels.
    """
    return area_under(ranking, ranking.saturated, 0.05)


def auspro30(ranking: Ranking) -> Floats:
    """Area under the mean saturated overlap of the defects up to a false positive rate of 0.3, over this rate.

    Args:
        ranking: counts of pixels at each threshold.

    Returns:
        A number between 0 and 1; NaN without saturation, defects or normal pixels.
    """
    return area_under(ranking, ranking.saturated, 0.3)


@dataclass(frozen=True)
class Defect:
    """One defect at the size of the protocol.

    Attributes:
        pixels: shape (height, width), True is anomalous.
        saturation: the area that a detector must find, in pixels; more than 0, at most the defect's area.
    """

    pixels: Mask
    saturation: float


def saturated_weights(test: Predictions) -> Floats | None:
    """Weight of each anomalous pixel in the mean saturated overlap.

    The j-th highest pixel of a defect raises its saturated overlap from min((j - 1) / s, 1) to min(j / s, 1). So the
    sum of the weights at or above a threshold is the mean saturated overlap at this threshold, exactly. A pixel of
    several defects has the sum of its weights.

    Args:
        test: predictions with maps and masks.

    Returns:
        One weight for each True of the masks of `pairs`, in C order; the sum is 1. None where an anomalous image has no
        saturation, or no image has masks.

    Raises:
        DataError: a mask has another value than the data set describes.
    """
    masked = [sample for sample in test.samples if sample.masks]
    if test.maps is None or test.masks is None or not masked or not all(sample.saturation for sample in masked):
        return None
    weights, count = [], 0
    for sample, (map_, mask) in zip(test.samples, pairs(test), strict=True):
        gains = np.zeros(mask.shape)
        for defect in defects(sample, test):
            gains[defect.pixels] += _gains(map_[defect.pixels], defect.saturation)
            count += 1
        weights.append(gains[mask])
    return np.concatenate(weights) / max(count, 1)


def _gains(scores: npt.NDArray[np.float32], saturation: float) -> Floats:
    """How much each pixel of a defect raises its saturated overlap, when thresholds fall from the highest score."""
    overlap = np.minimum(np.arange(len(scores) + 1) / saturation, 1)
    gains = np.empty(len(scores))
    gains[np.argsort(scores)[::-1]] = np.diff(overlap)
    return gains


def defects(sample: Sample, test: Predictions) -> Iterator[Defect]:
    """The defects of an image; those without a pixel at the size of the protocol are left out.

    Args:
        sample: an image; a normal image has no defects.
        test: predictions with maps, whose size and protocol count.

    Raises:
        DataError: a mask has another value than the data set describes.
    """
    whole = mask_size(test)
    for file in sample.masks:
        mask = resized_mask(file, whole, test.protocol.mask)
        entry = next((one for one in sample.saturation if one.pixel_value == mask.value), None)
        if entry is None:
            raise DataError(f"{file}: a mask of an unknown defect found. The file changed: run the sweep again.")
        pixels = mask.pixels[counted_part(test, mask.size)]
        if area := int(pixels.sum()):
            yield Defect(pixels, _saturation(entry, mask, area))


def _saturation(entry: Saturation, mask: ResizedMask, area: int) -> float:
    """The saturation of a defect in pixels of the resized mask.

    Args:
        entry: of the defect.
        mask: of the defect, before a centre crop.
        area: of the defect, in pixels after a centre crop.
    """
    if entry.relative:
        return min(max(int(entry.threshold * mask.area), 1) / mask.area, 1.0) * area
    scale = mask.size[0] * mask.size[1] / mask.pixels_of_file
    return min(entry.threshold * scale, float(area))

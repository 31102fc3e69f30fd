"""DeLong's test: is the difference between two AUROCs on the same images more than chance?

E. R. DeLong, D. M. DeLong and D. L. Clarke-Pearson: Comparing the areas under two or more correlated receiver
operating characteristic curves, Biometrics 44, 1988.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import erfc, sqrt

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Components:
    """Structural components of an AUROC; its variance, and its covariance with another's, are taken from them.

    Attributes:
        anomalous: V10, shape (p,): for each anomalous image, the share of normal ones below it, ties counting half.
        normal: V01, shape (n,): for each normal image, the share of anomalous ones above it, ties counting half.
    """

    anomalous: npt.NDArray[np.float64]
    normal: npt.NDArray[np.float64]

    @classmethod
    def of(cls, scores: npt.NDArray[np.floating], labels: npt.NDArray[np.bool_]) -> Components:
        """From scores and labels (True is anomalous) of the same images, both classes present."""
        positives, negatives = np.sort(scores[labels]), np.sort(scores[~labels])
        return cls(_share_below(negatives, scores[labels]), 1 - _share_below(positives, scores[~labels]))

    @classmethod
    def mean(cls, several: Sequence[Components]) -> Components:
        """Of the mean AUROC of several runs on the same images (seeds, say); components are linear in it."""
        return cls(
            np.mean([one.anomalous for one in several], axis=0), np.mean([one.normal for one in several], axis=0)
        )

    @property
    def auroc(self) -> float:
        """Their mean."""
        return float(self.anomalous.mean())


def paired_test(first: Sequence[Components], second: Sequence[Components]) -> float | None:
    """Two-sided p-value for the mean AUROC of `first` and of `second` being the same.

    Args:
        first, second: one entry a data set (a category, say), in the same order and each on the same images. Data
            sets are independent of each other.

    Returns:
        The p-value: of the normal distribution, but at least 2 ** (1 - images), the smallest that swapping the two
        scores of each image could give. None where a data set has fewer than 2 images of a class.
    """
    found = difference(first, second)
    if found is None:
        return None
    mean, error = found
    if abs(mean) < 1e-12:
        return 1.0
    images = sum(len(one.anomalous) + len(one.normal) for one in first)
    smallest = 2.0 ** max(1 - images, -1000)
    return max(erfc(abs(mean) / error / sqrt(2)) if error > 0 else 0.0, smallest)


def difference(first: Sequence[Components], second: Sequence[Components]) -> tuple[float, float] | None:
    """Mean AUROC of `first` less that of `second`, and its standard error; arguments as for `paired_test`.

    None where a data set has fewer than 2 images of a class.
    """
    mean, variance = 0.0, 0.0
    for one, other in zip(first, second, strict=True):
        anomalous, normal = one.anomalous - other.anomalous, one.normal - other.normal
        if len(anomalous) < 2 or len(normal) < 2:
            return None
        mean += float(anomalous.mean()) / len(first)
        variance += float(anomalous.var(ddof=1) / len(anomalous) + normal.var(ddof=1) / len(normal)) / len(first) ** 2
    return mean, sqrt(variance)


def _share_below(ascending: npt.NDArray[np.floating], scores: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    below = np.searchsorted(ascending, scores, side="left")
    not_above = np.searchsorted(ascending, scores, side="right")
    share: npt.NDArray[np.float64] = (below + not_above) / (2 * len(ascending))
    return share

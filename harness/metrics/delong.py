"""DeLong's test of the difference between two AUROCs on the same images.

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
    """Structural components of an AUROC, for its variance and its covariance with another AUROC.

    A tie counts half.

    Attributes:
        anomalous: V10, shape (p,): for each anomalous image, the share of normal images with a lower score.
        normal: V01, shape (n,): for each normal image, the share of anomalous images with a higher score.
    """

    anomalous: npt.NDArray[np.float64]
    normal: npt.NDArray[np.float64]

    @classmethod
    def of(cls, scores: npt.NDArray[np.floating], labels: npt.NDArray[np.bool_]) -> Components:
        """Components of the AUROC of one run.

        Args:
            scores: shape (n,), higher is more anomalous.
            labels: shape (n,), True is anomalous; both classes must be present.
        """
        positives, negatives = np.sort(scores[labels]), np.sort(scores[~labels])
        return cls(_share_below(negatives, scores[labels]), 1 - _share_below(positives, scores[~labels]))

    @classmethod
    def mean(cls, runs: Sequence[Components]) -> Components:
        """Components of the mean AUROC of several runs on the same images, such as runs with different seeds.

        The AUROC is linear in its components, so the mean of the components belongs to the mean AUROC.
        """
        return cls(np.mean([run.anomalous for run in runs], axis=0), np.mean([run.normal for run in runs], axis=0))

    @property
    def auroc(self) -> float:
        """The AUROC: mean of the components."""
        return float(self.anomalous.mean())


def paired_test(first: Sequence[Components], second: Sequence[Components]) -> float | None:
    """Two-sided p-value of the hypothesis that two configurations have the same mean AUROC.

    Args:
        first: components of one configuration, one entry for each data set, such as a category.
        second: components of the other configuration, on the same images in the same order. Data sets are independent.

    Returns:
        The p-value of the normal distribution, but at least 2 ** (1 - images). A permutation test that swaps the two
        scores of each image has the same minimum. None where a data set has fewer than 2 images of a class.
    """
    result = difference(first, second)
    if result is None:
        return None
    mean, error = result
    if abs(mean) < 1e-12:
        return 1.0
    images = sum(len(components.anomalous) + len(components.normal) for components in first)
    smallest = 2.0 ** max(1 - images, -1000)
    return max(erfc(abs(mean) / error / sqrt(2)) if error > 0 else 0.0, smallest)


def difference(first: Sequence[Components], second: Sequence[Components]) -> tuple[float, float] | None:
    """Difference of two mean AUROCs, and its standard error.

    Args:
        first: components of one configuration, one entry for each data set.
        second: components of the other configuration, on the same images in the same order.

    Returns:
        Mean AUROC of `first` minus mean AUROC of `second`, and the standard error. None where a data set has fewer
        than 2 images of a class.
    """
    mean, variance = 0.0, 0.0
    for minuend, subtrahend in zip(first, second, strict=True):
        anomalous, normal = minuend.anomalous - subtrahend.anomalous, minuend.normal - subtrahend.normal
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

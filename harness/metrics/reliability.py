"""Reliability: whether the probability of a predicted label is the share of right labels.

The **expected calibration error** (ECE) sorts images by the probability of the predicted label into 15 bins of equal
width. It is the mean difference between probability and accuracy in a bin, weighted by the images of the bin (Naeini,
Cooper and Hauskrecht, AAAI 2015; Guo, Pleiss, Sun and Weinberger, ICML 2017, section 2). The reliability diagram shows
the bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.metrics.intervals import binomial_interval

BINS = 15


@dataclass(frozen=True)
class Bin:
    """The images of one bin.

    Attributes:
        images: number of images.
        probability: their mean probability.
        accuracy: their share of right labels.
        low, high: exact 95% interval of `accuracy`.
    """

    images: int
    probability: float
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Reliability:
    """The bins that have images, the smallest probability first.

    Attributes:
        bins: the bins.
    """

    bins: tuple[Bin, ...]

    @classmethod
    def of(
        cls, probabilities: npt.NDArray[np.floating], predicted: npt.NDArray[np.int64], truth: npt.NDArray[np.int64]
    ) -> Reliability:
        """The bins of a classifier.

        Args:
            probabilities: shape (n, labels).
            predicted: shape (n,), predicted labels.
            truth: shape (n,), true labels; images with a negative number do not count.
        """
        known = truth >= 0
        surest = probabilities[np.arange(len(truth)), predicted].astype(np.float64)[known]
        right = (predicted == truth)[known]
        number = np.clip(np.ceil(surest * BINS) - 1, 0, BINS - 1)
        return cls(tuple(_bin(surest[number == one], right[number == one]) for one in np.unique(number)))

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(one.images for one in self.bins)

    @property
    def error(self) -> float | None:
        """The expected calibration error; None without images."""
        if not self.images:
            return None
        return sum(one.images * abs(one.probability - one.accuracy) for one in self.bins) / self.images


def _bin(probabilities: npt.NDArray[np.float64], right: npt.NDArray[np.bool_]) -> Bin:
    low, high = binomial_interval(int(right.sum()), len(right))
    return Bin(len(right), float(probabilities.mean()), float(right.mean()), low, high)

"""Prediction sets with a promised coverage, and the risk-coverage curve.

A prediction set holds the labels that an image may have. Conformal prediction makes sets that contain the true label
with a promised probability. This holds for any classifier, if new images are like the calibration images (Vovk,
Gammerman and Shafer: Algorithmic learning in a random world, 2005).

- The score of a label is 1 - its probability: the least ambiguous set-valued classifier. Its sets are the smallest on
  average (Sadinle, Lei and Wasserman: Least ambiguous set-valued classifiers with bounded error levels, Journal of the
  American Statistical Association 114, 2019).
- The calibration images are the out-of-fold images. A label of a new image is compared, fold by fold, with the images
  of the fold, since the same networks gave both scores. This is CV+ (Romano, Sesia and Candes: Classification with
  valid and adaptive coverage, NeurIPS 2020). With one fold it is split conformal prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt

from harness.metrics.intervals import binomial_interval
from harness.predictions.classification import ClassPredictions

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
ROUNDING = 1e-9  # of a coverage such as 0.9, which no binary number equals


@dataclass(frozen=True)
class Calibration:
    """The scores of the calibration images.

    Attributes:
        scores: for each fold, in the order of the folds, the sorted scores of the true labels of its images.
    """

    scores: tuple[Floats, ...]

    @classmethod
    def of(cls, predictions: ClassPredictions) -> Calibration:
        """The calibration of a run by its out-of-fold predictions."""
        own = 1 - predictions.probabilities[np.arange(len(predictions.names)), predictions.truth].astype(np.float64)
        return cls(tuple(np.sort(own[predictions.folds == fold]) for fold in np.unique(predictions.folds)))

    @property
    def images(self) -> int:
        """Number of calibration images."""
        return sum(map(len, self.scores))

    @property
    def largest(self) -> float:
        """The largest coverage that sets can promise without all labels: n / (n + 1) with n images."""
        return self.images / (self.images + 1)

    def rank(self, coverage: float) -> int:
        """The number of calibration scores, from the lowest, that sets with this coverage must reach."""
        return ceil((self.images + 1) * coverage - ROUNDING)

    def enough(self, coverage: float) -> bool:
        """Whether there are enough images for a coverage; otherwise each set has all labels."""
        return self.rank(coverage) <= self.images

    def sets(self, by_fold: npt.NDArray[np.floating], coverage: float) -> Mask:
        """Prediction sets.

        Args:
            by_fold: probabilities from the networks of each fold, shape (folds, m, labels). A blend has one entry in
                place of several folds; it is compared with the images of every fold.
            coverage: the promised probability that a set contains the true label.

        Returns:
            Shape (m, labels): True is a label of the set.
        """
        rows = by_fold if len(by_fold) == len(self.scores) else by_fold.mean(axis=0, keepdims=True)
        folds = np.broadcast_to(rows, (len(self.scores), *rows.shape[1:])) if len(rows) == 1 else rows
        scores = 1 - folds.astype(np.float64)
        below = sum(np.searchsorted(own, score, side="left") for own, score in zip(self.scores, scores, strict=True))
        inside: Mask = np.broadcast_to(below, scores.shape[1:]) < self.rank(coverage)
        return inside


@dataclass(frozen=True)
class SetQuality:
    """The prediction sets of test images.

    Attributes:
        images: number of images.
        single: share of sets with one label.
        several: share of sets with several labels.
        empty: share of sets without a label.
        labelled: number of images with a known label.
        realised: share of these whose set contains their label; None without such images.
        low, high: exact 95% interval of `realised`.
        single_errors: share of wrong labels among labelled images with one label; None without such images.
    """

    images: int
    single: float
    several: float
    empty: float
    labelled: int
    realised: float | None
    low: float | None
    high: float | None
    single_errors: float | None

    @classmethod
    def of(cls, sets: Mask, truth: npt.NDArray[np.int64]) -> SetQuality | None:
        """The quality of prediction sets.

        Args:
            sets: shape (m, labels).
            truth: shape (m,), true labels; a negative number is no label.

        Returns:
            The quality; None without images.
        """
        if not len(sets):
            return None
        count, known = sets.sum(axis=1), truth >= 0
        inside = sets[known, truth[known]]
        one = count[known] == 1
        ends = binomial_interval(int(inside.sum()), len(inside)) if len(inside) else (None, None)
        return cls(
            images=len(sets),
            single=float((count == 1).mean()),
            several=float((count > 1).mean()),
            empty=float((count == 0).mean()),
            labelled=len(inside),
            realised=float(inside.mean()) if len(inside) else None,
            low=ends[0],
            high=ends[1],
            single_errors=float((~inside[one]).mean()) if one.any() else None,
        )


@dataclass(frozen=True)
class RiskCurve:
    """The risk-coverage curve (El-Yaniv and Wiener: On the foundations of noise-free selective classification, 2010).

    The surest images get an answer. Images with equal probabilities get it together.

    Attributes:
        answered: shares of images with an answer, rising, shape (k,).
        risk: share of wrong labels among them, shape (k,).
        probability: the smallest probability of an answered image, shape (k,).
    """

    answered: Floats
    risk: Floats
    probability: Floats

    @classmethod
    def of(cls, truth: npt.NDArray[np.int64], probabilities: npt.NDArray[np.floating]) -> RiskCurve:
        """The curve of a classifier.

        Args:
            truth: shape (n,), true labels.
            probabilities: shape (n, labels).
        """
        largest = probabilities.max(axis=1, initial=0).astype(np.float64)
        order = np.argsort(-largest, kind="stable")
        wrong = (probabilities.argmax(axis=1) != truth)[order] if len(truth) else np.zeros(0)
        number = np.arange(1, len(truth) + 1)
        # The last image of those with equal probabilities.
        last = np.append(np.diff(largest[order]) != 0, True)[: len(truth)]
        return cls((number / max(len(truth), 1))[last], (np.cumsum(wrong) / number)[last], largest[order][last])

    def at(self, shares: Sequence[float]) -> list[tuple[float, float] | None]:
        """Risk and smallest probability where at least a share of the images gets an answer.

        Args:
            shares: between 0 and 1.

        Returns:
            For each share (risk, probability); None without images.
        """
        if not len(self.answered):
            return [None] * len(shares)
        places = np.searchsorted(self.answered, np.asarray(shares) - ROUNDING)
        return [(float(self.risk[i]), float(self.probability[i])) for i in places.clip(max=len(self.answered) - 1)]

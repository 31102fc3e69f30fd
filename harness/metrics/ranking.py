"""Ranking: the number of positives and negatives above each threshold.

Every metric of a detection is a function of these counts, along their last axis. So one call computes the metric for
one set of scores, or for 2000 bootstrap draws of these scores (see intervals.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness import registry

Counts = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Ranking:
    """Counts of positives (anomalous) and negatives (normal) at each distinct positive score, highest first.

    Between two of these thresholds only the number of negatives changes, so no curve has a corner there.

    Attributes:
        tp: positives at or above each threshold, shape (..., k).
        fp: negatives at or above each threshold, shape (..., k).
        fp_above: negatives strictly above each threshold, shape (..., k); less than `fp` where scores are tied.
        positives, negatives: number of positives and negatives.
        tp_at, fp_at: positives and negatives above the run's threshold, shape (...); None without a threshold.
        overlap: mean share of the anomalous regions at or above each threshold, shape (k,); None without regions.
        saturated: the same of the saturated overlap, see spro.py; None for data without saturation.
        fpr_limit: upper limit of the false positive rate in AUPRO.
    """

    tp: Counts
    fp: Counts
    fp_above: Counts
    positives: int
    negatives: int
    tp_at: Counts | None = None
    fp_at: Counts | None = None
    overlap: npt.NDArray[np.float64] | None = None
    fpr_limit: float = 0.3
    saturated: npt.NDArray[np.float64] | None = None

    @classmethod
    def of(
        cls,
        scores: npt.NDArray[np.floating],
        truth: npt.NDArray[np.bool_],
        threshold: float | None = None,
        weights: npt.NDArray[np.float64] | None = None,
        fpr_limit: float = 0.3,
        saturated: npt.NDArray[np.float64] | None = None,
    ) -> Ranking:
        """Count positives and negatives at each threshold.

        Args:
            scores: any shape, higher is more anomalous.
            truth: same shape, True is anomalous.
            threshold: a score above the threshold is predicted anomalous.
            weights: weight of each anomalous score in the mean share of regions, in C order; see `regions.weights`.
            fpr_limit: upper limit of the false positive rate in AUPRO.
            saturated: weight of each anomalous score in the mean saturated overlap; see `spro.saturated_weights`.
        """
        return cls.of_classes(scores[truth], [scores[~truth]], threshold, weights, fpr_limit, saturated)

    @classmethod
    def of_classes(
        cls,
        positives: npt.NDArray[np.floating],
        negatives: Iterable[npt.NDArray[np.floating]],
        threshold: float | None = None,
        weights: npt.NDArray[np.float64] | None = None,
        fpr_limit: float = 0.3,
        saturated: npt.NDArray[np.float64] | None = None,
    ) -> Ranking:
        """Count positives and negatives at each threshold, where both classes are separate already.

        Args:
            positives: scores, shape (p,); sorted in place without `weights` and `saturated`.
            negatives: scores in parts of any length, so that not all are in memory; each part is sorted in place.
            threshold, weights, fpr_limit, saturated: see `of`.
        """
        if weights is None and saturated is None:
            positives.sort()
        else:
            order = np.argsort(positives)
            positives = positives[order]
            weights, saturated = (None if one is None else one[order] for one in (weights, saturated))
        first = _first_of_each(positives)
        distinct = positives[first][::-1]
        tp = (len(positives) - first)[::-1]
        fp, fp_above = np.zeros((2, len(distinct)), np.int64)
        count, fp_at = 0, None if threshold is None else np.asarray(0)
        for part in negatives:
            part.sort()
            count += len(part)
            fp += len(part) - np.searchsorted(part, distinct, side="left")
            fp_above += len(part) - np.searchsorted(part, distinct, side="right")
            fp_at = None if fp_at is None else np.asarray(fp_at + _above(part, threshold))
        return cls(
            tp=tp,
            fp=fp,
            fp_above=fp_above,
            positives=len(positives),
            negatives=count,
            tp_at=_above(positives, threshold),
            fp_at=fp_at,
            overlap=_sums(weights, tp),
            fpr_limit=fpr_limit,
            saturated=_sums(saturated, tp),
        )

    @property
    def gained(self) -> Counts:
        """Number of positives with exactly the score of each threshold, shape (..., k)."""
        return np.diff(self.tp, axis=-1, prepend=0)


def _first_of_each(ascending: npt.NDArray[np.floating]) -> Counts:
    """The first position of each distinct value."""
    return np.flatnonzero(np.concatenate([[True], ascending[1:] != ascending[:-1]])[: len(ascending)])


def _sums(weights: npt.NDArray[np.float64] | None, tp: Counts) -> npt.NDArray[np.float64] | None:
    """Sum of the weights of the positives at or above each threshold; the weights are in ascending order of scores."""
    return None if weights is None else np.cumsum(weights[::-1])[tp - 1]


def _above(ascending: npt.NDArray[np.floating], threshold: float | None) -> Counts | None:
    if threshold is None:
        return None
    # With a threshold of another type searchsorted converts all scores. Rounding down keeps the count the same.
    with np.errstate(over="ignore"):
        rounded = ascending.dtype.type(threshold)
    rounded = rounded if float(rounded) <= threshold else np.nextafter(rounded, -np.inf, dtype=ascending.dtype)
    return np.asarray(len(ascending) - np.searchsorted(ascending, rounded, side="right"))


def measure(level: str, ranking: Ranking) -> dict[str, npt.NDArray[np.float64]]:
    """Compute all registered metrics of one level, without those of `extra_metrics`.

    Args:
        level: image or pixel.
        ranking: counts; with leading axes, such as draws, each metric has one value for each draw.

    Returns:
        `<level>_<name>` -> values, NaN where undefined.
    """
    metrics = [metric for metric in registry.METRICS if metric.level == level and not metric.on_request]
    return {metric.key: registry.load(metric.function)(ranking) for metric in metrics}


def ratio(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Divide two arrays.

    Args:
        numerator: any shape.
        denominator: a shape that broadcasts with the numerator.

    Returns:
        The quotient; NaN, for undefined, where the denominator is 0.
    """
    top, bottom = np.broadcast_arrays(*(np.asarray(array, dtype=np.float64) for array in (numerator, denominator)))
    quotient: npt.NDArray[np.float64] = np.divide(top, bottom, out=np.full(bottom.shape, np.nan), where=bottom != 0)
    return quotient

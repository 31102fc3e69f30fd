"""Ranking: how many positives and negatives are called anomalous at each threshold that matters.

Every metric here is a function of these counts, and works along their last axis: what it says of one set of scores it
says of two thousand resamples of them at once (see intervals.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness import registry

Counts = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Ranking:
    """Counts at the distinct scores of what is anomalous (the positives), highest first.

    Between two of these thresholds only normal scores (negatives) change sides, so no curve bends there.

    Attributes:
        tp: positives at or above each threshold, shape (..., k).
        fp: negatives at or above each threshold, shape (..., k).
        fp_above: negatives strictly above each threshold, shape (..., k): less than `fp` where scores are tied.
        positives, negatives: how many there are.
        tp_at, fp_at: those above the threshold fixed beforehand, shape (...); None where none is fixed.
        overlap: mean share of the anomalous regions at or above each threshold, shape (k,); None where there are none.
        fpr_limit: largest false positive rate that counts for AUPRO.
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

    @classmethod
    def of(
        cls,
        scores: npt.NDArray[np.floating],
        truth: npt.NDArray[np.bool_],
        threshold: float | None = None,
        weights: npt.NDArray[np.float64] | None = None,
        fpr_limit: float = 0.3,
    ) -> Ranking:
        """Counts of scores and truth of the same shape.

        Args:
            scores: larger is more anomalous.
            truth: True is anomalous.
            threshold: what is above it is called anomalous.
            weights: of each anomalous score in the mean share of regions, in C order; see `regions.weights`.
            fpr_limit: see above.
        """
        positives, negatives = scores[truth], scores[~truth]
        negatives.sort()
        if weights is None:
            positives.sort()
        else:
            order = np.argsort(positives)
            positives, weights = positives[order], weights[order]
        first = _first_of_each(positives)
        distinct = positives[first][::-1]
        tp = (len(positives) - first)[::-1]
        return cls(
            tp=tp,
            fp=len(negatives) - np.searchsorted(negatives, distinct, side="left"),
            fp_above=len(negatives) - np.searchsorted(negatives, distinct, side="right"),
            positives=len(positives),
            negatives=len(negatives),
            tp_at=_above(positives, threshold),
            fp_at=_above(negatives, threshold),
            overlap=None if weights is None else np.cumsum(weights[::-1])[tp - 1],
            fpr_limit=fpr_limit,
        )

    @property
    def gained(self) -> Counts:
        """Positives that each threshold adds to those above it, shape (..., k)."""
        return np.diff(self.tp, axis=-1, prepend=0)


def _first_of_each(ascending: npt.NDArray[np.floating]) -> Counts:
    """Where each distinct value begins."""
    return np.flatnonzero(np.concatenate([[True], ascending[1:] != ascending[:-1]])[: len(ascending)])


def _above(ascending: npt.NDArray[np.floating], threshold: float | None) -> Counts | None:
    if threshold is None:
        return None
    # In the scores' own type, or searchsorted would convert them all; rounded down, so that the answer is the same.
    with np.errstate(over="ignore"):
        own = ascending.dtype.type(threshold)
    own = own if float(own) <= threshold else np.nextafter(own, -np.inf, dtype=ascending.dtype)
    return np.asarray(len(ascending) - np.searchsorted(ascending, own, side="right"))


def measure(level: str, ranking: Ranking) -> dict[str, npt.NDArray[np.float64]]:
    """All registered metrics of one level.

    Args:
        level: image or pixel.
        ranking: counts; with leading axes, such as draws, each metric gets one value a draw.

    Returns:
        `<level>_<name>` -> values, NaN where undefined.
    """
    return {metric.key: registry.load(metric.function)(ranking) for metric in registry.METRICS if metric.level == level}


def ratio(part: npt.ArrayLike, whole: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """part / whole; NaN, which stands for undefined, where whole is 0."""
    part, whole = np.broadcast_arrays(np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64))
    quotient: npt.NDArray[np.float64] = np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole != 0)
    return quotient

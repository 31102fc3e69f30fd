"""Precision, recall, F1 and counts of errors at the run's threshold, average precision, and the largest F1.

A score above the threshold is predicted anomalous. Every function takes a `Ranking` and gives one value for each draw,
and NaN where the metric is undefined.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from harness.metrics.ranking import Ranking, ratio

Values = npt.NDArray[np.float64]
UNDEFINED = np.array(np.nan)


def average_precision(ranking: Ranking) -> Values:
    """AP = sum over thresholds of (R_n - R_{n-1}) P_n, without interpolation, as in scikit-learn.

    Undefined where only one class is in the test set.
    """
    precision = ratio(ranking.tp, ranking.tp + ranking.fp)
    # A draw may have no score above a threshold. Its precision is NaN there, and the threshold adds no recall.
    area = np.nansum(ranking.gained * precision, axis=-1)
    return ratio(area, ranking.positives if ranking.negatives else 0)


def f1_max(ranking: Ranking) -> Values:
    """The largest F1 over all thresholds. F1Max is an upper bound, since its threshold depends on the test labels.

    Undefined where only one class is in the test set.
    """
    if not (ranking.positives and ranking.negatives):
        return UNDEFINED
    return np.asarray((2 * ranking.tp / (ranking.tp + ranking.fp + ranking.positives)).max(axis=-1))


def f1_score(ranking: Ranking) -> Values:
    """F1 = 2 TP / (2 TP + FP + FN) at the threshold.

    Undefined without a threshold, or where only one class is in the test set.
    """
    if ranking.tp_at is None or ranking.fp_at is None or not (ranking.positives and ranking.negatives):
        return UNDEFINED
    return ratio(2 * ranking.tp_at, ranking.tp_at + ranking.fp_at + ranking.positives)


def precision(ranking: Ranking) -> Values:
    """TP / (TP + FP) at the threshold.

    Undefined without a threshold, without a score above it, or where only one class is in the test set.
    """
    if ranking.tp_at is None or ranking.fp_at is None or not (ranking.positives and ranking.negatives):
        return UNDEFINED
    return ratio(ranking.tp_at, ranking.tp_at + ranking.fp_at)


def recall(ranking: Ranking) -> Values:
    """TP / (TP + FN) at the threshold. Undefined without a threshold, or without anomalous scores."""
    return UNDEFINED if ranking.tp_at is None else ratio(ranking.tp_at, ranking.positives)


def false_positives(ranking: Ranking) -> Values:
    """Number of normal scores above the threshold. Undefined without a threshold, or without normal scores."""
    return UNDEFINED if ranking.fp_at is None or not ranking.negatives else np.asarray(ranking.fp_at, dtype=np.float64)


def false_negatives(ranking: Ranking) -> Values:
    """Number of anomalous scores not above the threshold. Undefined without a threshold or anomalous scores."""
    if ranking.tp_at is None or not ranking.positives:
        return UNDEFINED
    return np.asarray(ranking.positives - ranking.tp_at, dtype=np.float64)

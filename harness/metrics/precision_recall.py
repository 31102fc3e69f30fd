"""Precision and recall: at the threshold fixed beforehand, their curve's average, and the best F1 on it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from harness.metrics.ranking import Ranking, ratio

Values = npt.NDArray[np.float64]
UNDEFINED = np.array(np.nan)


def average_precision(ranking: Ranking) -> Values:
    """AP = sum over thresholds of (R_n - R_{n-1}) P_n, without interpolation, as scikit-learn defines it.

    Undefined where a class is absent.
    """
    precision = ratio(ranking.tp, ranking.tp + ranking.fp)
    # A resample may lack what is above a threshold: it gains nothing there either.
    area = np.nansum(ranking.gained * precision, axis=-1)
    return ratio(area, ranking.positives if ranking.negatives else 0)


def f1_max(ranking: Ranking) -> Values:
    """The largest F1 over all thresholds: an oracle's, since it looks at the test labels.

    Undefined where a class is absent.
    """
    if not (ranking.positives and ranking.negatives):
        return UNDEFINED
    return np.asarray((2 * ranking.tp / (ranking.tp + ranking.fp + ranking.positives)).max(axis=-1))


def f1_score(ranking: Ranking) -> Values:
    """F1 = 2 TP / (2 TP + FP + FN), with `score > threshold` as the prediction.

    Undefined where there is no threshold or a class is absent.
    """
    if ranking.tp_at is None or ranking.fp_at is None or not (ranking.positives and ranking.negatives):
        return UNDEFINED
    return ratio(2 * ranking.tp_at, ranking.tp_at + ranking.fp_at + ranking.positives)


def precision(ranking: Ranking) -> Values:
    """TP / (TP + FP) at the threshold. Undefined without one, without a class, or where nothing is above it."""
    if ranking.tp_at is None or ranking.fp_at is None or not (ranking.positives and ranking.negatives):
        return UNDEFINED
    return ratio(ranking.tp_at, ranking.tp_at + ranking.fp_at)


def recall(ranking: Ranking) -> Values:
    """TP / (TP + FN) at the threshold. Undefined without one, or without anomalous scores."""
    return UNDEFINED if ranking.tp_at is None else ratio(ranking.tp_at, ranking.positives)


def false_positives(ranking: Ranking) -> Values:
    """How many normal ones are above the threshold. Undefined without one, or without normal scores."""
    return UNDEFINED if ranking.fp_at is None or not ranking.negatives else np.asarray(ranking.fp_at, dtype=np.float64)


def false_negatives(ranking: Ranking) -> Values:
    """How many anomalous ones are not above the threshold. Undefined without one, or without anomalous scores."""
    if ranking.tp_at is None or not ranking.positives:
        return UNDEFINED
    return np.asarray(ranking.positives - ranking.tp_at, dtype=np.float64)

"""Points of the ROC and precision-recall curves, at most about 100 for the plots of a page."""

from __future__ import annotations

import numpy as np

from harness.metrics.ranking import Counts, Ranking, ratio

POINTS = 100


def curves(ranking: Ranking) -> dict[str, list[float]]:
    """Points of the ROC curve, from (0, 0) to (1, 1), and of the precision-recall curve.

    With few thresholds the points are all corners. With many thresholds the points are evenly spread along both axes.

    Args:
        ranking: counts at each threshold.

    Returns:
        Lists by axis: fpr, tpr, recall and precision; empty where only one class is in the test set.
    """
    if not (ranking.positives and ranking.negatives):
        return {}
    places = _evenly_spread(ranking.tp, ranking.fp)
    tp, fp, fp_above = ranking.tp[places], ranking.fp[places], ranking.fp_above[places]
    tp_above = np.concatenate([[0], ranking.tp[:-1]])[places]
    # Each threshold is a step to the right and a step up; with tied scores the second step is a slope.
    fpr = np.stack([fp_above, fp], axis=1).ravel() / ranking.negatives
    tpr = np.stack([tp_above, tp], axis=1).ravel() / ranking.positives
    precision = ratio(tp, tp + fp)
    return {
        "fpr": _rounded([0, *fpr, 1]),
        "tpr": _rounded([0, *tpr, 1]),
        "recall": _rounded([0, *(tp / ranking.positives)]),
        "precision": _rounded([precision[0], *precision]),
    }


def _evenly_spread(tp: Counts, fp: Counts) -> Counts:
    if len(tp) <= POINTS:
        return np.arange(len(tp))
    places = [np.searchsorted(counts, np.linspace(counts[0], counts[-1], POINTS // 2)) for counts in (tp, fp)]
    return np.unique(np.concatenate([*places, [0, len(tp) - 1]]))


def _rounded(values: list[float]) -> list[float]:
    return [round(float(value), 5) for value in values]

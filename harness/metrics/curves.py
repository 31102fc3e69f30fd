"""Points of the ROC and precision-recall curves, few enough to be drawn by a page."""

from __future__ import annotations

import numpy as np

from harness.metrics.ranking import Counts, Ranking, ratio

POINTS = 100


def curves(ranking: Ranking) -> dict[str, list[float]]:
    """fpr and tpr of the ROC curve from (0, 0) to (1, 1), recall and precision; empty where a class is absent.

    Corners are kept where they are few; otherwise points are taken evenly along both axes.
    """
    if not (ranking.positives and ranking.negatives):
        return {}
    keep = _spread(ranking.tp, ranking.fp)
    tp, fp, above = ranking.tp[keep], ranking.fp[keep], ranking.fp_above[keep]
    before = np.concatenate([[0], ranking.tp[:-1]])[keep]
    # A step to the right, then up (or slanting, where scores are tied).
    fpr = np.stack([above, fp], axis=1).ravel() / ranking.negatives
    tpr = np.stack([before, tp], axis=1).ravel() / ranking.positives
    precision = ratio(tp, tp + fp)
    return {
        "fpr": _rounded([0, *fpr, 1]),
        "tpr": _rounded([0, *tpr, 1]),
        "recall": _rounded([0, *(tp / ranking.positives)]),
        "precision": _rounded([precision[0], *precision]),
    }


def _spread(tp: Counts, fp: Counts) -> Counts:
    if len(tp) <= POINTS:
        return np.arange(len(tp))
    along = [np.searchsorted(counts, np.linspace(counts[0], counts[-1], POINTS // 2)) for counts in (tp, fp)]
    return np.unique(np.concatenate([*along, [0, len(tp) - 1]]))


def _rounded(values: list[float]) -> list[float]:
    return [round(float(value), 5) for value in values]

"""False positive rate at the threshold that detects 95% of the anomalous images or pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from harness.metrics.ranking import Ranking, ratio

TRUE_POSITIVE_RATE = 0.95


def fpr95(ranking: Ranking) -> npt.NDArray[np.float64]:
    """FPR at the highest threshold with TP / (TP + FN) >= 95%; smaller is better (Hendrycks & Gimpel, 2017).

    A score at the threshold counts as anomalous.

    Args:
        ranking: counts at each threshold.

    Returns:
        A share of the normal images or pixels, for each draw; NaN where only one class is in the test set.
    """
    if not (ranking.positives and ranking.negatives):
        return np.full(ranking.tp.shape[:-1], np.nan)
    # Integers avoid a rounding error that would need 96 of 100.
    reached = 100 * ranking.tp >= round(100 * TRUE_POSITIVE_RATE) * ranking.positives
    first = reached.argmax(axis=-1)
    return ratio(np.take_along_axis(ranking.fp, first[..., None], axis=-1)[..., 0], ranking.negatives)

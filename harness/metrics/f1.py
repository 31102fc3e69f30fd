"""F1: at the threshold fixed beforehand, and the best over all thresholds (which knows the test labels)."""

from __future__ import annotations

import numpy as np

from harness.metrics.ranking import Ranking


def f1_score(ranking: Ranking) -> float | None:
    """F1 = 2 TP / (2 TP + FP + FN), with `score > threshold` as the prediction.

    None where there is no threshold or a class is absent.
    """
    if ranking.threshold is None or not ranking.both_classes:
        return None
    threshold = ranking.threshold
    true = len(ranking.positives) - int(np.searchsorted(ranking.positives, threshold, side="right"))
    false = len(ranking.negatives) - int(np.searchsorted(ranking.negatives, threshold, side="right"))
    return 2 * true / (true + false + len(ranking.positives))


def f1_max(ranking: Ranking) -> float | None:
    """The largest F1 over all thresholds: an oracle's, since it looks at the test labels.

    Only thresholds that equal a positive's score need trying: one between them only lets more negatives through.
    None where a class is absent.
    """
    if not ranking.both_classes:
        return None
    true, false = ranking.true_positives, ranking.false_positives
    return float((2 * true / (true + false + len(ranking.positives))).max())

"""Area under the receiver operating characteristic."""

from __future__ import annotations

import numpy as np

from harness.metrics.ranking import Ranking


def auroc(ranking: Ranking) -> float | None:
    """The chance that an anomalous score is above a normal one, ties counting half (Mann-Whitney U / pn).

    Exact, ties included. None where a class is absent.
    """
    if not ranking.both_classes:
        return None
    below = np.searchsorted(ranking.negatives, ranking.positives, side="left")
    below_or_equal = np.searchsorted(ranking.negatives, ranking.positives, side="right")
    wins = float(below.sum(dtype=np.float64) + below_or_equal.sum(dtype=np.float64)) / 2
    return wins / (len(ranking.positives) * len(ranking.negatives))

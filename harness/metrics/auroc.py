"""Area under the receiver operating characteristic."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from harness.metrics.ranking import Ranking, ratio


def auroc(ranking: Ranking) -> npt.NDArray[np.float64]:
    """Probability that an anomalous score is above a normal score; a tie counts half (Mann-Whitney U / pn).

    Args:
        ranking: counts at each threshold.

    Returns:
        The exact value, for each draw; NaN where only one class is in the test set.
    """
    below = ranking.negatives - (ranking.fp + ranking.fp_above) / 2
    wins = (ranking.gained * below).sum(axis=-1)
    return ratio(wins, ranking.positives * ranking.negatives)

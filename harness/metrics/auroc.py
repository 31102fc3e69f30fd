"""Area under the receiver operating characteristic."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from harness.metrics.ranking import Ranking, ratio


def auroc(ranking: Ranking) -> npt.NDArray[np.float64]:
    """The chance that an anomalous score is above a normal one, ties counting half (Mann-Whitney U / pn).

    Exact, ties included. Undefined where a class is absent.
    """
    below = ranking.negatives - (ranking.fp + ranking.fp_above) / 2
    wins = (ranking.gained * below).sum(axis=-1)
    return ratio(wins, ranking.positives * ranking.negatives)

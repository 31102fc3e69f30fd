"""Area under the per-region overlap curve."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from harness.metrics.ranking import Ranking


def aupro(ranking: Ranking) -> npt.NDArray[np.float64]:
    """Mean overlap of the anomalous regions against the false positive rate, up to `fpr_limit`, divided by it.

    The overlap of a region at a threshold is the share of its pixels at or above it; every region counts the same,
    however small (Bergmann et al., MVTec AD, IJCV 2021, section 5.2). Thresholds are all distinct scores; between
    them the curve is straight, at the limit it is interpolated. Undefined without regions or without normal pixels.
    """
    if ranking.overlap is None or not len(ranking.overlap) or not ranking.negatives:
        return np.array(np.nan)
    rate, overlap = pro_curve(ranking)
    limit = ranking.fpr_limit
    last = int(np.searchsorted(rate, limit, side="right"))
    rate_in, overlap_in = rate[:last], overlap[:last]
    if last < len(rate):
        at_limit = np.interp(limit, rate[last - 1 : last + 1], overlap[last - 1 : last + 1])
        rate_in, overlap_in = np.append(rate_in, limit), np.append(overlap_in, at_limit)
    area = (np.diff(rate_in) * (overlap_in[1:] + overlap_in[:-1]) / 2).sum()
    return np.asarray(area / limit)


def pro_curve(ranking: Ranking) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(false positive rate, mean overlap) from (0, 0) to (1, 1), with both ends of each straight piece.

    At a threshold first the normal pixels between it and the one before pass (to the right), then those tied with it
    together with the anomalous ones (straight to the next corner).
    """
    assert ranking.overlap is not None
    rate = np.empty(2 * len(ranking.fp) + 2)
    overlap = np.empty_like(rate)
    rate[0] = overlap[0] = 0
    rate[1:-1:2], rate[2:-1:2] = ranking.fp_above / ranking.negatives, ranking.fp / ranking.negatives
    overlap[1:-1:2], overlap[2:-1:2] = np.concatenate([[0], ranking.overlap[:-1]]), ranking.overlap
    rate[-1], overlap[-1] = 1, overlap[-2]
    return rate, overlap

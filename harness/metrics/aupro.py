"""Area under the per-region overlap curve."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from harness.metrics.extra import PixelCase
from harness.metrics.ranking import Ranking

STRICT_LIMIT = 0.05


def aupro(ranking: Ranking) -> npt.NDArray[np.float64]:
    """Area under the mean overlap of the anomalous regions up to the false positive rate `fpr_limit`, over this limit.

    The overlap of a region is the share of its pixels at or above the threshold. Every region has the same weight,
    whatever its size (Bergmann et al., MVTec AD, IJCV 2021, section 5.2). Thresholds are all distinct scores. Between
    two thresholds the curve is straight, and at the limit the curve is interpolated.

    Args:
        ranking: counts of pixels at each threshold.

    Returns:
        A number between 0 and 1; NaN without anomalous regions or without normal pixels.
    """
    if ranking.overlap is None or not len(ranking.overlap) or not ranking.negatives:
        return np.array(np.nan)
    rate, overlap = pro_curve(ranking)
    limit = ranking.fpr_limit
    last = int(np.searchsorted(rate, limit, side="right"))
    x, y = rate[:last], overlap[:last]
    if last < len(rate):
        at_limit = np.interp(limit, rate[last - 1 : last + 1], overlap[last - 1 : last + 1])
        x, y = np.append(x, limit), np.append(y, at_limit)
    area = (np.diff(x) * (y[1:] + y[:-1]) / 2).sum()
    return np.asarray(area / limit)


def aupro05(case: PixelCase) -> float:
    """AUPRO up to a false positive rate of 0.05, the limit of MVTec AD 2 (Heckler-Kram et al., 2025).

    Args:
        case: of the run.

    Returns:
        A number between 0 and 1; NaN where AUPRO is undefined.
    """
    return float(aupro(replace(case.ranking, fpr_limit=STRICT_LIMIT)))


def pro_curve(ranking: Ranking) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Corners of the per-region overlap curve: false positive rate and mean overlap, from (0, 0) to (1, 1).

    Each threshold adds two straight lines. The first goes to the right: normal pixels between the previous threshold
    and this one. The second goes to the next corner: normal and anomalous pixels with exactly this score.
    """
    assert ranking.overlap is not None
    rate = np.empty(2 * len(ranking.fp) + 2)
    overlap = np.empty_like(rate)
    rate[0] = overlap[0] = 0
    rate[1:-1:2], rate[2:-1:2] = ranking.fp_above / ranking.negatives, ranking.fp / ranking.negatives
    overlap[1:-1:2], overlap[2:-1:2] = np.concatenate([[0], ranking.overlap[:-1]]), ranking.overlap
    rate[-1], overlap[-1] = 1, overlap[-2]
    return rate, overlap

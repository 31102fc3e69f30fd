"""Area under the per-region overlap curve."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from harness.metrics.extra import PixelCase
from harness.metrics.ranking import Ranking

Overlap = npt.NDArray[np.float64]
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
    return area_under(ranking, ranking.overlap, ranking.fpr_limit)


def area_under(ranking: Ranking, overlap: Overlap | None, limit: float) -> npt.NDArray[np.float64]:
    """Area under an overlap curve up to a false positive rate, over this rate.

    Between two thresholds the curve is straight, and at the limit it is interpolated.

    Args:
        ranking: counts of pixels at each threshold.
        overlap: mean overlap of the regions at each threshold, shape (k,); None without regions.
        limit: the false positive rate.

    Returns:
        A number between 0 and 1; NaN without anomalous regions or without normal pixels.
    """
    if overlap is None or not len(overlap) or not ranking.negatives:
        return np.array(np.nan)
    x, y = overlap_curve(ranking, overlap)
    last = int(np.searchsorted(x, limit, side="right"))
    if last < len(x):
        at_limit = np.interp(limit, x[last - 1 : last + 1], y[last - 1 : last + 1])
        x, y = np.append(x[:last], limit), np.append(y[:last], at_limit)
    area = (np.diff(x) * (y[1:] + y[:-1]) / 2).sum()
    return np.asarray(area / limit)


def aupro5(case: PixelCase) -> float:
    """AUPRO up to a false positive rate of 0.05, the limit of MVTec AD 2 (Heckler-Kram et al., 2025).

    Args:
        case: of the run.

    Returns:
        A number between 0 and 1; NaN where AUPRO is undefined.
    """
    return float(aupro(replace(case.ranking, fpr_limit=STRICT_LIMIT)))


def overlap_curve(ranking: Ranking, overlap: Overlap) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Corners of an overlap curve: false positive rate and mean overlap, from (0, 0) to the rate 1.

    Each threshold adds two straight lines. The first goes to the right: normal pixels between the previous threshold
    and this one. The second goes to the next corner: normal and anomalous pixels with exactly this score.

    Args:
        ranking: counts of pixels at each threshold.
        overlap: mean overlap of the regions at each threshold, shape (k,).
    """
    x = np.empty(2 * len(ranking.fp) + 2)
    y = np.empty_like(x)
    x[0] = y[0] = 0
    x[1:-1:2], x[2:-1:2] = ranking.fp_above / ranking.negatives, ranking.fp / ranking.negatives
    y[1:-1:2], y[2:-1:2] = np.concatenate([[0], overlap[:-1]]), overlap
    x[-1], y[-1] = 1, y[-2]
    return x, y

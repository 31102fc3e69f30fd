"""Split conformal thresholds: a bound on the rate of false alarms, from scores of normal images.

Papadopoulos et al., Inductive confidence machines for regression, ECML 2002. Laxhammar and Falkman, Conformal anomaly
detection, 2010. Vovk, Cross-conformal predictors, 2015, for scores of several models.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class ConformalThreshold(NamedTuple):
    """A threshold with the rate of false alarms that holds for it.

    Attributes:
        value: the threshold; a higher score is anomalous.
        false_alarms: largest expected share of normal images above the threshold.
    """

    value: float
    false_alarms: float


def conformal_threshold(scores: npt.NDArray[np.floating], false_alarms: float) -> ConformalThreshold:
    """The ceil((n + 1)(1 - rate))-th smallest of n scores of normal images.

    A new normal image has each of the n + 1 ranks with the same probability. So its score is above the threshold with
    a probability of at most k / (n + 1), where k is the largest whole number with k / (n + 1) <= rate. With fewer than
    1 / rate - 1 images there is no such number above 0. Then the threshold is the highest score, for 1 / (n + 1).

    Args:
        scores: (n,) scores of normal images, by a model that did not learn from them; at least one.
        false_alarms: the asked rate, above 0 and below 1.
    """
    count = len(scores)
    # Fractions of the written number: (n + 1) * 0.01 in floating point may be below the whole number.
    above = max(1, int((count + 1) * Fraction(str(false_alarms))))
    return ConformalThreshold(float(np.sort(scores)[count - above]), above / (count + 1))


def images_for(false_alarms: float) -> int:
    """The smallest number of normal images that can promise a rate of false alarms, such as 99 images for 0.01."""
    return ceil(1 / Fraction(str(false_alarms))) - 1

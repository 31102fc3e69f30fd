"""Ranks over several data sets, Friedman's test and Nemenyi's critical difference.

J. Demsar: Statistical comparisons of classifiers over multiple data sets, Journal of Machine Learning Research 7, 2006,
section 3.2.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

LEVEL = 0.05
FEWEST_MEMBERS, FEWEST_SETS = 3, 2
# Values that differ by less are equal: a mean over seeds depends on their order in its last digits.
DIGITS = 9

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ranks:
    """The ranks of k members on n data sets.

    Attributes:
        ranks: shape (k, n); 1 is the best, and equal members share the mean of their ranks.
        p: p-value of Friedman's test that all members are equally good, from its chi-squared approximation.
        critical: Nemenyi's critical difference at `LEVEL`. Mean ranks that differ by more are significantly different.
    """

    ranks: Floats
    p: float
    critical: float

    @property
    def means(self) -> Floats:
        """Mean rank of each member, shape (k,)."""
        means: Floats = self.ranks.mean(axis=1)
        return means

    @property
    def significant(self) -> bool:
        """Whether Friedman's test finds a difference; the critical difference counts only then."""
        return self.p < LEVEL

    @property
    def never_significant(self) -> bool:
        """Whether even the largest possible difference of mean ranks, k - 1, is not above the critical one."""
        return self.critical >= len(self.ranks) - 1


def rank(values: Floats) -> Ranks:
    """Rank members on each data set, and test the ranks.

    Args:
        values: shape (k, n): a value of each member on each data set; larger is better.

    Returns:
        The ranks and the test.

    Raises:
        ValueError: fewer than 3 members or 2 data sets.
    """
    from scipy.stats import friedmanchisquare, rankdata

    members, sets = values.shape
    if members < FEWEST_MEMBERS or sets < FEWEST_SETS:
        raise ValueError(
            f"{members} members on {sets} data sets found; expected {FEWEST_MEMBERS} members on {FEWEST_SETS} or more."
        )
    ranks = rankdata(-values.round(DIGITS), axis=0)
    # Without any difference, the statistic of the test is 0 / 0.
    all_equal = bool((ranks == ranks[0]).all())
    p = 1.0 if all_equal else float(friedmanchisquare(*ranks).pvalue)
    return Ranks(ranks, p, critical_difference(members, sets))


@cache
def critical_difference(members: int, sets: int) -> float:
    """Nemenyi's critical difference of mean ranks: q * sqrt(k (k + 1) / (6 n)).

    Args:
        members: k, at least 2.
        sets: n, the number of data sets.

    Returns:
        The difference. q is the quantile of the studentized range of k means at 1 - `LEVEL` with infinite degrees of
        freedom, divided by the square root of 2.
    """
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(1 - LEVEL, members, math.inf)) / math.sqrt(2)
    return q * math.sqrt(members * (members + 1) / (6 * sets))

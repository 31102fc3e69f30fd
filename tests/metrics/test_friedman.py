"""Ranks over data sets, against the example and the table of Demsar's paper and a slow reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import chi2, studentized_range

from harness.metrics.friedman import LEVEL, critical_difference, rank

# Demsar 2006, table 6: AUC of four variants of C4.5 on 14 data sets. The paper's ranks separate two values of the row
# before the last, which are equal after rounding; 0.97501 does the same.
PAPER = """
0.763 0.768 0.771 0.798
0.599 0.591 0.590 0.569
0.954 0.971 0.968 0.967
0.628 0.661 0.654 0.657
0.882 0.888 0.886 0.898
0.936 0.931 0.916 0.931
0.661 0.668 0.609 0.685
0.583 0.583 0.563 0.625
0.775 0.838 0.866 0.875
1.000 1.000 1.000 1.000
0.940 0.962 0.965 0.962
0.619 0.666 0.614 0.669
0.972 0.981 0.97501 0.975
0.957 0.978 0.946 0.970
"""


def test_the_example_of_the_paper() -> None:
    values = np.array([line.split() for line in PAPER.split("\n") if line], dtype=float).T
    ranking = rank(values)
    assert ranking.means.round(3).tolist() == [3.143, 2.000, 2.893, 1.964]
    assert ranking.critical == pytest.approx(1.25, abs=0.005)
    assert ranking.significant
    assert not ranking.never_significant
    # The paper's statistic, 9.28, does not correct for ties; with the correction the p-value is smaller.
    assert ranking.p < chi2.sf(9.28, 3)


@pytest.mark.parametrize(
    ("members", "q"),
    [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (7, 2.949), (8, 3.031), (9, 3.102), (10, 3.164)],
)
def test_the_critical_difference_is_that_of_the_published_table(members: int, q: float) -> None:
    """Demsar 2006, table 5 (a), at 5%; some of its values are cut, and not rounded, to three digits."""
    ratio = critical_difference(members, 14) / math.sqrt(members * (members + 1) / (6 * 14))
    assert ratio == pytest.approx(q, abs=0.001)
    assert studentized_range.cdf(ratio * math.sqrt(2), members, math.inf) == pytest.approx(1 - LEVEL, abs=1e-6)


def test_a_hand_worked_example() -> None:
    """Three members on four data sets without ties: 1 2 3, 1 2 3, 1 3 2, 2 1 3."""
    values = np.array([[0.9, 0.9, 0.9, 0.8], [0.8, 0.8, 0.7, 0.9], [0.7, 0.7, 0.8, 0.7]])
    ranking = rank(values)
    assert ranking.ranks.tolist() == [[1, 1, 1, 2], [2, 2, 3, 1], [3, 3, 2, 3]]
    assert ranking.means.tolist() == [1.25, 2.0, 2.75]
    # 12 * 4 / (3 * 4) * (1.25^2 + 2^2 + 2.75^2 - 3 * 4^2 / 4) = 4.5, with 2 degrees of freedom.
    assert ranking.p == pytest.approx(math.exp(-4.5 / 2))
    assert not ranking.significant


def test_ties_share_their_mean_rank() -> None:
    ranking = rank(np.array([[0.9, 0.5], [0.9, 0.5], [0.1, 0.5]]))
    assert ranking.ranks.tolist() == [[1.5, 2], [1.5, 2], [3, 2]]
    # Equal values whose means over seeds differ in the last digit only.
    assert 0.1 + 0.2 != 0.3
    ranking = rank(np.array([[0.1 + 0.2, 0.3], [0.3, 0.1 + 0.2], [0.0, 0.0]]))
    assert ranking.ranks.tolist() == [[1.5, 1.5], [1.5, 1.5], [3, 3]]


def test_equal_members_do_not_differ() -> None:
    ranking = rank(np.ones((3, 4)))
    assert (ranking.means.tolist(), ranking.p, ranking.significant) == ([2, 2, 2], 1.0, False)


def test_with_few_data_sets_no_difference_can_be_significant() -> None:
    """The largest difference of three mean ranks is 2."""
    values = np.array([[0.9] * 3, [0.8] * 3, [0.7] * 3])
    few, enough = rank(values[:, :2]), rank(values)
    assert few.critical == pytest.approx(2.343, abs=0.001)
    assert few.never_significant
    assert not enough.never_significant


@pytest.mark.parametrize("shape", [(2, 5), (3, 1), (0, 0)])
def test_too_little_to_rank_is_refused(shape: tuple[int, int]) -> None:
    message = f"{shape[0]} members on {shape[1]} data sets found; expected 3 members on 2 or more"
    with pytest.raises(ValueError, match=message):
        rank(np.zeros(shape))


def test_equally_good_members_rarely_differ() -> None:
    """Under the hypothesis, about 5% of the tests find a difference, as do pairs by the critical difference."""
    rng = np.random.default_rng(1)
    tests, friedman, nemenyi = 200, 0, 0
    for _ in range(tests):
        ranking = rank(rng.random((6, 15)))
        friedman += ranking.significant
        nemenyi += bool(np.ptp(ranking.means) > ranking.critical)
    most = LEVEL + 3 * math.sqrt(LEVEL * (1 - LEVEL) / tests)
    assert friedman / tests <= most
    assert nemenyi / tests <= most

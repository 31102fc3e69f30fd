"""The comparison with the best: few false differences, and those that are there are seen."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from harness.metrics.best import LEVEL, compare_with_best
from harness.metrics.delong import Components, difference, paired_test


def report(rng: np.random.Generator, aurocs: list[float], normal: int, anomalous: int, categories: int = 1,
           correlation: float = 0.8) -> list[list[Components]]:  # fmt: skip
    """Components of configurations with these true AUROCs, best first; scores of an image are correlated."""
    k, n = len(aurocs), normal + anomalous
    labels = np.arange(n) >= normal
    rows: list[list[Components]] = [[] for _ in range(k)]
    for _ in range(categories):
        scores = np.sqrt(correlation) * rng.standard_normal(n) + np.sqrt(1 - correlation) * rng.standard_normal((k, n))
        scores += np.sqrt(2) * norm.ppf(aurocs)[:, None] * labels
        for row, values in zip(rows, scores, strict=True):
            row.append(Components.of(values, labels))
    return sorted(rows, key=lambda row: -np.mean([one.auroc for one in row]))


@pytest.mark.parametrize(("auroc", "normal", "anomalous", "categories"), [(0.8, 60, 60, 1), (0.95, 15, 10, 3)])
def test_of_equally_good_ones_few_reports_call_any_worse(
    auroc: float, normal: int, anomalous: int, categories: int
) -> None:
    rng = np.random.default_rng(7)
    reports, false = 100, 0
    for _ in range(reports):
        comparison = compare_with_best(report(rng, [auroc] * 10, normal, anomalous, categories), resamples=200)
        assert comparison is not None
        false += bool((comparison.p < LEVEL).any())
    # Three standard errors of a share of 5%.
    assert false / reports <= LEVEL + 3 * np.sqrt(LEVEL * (1 - LEVEL) / reports)


def test_clear_differences_are_seen_and_their_size_is_inside_the_bound() -> None:
    rng = np.random.default_rng(8)
    rows = report(rng, [0.97, 0.97, 0.75, 0.7], 60, 60)
    comparison = compare_with_best(rows)
    assert comparison is not None
    assert (comparison.p < LEVEL).tolist() == [False, False, True, True]
    assert comparison.p[0] == 1
    assert comparison.upper[0] == 0
    assert comparison.upper[2] > 0.97 - 0.75 - 0.1
    assert (comparison.upper[1:] > [rows[0][0].auroc - row[0].auroc for row in rows[1:]]).all()


def test_more_configurations_make_a_difference_less_certain() -> None:
    """The same two, alone and as the ends of many."""
    rng = np.random.default_rng(9)
    rows = report(rng, [0.9] * 30, 20, 40)
    alone, among = compare_with_best([rows[0], rows[-1]]), compare_with_best(rows)
    assert alone is not None and among is not None
    single = paired_test(rows[0], rows[-1])
    assert single is not None
    assert single < LEVEL <= among.p[-1]
    assert alone.p[1] < among.p[-1]
    assert (np.diff(among.p) <= 0).all()


def test_the_bound_of_a_single_pair_is_that_of_the_normal_distribution() -> None:
    rows = report(np.random.default_rng(10), [0.9, 0.85], 200, 200)
    comparison, values = compare_with_best(rows, resamples=50_000), difference(rows[0], rows[1])
    assert comparison is not None and values is not None
    assert comparison.upper[1] == pytest.approx(values[0] + 1.645 * values[1], rel=0.02)


def test_equal_scores_of_few_images_do_not_prove_equal_quality() -> None:
    labels = np.arange(60) >= 20
    one = Components.of(labels.astype(float), labels)
    comparison = compare_with_best([[one], [one]])
    assert comparison is not None
    # Of 20 normal images none differs: up to 14% of all may.
    assert comparison.upper.tolist() == [0, pytest.approx(1 - 0.05 ** (1 / 20))]
    assert comparison.p.tolist() == [1, 1]


def test_a_class_of_one_image_can_not_be_tested() -> None:
    labels = np.array([False, True, True, True])
    one = Components.of(np.arange(4.0), labels)
    assert compare_with_best([[one], [one]]) is None

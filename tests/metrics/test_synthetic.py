"""Synthetic defects: their AUROC, and how many configurations equal the first one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from harness.data.samples import Sample
from harness.metrics.evaluate import evaluate_predictions
from harness.metrics.synthetic import Wins, bootstrap, share_of_equals
from harness.predictions.detection import Predictions

KINDS = ("cutpaste", "perlin", "scratch")
POLICY = {"method": "held_out", "false_alarms": 0.1, "pixel_quantile": 0.9}


def predictions(scores: list[float], label: int, synthetic: bool = False) -> Predictions:
    samples = tuple(
        Sample(f"/{label}{synthetic}{i}", f"{label}{synthetic}{i}", label, "x", (), synthetic)
        for i in range(len(scores))
    )
    return Predictions(samples, np.array(scores), None, None)


def joined(*parts: Predictions) -> Predictions:
    samples = tuple(sample for part in parts for sample in part.samples)
    return Predictions(samples, np.concatenate([part.scores for part in parts]), None, None)


def wins(shift: float, seed: int, images: int = 10) -> Wins:
    """Scores of defects that are higher by a shift; an own noise of each configuration."""
    rng = np.random.default_rng(seed)
    pairs = [*itertools.product(KINDS, range(images))]
    scores = rng.standard_normal(len(pairs)) + shift
    return Wins.of(scores, [kind for kind, _ in pairs], [number for _, number in pairs], rng.standard_normal(images))


def test_no_metric_of_the_test_counts_synthetic_defects() -> None:
    test, held_out = joined(predictions([1.0, 2.0], 0), predictions([1.5, 3.0], 1)), predictions([0.0, 1.0, 2.0], 0)
    synthetic = predictions([0.5, 1.0, 9.0], 1, synthetic=True)
    plain = evaluate_predictions(test, held_out, POLICY)
    ranked = evaluate_predictions(joined(test, synthetic), held_out, POLICY)
    assert ranked.metrics == {**plain.metrics, "synthetic_AUROC": pytest.approx((1 + 1.5 + 3) / 9)}
    assert (ranked.intervals, ranked.defects, ranked.thresholds) == (plain.intervals, plain.defects, plain.thresholds)
    assert ranked.synthetic is not None
    assert ranked.synthetic.samples == synthetic.samples
    assert plain.synthetic is None


def test_the_bootstrap_is_about_the_auroc() -> None:
    one = wins(1.0, 0, images=40)
    draws = bootstrap([[one]], samples=2000)[0]
    assert one.pairs.shape == (3, 40, 40)
    assert draws.mean() == pytest.approx(one.pairs.mean(), abs=0.01)
    assert 0.01 < draws.std() < 0.1


def test_one_sample_of_the_bootstrap_by_a_slow_reference() -> None:
    one = wins(0.5, 3, images=4)
    (draw,) = bootstrap([[one]], samples=1, seed=7)[0]
    rng = np.random.default_rng(7)
    kinds, images = rng.dirichlet(np.ones(3), 1)[0], rng.dirichlet(np.ones(4), 1)[0]
    expected = sum(
        kinds[k] * images[b] * images[n] * one.pairs[k, b, n]
        for k, b, n in itertools.product(range(3), range(4), range(4))
    )
    assert draw == pytest.approx(expected)


def test_variants_of_a_defect_count_once_and_ties_half() -> None:
    one = Wins.of(np.array([1.0, 3.0, 2.0]), ["a", "a", "a"], [0, 0, 1], np.array([2.0, 0.0]))
    assert one.pairs.tolist() == [[[0.5, 1.0], [0.5, 1.0]]]


def test_a_clear_first_has_no_equals_and_copies_are_all_equal() -> None:
    assert share_of_equals([[wins(4.0, 0)], [wins(0.0, 1)], [wins(0.5, 2)]]) == 0
    assert share_of_equals([[wins(4.0, 0)], [wins(4.0, 0)], [wins(0.5, 2)]]) == 0.5
    assert share_of_equals([[wins(9.0, 0)], [wins(9.0, 1)], [wins(9.0, 2)]]) == 1


def test_more_images_and_more_categories_find_smaller_differences() -> None:
    def share(images: int, categories: int) -> float:
        first = [wins(1.6, seed, images) for seed in range(categories)]
        return share_of_equals([first, *([wins(1.0, 100 + seed, images) for seed in range(categories)],) * 1])

    assert share(5, 1) >= share(60, 4) == 0

"""Figures of named images, against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from harness.metrics.classification import (
    accuracy,
    confused,
    confusion,
    f1_of_labels,
    groups,
    macro_f1,
    macro_f1_draws,
    macro_f1_interval,
    tail,
)

TRUTH = np.array([0, 0, 0, 1, 1, 2])
SAID = np.array([0, 0, 1, 1, 2, 2])


def test_by_hand() -> None:
    counts = confusion(TRUTH, SAID, 3)
    assert counts.tolist() == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
    # 2 tp / (true + said): 4/5, 2/4, 2/3.
    assert f1_of_labels(counts).tolist() == pytest.approx([0.8, 0.5, 2 / 3])
    assert macro_f1(TRUTH, SAID, 3) == pytest.approx((0.8 + 0.5 + 2 / 3) / 3)
    assert accuracy(TRUTH, SAID) == pytest.approx(4 / 6)
    assert confused(counts, ["a", "b", "c"]) == [
        {"label": "a", "said": "b", "images": 1, "of": 3},
        {"label": "b", "said": "c", "images": 1, "of": 2},
    ]
    assert tail(counts).tolist() == [False, False, True]


def test_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth = rng.choice(12, 400, p=rng.dirichlet(np.ones(12)))
    said = np.where(rng.random(400) < 0.7, truth, rng.integers(12, size=400))
    present = np.unique(truth)
    expected = reference.f1_score(truth, said, labels=present, average="macro")
    assert macro_f1(truth, said, 12) == pytest.approx(expected, abs=1e-12)
    assert (confusion(truth, said, 12) == reference.confusion_matrix(truth, said, labels=range(12))).all()


def test_a_label_that_no_image_has_says_nothing() -> None:
    assert np.isnan(f1_of_labels(confusion(np.array([0, 1]), np.array([0, 2]), 3)))[2]
    assert macro_f1(np.array([0, 1]), np.array([0, 2]), 3) == pytest.approx(0.5)
    assert np.isnan(macro_f1(np.zeros(0, int), np.zeros(0, int), 3))
    # Unknown labels are left out.
    assert accuracy(np.array([0, -1]), np.array([0, 1])) == 1


def test_classes_and_states() -> None:
    found = {one.name: one for one in groups(TRUTH, SAID, ["x", "x", "y"])}
    assert found["x"].images == 5
    # As x: 4 of 5 said, all right; as y: 1 of 1, said twice.
    assert (found["x"].f1, found["y"].f1) == pytest.approx((8 / 9, 2 / 3))


def test_draws_keep_every_label_and_are_paired() -> None:
    rng = np.random.default_rng(1)
    truth = np.repeat([0, 1, 2], [50, 10, 2])
    said = np.where(rng.random(62) < 0.8, truth, (truth + 1) % 3)
    draws = macro_f1_draws(truth, said, 3, resamples=500)
    assert draws.shape == (500,)
    assert abs(draws.mean() - macro_f1(truth, said, 3)) < 0.05
    assert (macro_f1_draws(truth, said, 3, 500) == draws).all()
    # Without an error no draw has one.
    assert (macro_f1_draws(truth, truth, 3, 50) == 1).all()
    low, high = macro_f1_interval(truth, said, 3) or (0, 0)
    assert 0 < low < macro_f1(truth, said, 3) < high < 1
    sure = macro_f1_interval(truth, truth, 3)
    assert sure is not None
    assert sure[1] == 1
    assert 0.9 < sure[0] < 1


def test_the_interval_covers_the_truth() -> None:
    """Of a classifier that is right with a known chance for each label, macro F1 of very many images is the truth."""
    rng = np.random.default_rng(2)
    sizes, chances = np.array([60, 20, 12, 8]), np.array([0.95, 0.8, 0.7, 0.6])

    def draw(times: int) -> tuple[np.ndarray, np.ndarray]:
        truth = np.repeat(np.arange(4), sizes * times)
        return truth, np.where(rng.random(len(truth)) < chances[truth], truth, (truth + 1) % 4)

    value = macro_f1(*draw(3000), 4)
    ends = [macro_f1_interval(*draw(1), 4, resamples=300) for _ in range(200)]
    covered = np.mean([low <= value <= high for low, high in ends if low is not None])  # type: ignore[misc]
    assert 0.88 <= covered <= 1

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
    macro_f1_of_fold,
    tail,
)
from harness.metrics.macro_f1 import MacroF1, compare_macro_f1, macro_f1_interval, too_many_singles

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
    predicted = np.where(rng.random(400) < 0.7, truth, rng.integers(12, size=400))
    present = np.unique(truth)
    expected = reference.f1_score(truth, predicted, labels=present, average="macro")
    assert macro_f1(truth, predicted, 12) == pytest.approx(expected, abs=1e-12)
    assert (confusion(truth, predicted, 12) == reference.confusion_matrix(truth, predicted, labels=range(12))).all()


def test_a_label_that_no_image_has_says_nothing() -> None:
    assert np.isnan(f1_of_labels(confusion(np.array([0, 1]), np.array([0, 2]), 3)))[2]
    assert macro_f1(np.array([0, 1]), np.array([0, 2]), 3) == pytest.approx(0.5)
    assert np.isnan(macro_f1(np.zeros(0, int), np.zeros(0, int), 3))
    # Unknown labels are left out.
    assert accuracy(np.array([0, -1]), np.array([0, 1])) == 1


def test_a_label_that_a_fold_lacks_counts_if_it_is_predicted() -> None:
    truth, predicted = np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1])
    assert macro_f1_of_fold(truth, predicted) == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert macro_f1(truth, predicted, 3) == pytest.approx((2 / 3 + 1) / 2)
    assert macro_f1_of_fold(TRUTH, SAID) == pytest.approx(macro_f1(TRUTH, SAID, 3))
    assert np.isnan(macro_f1_of_fold(truth[:0], predicted[:0]))


def test_classes_and_states() -> None:
    classes = {one.name: one for one in groups(TRUTH, SAID, ["x", "x", "y"])}
    assert classes["x"].images == 5
    # As x: 4 of 5 said, all right; as y: 1 of 1, said twice.
    assert (classes["x"].f1, classes["y"].f1) == pytest.approx((8 / 9, 2 / 3))


def test_the_standard_error_is_that_of_many_test_sets() -> None:
    rng = np.random.default_rng(1)
    chances, truth = np.array([0.9, 0.7, 0.6]), np.repeat([0, 1, 2], [60, 30, 20])

    def draw() -> np.ndarray:
        return np.where(rng.random(len(truth)) < chances[truth], truth, (truth + 1) % 3)

    estimates = [MacroF1.of(truth, draw(), 3) for _ in range(1_000)]
    expected = np.std([one.value for one in estimates])
    assert np.sqrt(np.mean([one.standard_error**2 for one in estimates])) == pytest.approx(expected, rel=0.08)
    # Seeds on the same images share the error of these images.
    assert MacroF1.mean(estimates[:1] * 3).standard_error == pytest.approx(estimates[0].standard_error)
    assert MacroF1.mean(estimates[:50]).standard_error < 0.5 * estimates[0].standard_error


def test_few_images_make_macro_f1_too_low_by_about_the_estimated_bias() -> None:
    rng = np.random.default_rng(4)
    truth = np.repeat(np.arange(40), 3)
    estimates, errors = [], []
    for _ in range(300):
        right = rng.random(len(truth)) < 0.6
        estimate = MacroF1.of(truth, np.where(right, truth, rng.integers(40, size=len(truth))), 40)
        estimates.append(estimate.bias)
        # An image is right with 0.6, or by chance. Each label is predicted as often as it is true.
        errors.append(estimate.value - (0.6 + 0.4 / 40))
    assert np.mean(errors) < -0.005
    assert np.mean(estimates) == pytest.approx(np.mean(errors), abs=0.008)


def test_the_ends_of_the_interval() -> None:
    rng = np.random.default_rng(1)
    truth = np.repeat([0, 1, 2], [50, 10, 2])
    predicted = np.where(rng.random(62) < 0.8, truth, (truth + 1) % 3)
    low, high = macro_f1_interval(truth, predicted, 3) or (0, 0)
    assert 0 < low < macro_f1(truth, predicted, 3) < high < 1
    sure = macro_f1_interval(truth, truth, 3)
    assert sure is not None
    # Labels with few images count more: 62 images say as much as 14 of equal labels.
    assert sure == pytest.approx((0.025 ** (1 / (9 / (1 / 50 + 1 / 10 + 1 / 2))), 1))
    assert macro_f1_interval(np.array([-1]), np.array([0]), 3) is None
    # Two images of each label are equally right or wrong: there is no variance, and the value is not certain.
    low, high = macro_f1_interval(np.array([0, 0, 1, 1]), np.zeros(4, int), 2) or (0, 0)
    assert 0 < low < 0.05
    assert 0.8 < high < 1
    # One image of each label: no variance within a label, but between them.
    low, high = macro_f1_interval(np.arange(3), np.array([0, 1, 1]), 3) or (0, 0)
    assert 0 < low < 0.3
    assert 0.9 < high < 1


@pytest.mark.parametrize(("labels", "images", "accuracy"), [(16, 2, 0.85), (16, 3, 0.6), (40, 5, 0.97)])
def test_the_interval_covers_the_truth(labels: int, images: int, accuracy: float) -> None:
    """Errors go to the next label, so each label is predicted as often as it is true, and its F1 is the accuracy."""
    rng = np.random.default_rng(2)
    truth = np.repeat(np.arange(labels), images)
    covered = 0
    for _ in range(300):
        predicted = np.where(rng.random(len(truth)) < accuracy, truth, (truth + 1) % labels)
        low, high = macro_f1_interval(truth, predicted, labels) or (0, 0)
        covered += low <= accuracy <= high
    assert covered / 300 >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 300)


def test_of_equally_good_classifiers_few_reports_call_any_worse() -> None:
    rng = np.random.default_rng(3)
    truth, false, detections = np.repeat(np.arange(16), 3), 0, 0
    for _ in range(200):
        shared = rng.random(len(truth)) < 0.8
        right = [shared | (rng.random(len(truth)) < 0.3) for _ in range(6)]
        predicted = [np.where(one, truth, (truth + 1) % 16) for one in right]
        bad = np.where(rng.random(len(truth)) < 0.4, truth, (truth + 1) % 16)
        ranked = sorted((MacroF1.of(truth, one, 16) for one in predicted), key=lambda one: -one.value)
        false += bool((compare_macro_f1(ranked, 200).p < 0.05).any())
        detections += bool(compare_macro_f1([*ranked, MacroF1.of(truth, bad, 16)], 200).p[-1] < 0.05)
    assert false / 200 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)
    assert detections > 150


def test_many_labels_with_one_image_are_told() -> None:
    assert too_many_singles(np.repeat(np.arange(8), 2)) is None
    assert too_many_singles(np.array([0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7])) is None
    assert too_many_singles(np.array([0, 1, 2, 2, 3, 3])) == (2, 4)

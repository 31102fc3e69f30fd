"""Prediction sets keep their promise; the risk-coverage curve by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from harness.metrics.conformal import Calibration, RiskCurve, SetQuality
from harness.metrics.intervals import binomial_interval
from harness.predictions.classification import ClassPredictions


def drawn(rng: np.random.Generator, images: int, labels: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """True labels and probabilities of an unsure classifier, shape (images, labels)."""
    truth = rng.integers(labels, size=images)
    evidence = rng.normal(size=(images, labels)) + 1.5 * np.eye(labels)[truth]
    probabilities = np.exp(2 * evidence)
    return truth, probabilities / probabilities.sum(axis=1, keepdims=True)


def predictions(truth: np.ndarray, probabilities: np.ndarray, folds: np.ndarray) -> ClassPredictions:
    n, k = probabilities.shape
    return ClassPredictions(
        labels=tuple("abcdefgh"[:k]),
        label_specs=tuple((name, "good") for name in "abcdefgh"[:k]),
        names=tuple(f"{i}.png" for i in range(n)),
        truth=truth,
        folds=folds,
        probabilities=probabilities.astype(np.float32),
        plain=None,
        test_names=(),
        test_keys=(),
        test_truth=np.zeros(0, np.int64),
        test_by_fold=np.zeros((1, 0, k), np.float32),
    )


def by_hand(scores: list[float]) -> Calibration:
    return Calibration((np.array(scores),))


def test_the_rank_is_that_of_split_conformal_prediction() -> None:
    nine = by_hand([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    # (9 + 1) * 0.9: the set has the labels with a score up to the largest one.
    assert nine.rank(0.9) == 9
    assert nine.sets(np.array([[[0.15, 0.05, 0.8]]]), 0.9).tolist() == [[True, False, True]]
    assert nine.sets(np.array([[[0.69, 0.3, 0.01]]]), 0.5).tolist() == [[True, False, False]]
    # No label is sure enough: an empty set.
    assert nine.sets(np.array([[[0.4, 0.3, 0.3]]]), 0.5).tolist() == [[False] * 3]


def test_with_too_few_images_each_set_has_all_labels() -> None:
    nine = by_hand([0.01] * 9)
    assert nine.largest == pytest.approx(0.9)
    assert nine.enough(0.9)
    assert not nine.enough(0.91)
    assert nine.sets(np.array([[[1.0, 0.0, 0.0]]]), 0.91).all()


@pytest.mark.parametrize("folds", [1, 5])
@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_the_realised_coverage_is_the_promised_one(folds: int, coverage: float) -> None:
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(60):
        truth, probabilities = drawn(rng, 60)
        calibration = Calibration.of(predictions(truth, probabilities, np.arange(60) % folds))
        new, of_new = drawn(rng, 50)
        quality = SetQuality.of(calibration.sets(np.stack([of_new] * folds), coverage), new)
        assert quality is not None
        assert quality.realised is not None
        shares.append(quality.realised)
    # Between the promise and the promise + 1 / (n + 1), within three standard errors.
    error = 3 * np.std(shares) / np.sqrt(len(shares))
    assert coverage - error <= np.mean(shares) <= coverage + 1 / 61 + error


def test_each_label_is_compared_with_the_images_of_its_fold() -> None:
    truth, folds = np.zeros(4, np.int64), np.array([0, 0, 1, 1])
    own = np.array([0.9, 0.8, 0.3, 0.2])
    calibration = Calibration.of(predictions(truth, np.stack([own, 1 - own], axis=1), folds))
    assert [scores.tolist() for scores in calibration.scores] == [pytest.approx([0.1, 0.2]), pytest.approx([0.7, 0.8])]
    # The score 0.5 is above both images of fold 0 and below both of fold 1.
    by_fold = np.full((2, 1, 2), 0.5)
    assert calibration.sets(by_fold, 0.6).all()
    assert not calibration.sets(by_fold, 0.4).any()
    # A blend has one entry.
    assert np.array_equal(calibration.sets(by_fold[:1], 0.6), calibration.sets(by_fold, 0.6))


def test_the_kinds_of_sets() -> None:
    sets = np.array([[True, False], [False, True], [True, True], [False, False]])
    quality = SetQuality.of(sets, np.array([0, 0, 1, -1]))
    assert quality is not None
    assert (quality.single, quality.several, quality.empty) == (0.5, 0.25, 0.25)
    assert (quality.labelled, quality.realised, quality.single_errors) == (3, pytest.approx(2 / 3), 0.5)
    assert SetQuality.of(np.zeros((0, 2), bool), np.zeros(0, np.int64)) is None
    unknown = SetQuality.of(sets, np.full(4, -1))
    assert unknown is not None
    assert (unknown.realised, unknown.low, unknown.single_errors) == (None, None, None)


@pytest.mark.parametrize(("hits", "images"), [(0, 5), (5, 5), (3, 20)])
def test_the_binomial_interval_is_the_exact_one(hits: int, images: int) -> None:
    expected = binomtest(hits, images).proportion_ci(method="exact")
    assert binomial_interval(hits, images) == pytest.approx((expected.low, expected.high))


def test_the_risk_coverage_curve_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.2, 0.8], [0.55, 0.45]])
    curve = RiskCurve.of(np.array([0, 1, 1, 1, 1]), probabilities)
    # Two images have 0.8 and come together.
    assert curve.answered.tolist() == pytest.approx([0.2, 0.6, 0.8, 1.0])
    assert curve.risk.tolist() == pytest.approx([0, 1 / 3, 1 / 4, 2 / 5])
    assert curve.probability.tolist() == pytest.approx([0.9, 0.8, 0.6, 0.55])
    assert curve.at([0.5, 0.8, 1]) == [pytest.approx(pair) for pair in ((1 / 3, 0.8), (1 / 4, 0.6), (2 / 5, 0.55))]
    empty = RiskCurve.of(np.zeros(0, np.int64), np.zeros((0, 2)))
    assert empty.at([0.5]) == [None]

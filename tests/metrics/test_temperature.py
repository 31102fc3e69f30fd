"""The temperature is that of Guo et al. (2017), changes no label, and the calibration error is the standard one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from harness.metrics.reliability import Reliability
from harness.metrics.temperature import LARGEST, SMALLEST, Temperature, cross_calibrated


def softmax(logits: np.ndarray) -> np.ndarray:
    return torch.tensor(logits).softmax(dim=1).numpy()


def drawn(images: int, labels: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, shape (images, labels), and labels drawn from their softmax: a classifier of temperature 1."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (images, labels))
    chances = softmax(logits).cumsum(axis=1)
    return logits, np.asarray((rng.random((images, 1)) > chances).sum(axis=1), dtype=np.int64)


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_fit_finds_how_much_too_sure_the_networks_are(factor: float) -> None:
    logits, truth = drawn(4000)
    fitted = Temperature.fit(softmax(factor * logits).astype(np.float32), truth)
    assert fitted.value == pytest.approx(factor, rel=0.05)
    assert (fitted.images, fitted.note) == (4000, "")


def test_the_fit_is_that_of_logits_and_has_the_smallest_likelihood_loss() -> None:
    logits, truth = drawn(300, seed=1)
    value = Temperature.fit(softmax(2 * logits), truth).value
    scaled, labels = torch.tensor(2 * logits), torch.tensor(truth)
    values = np.geomspace(0.2, 10, 20_001)
    losses = [float(torch.nn.functional.cross_entropy(scaled / one, labels)) for one in values]
    assert value == pytest.approx(values[int(np.argmin(losses))], rel=1e-3)
    calibrated = Temperature(value, 300).apply(softmax(2 * logits))
    np.testing.assert_allclose(calibrated, softmax(2 * logits / value), atol=1e-12)


def test_no_label_changes_and_a_zero_stays_zero() -> None:
    rng = np.random.default_rng(2)
    probabilities = rng.dirichlet(np.full(6, 0.1), 500).astype(np.float32)
    probabilities[0] = [0, 0.75, 0, 0.25, 0, 0]
    for value in (SMALLEST, 0.7, 1.0, 2.5, LARGEST):
        calibrated = Temperature(value, 500).apply(probabilities)
        assert np.array_equal(calibrated.argmax(axis=1), probabilities.argmax(axis=1))
        np.testing.assert_allclose(calibrated.sum(axis=1), 1)
        assert calibrated[0, 0] == 0
    assert Temperature().apply(probabilities).astype(np.float32).tobytes() == probabilities.tobytes()


def test_without_an_error_there_is_no_temperature() -> None:
    right = np.array([[0.8, 0.2], [0.3, 0.7]])
    fitted = Temperature.fit(right, np.array([0, 1]))
    assert (fitted.value, fitted.images) == (1, 0)
    assert fitted.sentence.startswith("probabilities are not calibrated: the out-of-fold images have no wrong label")
    # No temperature makes a label of probability 0 more probable, so its image says nothing.
    lost = np.array([[0.8, 0.2], [1.0, 0.0]])
    assert Temperature.fit(lost, np.array([0, 1])) == fitted
    assert Temperature.fit(np.zeros((0, 2)), np.zeros(0, dtype=np.int64)) == fitted


def test_a_fit_at_a_limit_says_so() -> None:
    wrong = np.tile([0.9, 0.1], (20, 1))
    fitted = Temperature.fit(wrong, np.ones(20, dtype=np.int64))
    assert fitted.value == pytest.approx(LARGEST, rel=1e-3)
    assert fitted.sentence.endswith("from 20 out-of-fold images; the fit ended at the limit of 20")


def test_the_error_falls_by_a_temperature_of_other_images() -> None:
    logits, truth = drawn(1500, seed=3)
    raw = softmax(3 * logits)
    before, after = (
        Reliability.of(one, raw.argmax(axis=1), truth).error for one in (raw, cross_calibrated(raw, truth))
    )
    assert before is not None
    assert after is not None
    assert after < before / 3
    # Each fifth has the temperature of the others.
    other = np.arange(1500) % 5 != 2
    expected = Temperature.fit(raw[other], truth[other]).apply(raw[~other])
    np.testing.assert_array_equal(cross_calibrated(raw, truth)[~other], expected)


def test_the_calibration_error_is_that_of_torchmetrics() -> None:
    logits, truth = drawn(700, seed=4)
    raw = softmax(2 * logits)
    reliability = Reliability.of(raw, raw.argmax(axis=1), truth)
    expected = multiclass_calibration_error(torch.tensor(raw), torch.tensor(truth), num_classes=5, n_bins=15)
    assert reliability.error == pytest.approx(float(expected), abs=1e-6)
    assert reliability.images == 700


def test_the_bins_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.93, 0.07], [0.45, 0.55], [0.2, 0.8]])
    reliability = Reliability.of(probabilities, probabilities.argmax(axis=1), np.array([0, 1, 1, -1]))
    # 0.9 and 0.93 lie in one bin, which ends at 14 / 15. The last image has no label.
    low, high = reliability.bins
    assert (low.images, low.probability, low.accuracy, low.high) == (1, 0.55, 1, 1)
    assert (high.images, high.accuracy) == (2, 0.5)
    assert high.probability == pytest.approx(0.915)
    assert reliability.error == pytest.approx((0.45 + 2 * 0.415) / 3)
    assert Reliability.of(probabilities, probabilities.argmax(axis=1), np.full(4, -1)).error is None


def test_a_temperature_is_read_back() -> None:
    fitted = Temperature(1.5, 20, "a note")
    assert Temperature.from_dict(vars(fitted)) == fitted
    with pytest.raises(ValueError, match=r"temperature: -1\.0 found; expected a number above 0"):
        Temperature.from_dict({"value": -1})

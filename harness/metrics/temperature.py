"""Temperature scaling: one number that makes the probabilities of a classification agree with its accuracy.

With logits z and the temperature T the calibrated probabilities are softmax(z / T). T has the smallest negative
log-likelihood on images that the networks were not trained on (Guo, Pleiss, Sun and Weinberger: On calibration of
modern neural networks, ICML 2017, section 4.2). Logits and logarithms of probabilities differ by one number for each
image, which softmax ignores. So the stored probabilities are enough.

No temperature changes the order of the labels of an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.predictions.classification import ClassPredictions

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
SMALLEST, LARGEST = 0.05, 20.0
PARTS = 5  # of the images, for the error after calibration
NO_ERRORS = "the out-of-fold images have no wrong label that a temperature makes more probable, so none was fitted"


@dataclass(frozen=True)
class Temperature:
    """The temperature of a run.

    Attributes:
        value: above 0; 1 leaves probabilities as they are, and a larger value makes the networks less sure.
        images: number of out-of-fold images of the fit; 0 without a fit.
        note: the reason why there was no fit, or why it ended at a limit; else empty.
    """

    value: float = 1.0
    images: int = 0
    note: str = ""

    @classmethod
    def of(cls, predictions: ClassPredictions) -> Temperature:
        """The temperature of a run by its out-of-fold predictions."""
        return cls.fit(predictions.probabilities, predictions.truth)

    @classmethod
    def fit(cls, probabilities: npt.NDArray[np.floating], truth: Labels) -> Temperature:
        """Find the temperature with the smallest negative log-likelihood.

        Args:
            probabilities: shape (n, labels), of images that the networks were not trained on.
            truth: shape (n,), their labels.

        Returns:
            The temperature. It is 1 without a wrong label: then a smaller temperature would always fit better.
        """
        from scipy.optimize import minimize_scalar

        # No temperature changes a probability of 0, such as a one-class network gives to the labels of other classes.
        used = probabilities[np.arange(len(truth)), truth] > 0
        logarithms, own = _logarithms(probabilities[used]), truth[used]
        if not (logarithms.argmax(axis=1) != own).any():
            return cls(note=NO_ERRORS)
        optimum = minimize_scalar(
            lambda exponent: _loss(logarithms, own, float(np.exp(exponent))),
            bounds=(np.log(SMALLEST), np.log(LARGEST)),
            method="bounded",
            options={"xatol": 1e-6},
        )
        value = float(np.exp(optimum.x))
        at_limit = min(value / SMALLEST, LARGEST / value) < 1 + 1e-3
        note = f"the fit ended at the limit of {value:.3g}" if at_limit else ""
        return cls(value, len(own), note)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Temperature:
        """The temperature in a record or beside an exported file.

        Args:
            values: by the names of the attributes.

        Raises:
            TypeError, ValueError: a value is wrong.
        """
        value = float(values.get("value", 1.0))
        if not 0 < value < np.inf:
            raise ValueError(f"temperature: {value} found; expected a number above 0")
        return cls(value, int(values.get("images", 0)), str(values.get("note", "")))

    @property
    def sentence(self) -> str:
        """A phrase that says what the probabilities are."""
        if not self.images:
            return f"probabilities are not calibrated: {self.note}"
        note = f"; {self.note}" if self.note else ""
        return (
            f"probabilities are calibrated: temperature {self.value:.3g}, from {self.images} out-of-fold images{note}"
        )

    def apply(self, probabilities: npt.NDArray[np.floating]) -> Floats:
        """Calibrate probabilities.

        Args:
            probabilities: shape (n, labels).

        Returns:
            Shape (n, labels); rows sum to 1.
        """
        if self.value == 1:
            return probabilities.astype(np.float64)
        powers = np.exp(_logarithms(probabilities) / self.value)
        calibrated: Floats = powers / powers.sum(axis=1, keepdims=True)
        return calibrated


def cross_calibrated(probabilities: npt.NDArray[np.floating], truth: Labels) -> Floats:
    """Calibrate each fifth of the images by the temperature of the others, to measure what calibration does.

    Args:
        probabilities: shape (n, labels), of images that the networks were not trained on.
        truth: shape (n,), their labels.

    Returns:
        Shape (n, labels); rows sum to 1.
    """
    calibrated, part = np.empty(probabilities.shape), np.arange(len(truth)) % PARTS
    for number in range(PARTS):
        other = part != number
        fitted = Temperature.fit(probabilities[other], truth[other])
        calibrated[~other] = fitted.apply(probabilities[~other])
    return calibrated


def _logarithms(probabilities: npt.NDArray[np.floating]) -> Floats:
    """Logarithms, shape (n, labels), with a largest one of 0 in each row, so that powers do not underflow."""
    with np.errstate(divide="ignore"):
        logarithms: Floats = np.log(probabilities.astype(np.float64))
    logarithms -= logarithms.max(axis=1, keepdims=True, initial=-np.inf)
    return logarithms


def _loss(logarithms: Floats, truth: Labels, temperature: float) -> float:
    """Mean negative log-likelihood of the true labels."""
    scaled = logarithms / temperature
    likelihood = scaled[np.arange(len(truth)), truth] - np.log(np.exp(scaled).sum(axis=1))
    return -float(likelihood.mean())

"""Weights of runs, fitted on out-of-fold predictions and never on test labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from harness.metrics.classification import macro_f1
from harness.predictions.classification import Probabilities

ROUNDS = 40


def fit_weights(probabilities: Sequence[Probabilities], truth: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Fit the share of each run by greedy selection with replacement (Caruana et al., 2004).

    Each round adds the run that gives the average the largest macro F1. If several runs do, the smallest log loss
    decides. The shares are those of the best round.

    Args:
        probabilities: out-of-fold probabilities of each run, shape (n, labels).
        truth: shape (n,), positions of the true labels.

    Returns:
        Shape (runs,), summing to 1.
    """
    labels = probabilities[0].shape[1]
    total = np.zeros_like(probabilities[0], dtype=np.float64)
    counts = np.zeros(len(probabilities), dtype=np.int64)
    best, shares = (-1.0, -np.inf), counts.astype(np.float64)
    for _ in range(ROUNDS):
        averages = [(total + run) / (counts.sum() + 1) for run in probabilities]
        quality, negative = max((_quality(mean, truth, labels), -index) for index, mean in enumerate(averages))
        counts[-negative] += 1  # the index is negative, so that the first of equal runs wins
        total += probabilities[-negative]
        if quality > best:
            best, shares = quality, counts / counts.sum()
    return shares


def _quality(probabilities: npt.NDArray[np.float64], truth: npt.NDArray[np.int64], labels: int) -> tuple[float, float]:
    of_truth = probabilities[np.arange(len(truth)), truth]
    return macro_f1(truth, probabilities.argmax(axis=1), labels), float(np.log(np.clip(of_truth, 1e-12, 1)).mean())

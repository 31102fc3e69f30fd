"""Weights of runs found on out-of-fold predictions; never on test labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from harness.metrics.classification import macro_f1
from harness.predictions.classification import Probabilities

ROUNDS = 40


def fit_weights(
    found: Sequence[Probabilities], truth: npt.NDArray[np.int64], rounds: int = ROUNDS
) -> npt.NDArray[np.float64]:
    """Shares of each run, summing to 1: greedy selection with replacement (Caruana et al., 2004).

    In each round the run is added that makes macro F1 of the average largest; of equal ones the one with the smaller
    log loss. The shares are those of the best round.

    Args:
        found: of each run (n, labels).
        truth: (n,) positions of labels.
        rounds: how many runs are added.
    """
    labels = found[0].shape[1]
    total = np.zeros_like(found[0], dtype=np.float64)
    counts = np.zeros(len(found), dtype=np.int64)
    best, shares = (-1.0, -np.inf), counts.astype(np.float64)
    for _ in range(rounds):
        scored = [(_quality((total + one) / (counts.sum() + 1), truth, labels), -i) for i, one in enumerate(found)]
        quality, place = max(scored)
        counts[-place] += 1
        total += found[-place]
        if quality > best:
            best, shares = quality, counts / counts.sum()
    return shares


def _quality(probabilities: npt.NDArray[np.float64], truth: npt.NDArray[np.int64], labels: int) -> tuple[float, float]:
    own = probabilities[np.arange(len(truth)), truth]
    return macro_f1(truth, probabilities.argmax(axis=1), labels), float(np.log(np.clip(own, 1e-12, 1)).mean())

"""Intervals of a learning curve: the draw of the training images counts, beside the choice of the test images."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np

from harness.metrics.intervals import LEVEL

FEWEST_SEEDS = 3  # with fewer, the spread over the seeds is no estimate


def over_seeds(values: Sequence[float]) -> tuple[float, float] | None:
    """95% interval of the mean of a share over seeds, by Student's distribution.

    The test images are the same for all seeds, so the interval covers the draw of the training images only.

    Args:
        values: one for each seed, 0 to 1.

    Returns:
        (lower end, upper end), inside 0 to 1; None with fewer than 3 seeds.
    """
    if len(values) < FEWEST_SEEDS:
        return None
    half = _quantile(len(values) - 1) * sqrt(_variance_of_mean(values))
    mean = float(np.mean(values))
    return max(0.0, mean - half), min(1.0, mean + half)


def paired_interval(mean: float, error: float, images: int, by_seed: Sequence[float]) -> tuple[float, float]:
    """95% interval of the difference of two metrics, each a mean over the same seeds.

    The variance has two parts, which add up: that of the test images, and that of the draw of the training images over
    the seeds. The degrees of freedom are those of Welch and Satterthwaite (Biometrics Bulletin 2, 1946).

    Args:
        mean: the difference.
        error: its standard error by the choice of the test images, such as DeLong's.
        images: number of test images of the smaller class.
        by_seed: the difference of each seed. With one seed, the draw of the training images has no part.

    Returns:
        (lower end, upper end).
    """
    parts = [(error**2, max(images - 1, 1))]
    if len(by_seed) > 1:
        parts.append((_variance_of_mean(by_seed), len(by_seed) - 1))
    variance = sum(part for part, _ in parts)
    if variance == 0:
        return mean, mean
    freedom = variance**2 / sum(part**2 / of_part for part, of_part in parts)
    half = _quantile(freedom) * sqrt(variance)
    return mean - half, mean + half


def _variance_of_mean(values: Sequence[float]) -> float:
    return float(np.var(values, ddof=1)) / len(values)


def _quantile(freedom: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + LEVEL) / 2))

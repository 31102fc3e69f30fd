"""Comparison of many configurations with the best one on the same test images.

The best of many configurations is best partly by chance, and each of the others is tested against it. Both raise the
number of false differences. Two answers here hold for all configurations together:

- The adjusted p-value. Under the hypothesis that a set of configurations is equally good, the difference between its
  best and any other is at most the range of all estimates. A multiplier bootstrap draws this range (Chernozhukov,
  Chetverikov and Kato: Gaussian approximations and multiplier bootstrap for maxima, Annals of Statistics 41, 2013). The
  test goes from the worst configuration up and leaves those behind it out (Hansen, Lunde and Nason: The model
  confidence set, Econometrica 79, 2011).
- The upper bound of the difference from the best, as in Hsu: Multiple comparisons, 1996. It says which configuration is
  as good as the best, and how large a difference the images could hide.

The estimates are AUROCs averaged over categories, with errors from DeLong's components. Or they are macro F1s, with
errors from the delta method (`harness.metrics.macro_f1`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.metrics.delong import Components

RESAMPLES = 2_000
LEVEL = 0.05
CELLS = 4_000_000  # random numbers in memory at a time
FEW = 10  # images that differ; below, the normal approximation of a difference fails

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """The differences of k configurations from the best of them.

    Attributes:
        p: adjusted p-value of each configuration, shape (k,). Those below `LEVEL` are worse than the best. The
            probability that any of them is equally good is at most `LEVEL`. The best has 1.
        upper: shape (k,): with a confidence of 95%, no estimate is lower than that of the best by more. The best has 0.
    """

    p: Floats
    upper: Floats


def compare_with_best(
    configurations: Sequence[Sequence[Components]], resamples: int = RESAMPLES, seed: int = 0
) -> Comparison | None:
    """Test all configurations against the best one.

    Args:
        configurations: of each configuration, best first, the components of its AUROC on each category. The images of a
            category are equal in all configurations and have the same order. Categories are independent of each other.
        resamples: number of draws.
        seed: of the draws.

    Returns:
        The comparison; None where a category has fewer than 2 images of a class.
    """
    samples = [
        np.stack([getattr(category, of) for category in same], axis=1)
        for same in zip(*configurations, strict=True)
        for of in ("anomalous", "normal")
    ]
    if any(len(sample) < 2 for sample in samples):
        return None
    categories = len(samples) // 2
    auroc = np.mean([sample.mean(axis=0) for sample in samples[::2]], axis=0)
    errors = [
        (sample - sample.mean(axis=0)) / np.sqrt(len(sample) * (len(sample) - 1)) / categories for sample in samples
    ]
    smallest = [min(len(sample) for sample in samples[i : i + 2]) for i in range(0, len(samples), 2)]
    return compare(auroc, errors, sum(smallest), categories * min(smallest), resamples, seed)


def compare(
    values: Floats,
    errors: Sequence[Floats],
    images: float,
    least: float,
    resamples: int = RESAMPLES,
    seed: int = 0,
    freedom: float | None = None,
) -> Comparison:
    """Test all configurations against the best one, from the error of each image.

    Args:
        values: the estimates, between 0 and 1, best first, shape (k,).
        errors: shares of the images in the errors of the estimates, shapes (n, k). The squares of a column, over all
            arrays, sum to the variance of the estimate. Images are independent of each other.
        images: number of images that the estimates are a share of.
        least: number of images for the smallest possible bound.
        resamples: number of draws.
        seed: of the draws.
        freedom: degrees of freedom of the standard errors, for draws of Student's distribution; None where there are so
            many images that the normal distribution is right.

    Returns:
        The comparison.
    """
    draws = _draws(errors, resamples, seed)
    if freedom is not None:
        draws *= np.sqrt(freedom / np.random.default_rng(seed + 1).chisquare(freedom, size=(resamples, 1)))
    # The standard error of each difference from the best.
    error = np.sqrt(sum(((part - part[:, :1]) ** 2).sum(axis=0) for part in errors))
    total = sum(len(part) for part in errors)
    p = np.maximum(_adjusted_p(values, draws, images), 2.0 ** max(1 - total, -1000))
    p[0] = 1.0
    differing = sum((np.abs(part - part[:, :1]) > 1e-12).sum(axis=0) for part in errors)
    smallest = np.where(differing < FEW, 1 - LEVEL ** (1 / least), 0.0)
    return Comparison(p, _upper_bounds(values, error, draws, smallest))


def _draws(errors: Sequence[Floats], resamples: int, seed: int) -> Floats:
    """Errors of the estimates, shape (resamples, k): sums of the images' errors with normal weights."""
    rng = np.random.default_rng(seed)
    draws = np.zeros((resamples, errors[0].shape[1]))
    for error in errors:
        step = max(1, CELLS // len(error))
        for start in range(0, resamples, step):
            rows = draws[start : start + step]
            rows += rng.standard_normal((len(rows), len(error))) @ error
    return draws


def _adjusted_p(values: Floats, draws: Floats, images: float) -> Floats:
    """Adjusted p-values of differences from the first one.

    On the logit scale the error of an estimate depends less on its value.

    Args:
        values: the estimates, shape (k,).
        draws: errors of the estimates, shape (resamples, k).
        images: number of images that the estimates are a share of. One image more on each side keeps the logit finite
            (Laplace).
    """
    smooth = (values * images + 1) / (images + 2)
    logit = np.log(smooth / (1 - smooth))
    order = np.argsort(-logit, kind="stable")
    scaled = (draws * (images / (images + 2) / (smooth * (1 - smooth))))[:, order]
    # Column j is the range of the best j + 1 configurations, when those behind them are left out.
    ranges = np.maximum.accumulate(scaled, axis=1) - np.minimum.accumulate(scaled, axis=1)
    shares = (1 + (ranges >= logit[0] - logit[order]).sum(axis=0)) / (1 + len(draws))
    p: Floats = np.empty_like(shares)
    p[order] = np.maximum.accumulate(shares[::-1])[::-1]
    return p


def _upper_bounds(values: Floats, error: Floats, draws: Floats, least: Floats) -> Floats:
    """Simultaneous upper bounds of the differences from the best.

    Args:
        values: the estimates, shape (k,).
        error: standard error of each difference, shape (k,).
        draws: errors of the estimates, shape (resamples, k).
        least: smallest possible bounds, shape (k,). Where n images show no difference, up to 1 - 0.05 ** (1 / n) of
            all images may still differ.
    """
    tested = error > 0
    factor = 0.0
    if tested.any():
        factor = float(np.quantile(((draws - draws[:, :1])[:, tested] / error[tested]).max(axis=1), 1 - LEVEL))
    # No estimate is below 0.
    bounds: Floats = np.minimum(np.maximum(values[0] - values + factor * error, least), values[0])
    bounds[0] = 0.0
    return bounds

"""Metric of a search's best trial, corrected for selection bias.

The metric of the best of many trials is too high, since the same images select and test the trial. The bootstrap bias
corrected estimate (Tsamardinos, Greasidou and Borboudakis, 2018, algorithm 2) separates both. Each draw takes images
with replacement, and selects the best trial on these images. The estimate is the mean over all draws of this trial's
metric on the remaining (out-of-bag) images. No model is trained again.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from harness.metrics.classification import confusion, f1_of_labels

RESAMPLES = 300
PAIRS = 4_000_000  # pairs of images in memory at a time

Floats = npt.NDArray[np.float64]


def corrected(in_bag: Floats, out_of_bag: Floats) -> float | None:
    """Estimate the metric of the best trial without selection bias.

    Args:
        in_bag: metric of each trial on the images of each draw, higher is better, shape (resamples, trials).
        out_of_bag: metric on the remaining images, same shape; NaN where undefined.

    Returns:
        The estimate; None where the metric of the best trial is undefined in all draws.
    """
    # Several trials may be equally good in a draw, and the mean over these trials has no bias. The first of these
    # trials has one where the trials are sorted by their metric on all images.
    best = np.where(in_bag >= np.nanmax(in_bag, axis=1, keepdims=True), out_of_bag, np.nan)
    defined = best[np.isfinite(best).any(axis=1)]
    return float(np.nanmean(defined, axis=1).mean()) if len(defined) else None


def with_others(value: float, estimate: float, counted: int, total: int) -> float:
    """Extend an estimate of `corrected` to candidates without predictions, such as trials that were stopped early.

    The bias of the best of n equally good candidates grows like the expected maximum of n normal variables. So the bias
    is multiplied by the ratio of both maxima.

    Args:
        value: metric of the best candidate on the images of the choice.
        estimate: of `corrected`, among the candidates with predictions.
        counted: number of candidates with predictions, at least 2.
        total: number of all candidates.

    Returns:
        The estimate for a choice among all candidates.
    """
    bias = max(0.0, value - estimate)
    return value - bias * expected_maximum(total) / expected_maximum(counted) if bias else estimate


def expected_maximum(n: int) -> float:
    """Expected maximum of n standard normal variables, by the approximation of Blom (1958).

    The source is Blom: Statistical estimates and transformed beta-variables.
    """
    return NormalDist().inv_cdf((n - 0.375) / (n + 0.25))


def auroc_draws(labels: npt.NDArray[np.bool_], scores: Sequence[Floats], seed: int = 0) -> tuple[Floats, Floats] | None:
    """AUROC of each trial on the images of each draw, and on the remaining images. Each class is drawn separately.

    Args:
        labels: shape (n,), True is anomalous.
        scores: of each trial, shape (n,).
        seed: of the draws.

    Returns:
        Two arrays of shape (resamples, trials). None where only one class is in the test set, or where the images are
        too many for the memory.
    """
    anomalous, normal = np.flatnonzero(labels), np.flatnonzero(~labels)
    if not len(anomalous) or not len(normal) or len(anomalous) * len(normal) > PAIRS:
        return None
    rng = np.random.default_rng(seed)
    counts = [
        rng.multinomial(len(members), np.full(len(members), 1 / len(members)), RESAMPLES).astype(float)
        for members in (anomalous, normal)
    ]
    rest = [(count == 0).astype(float) for count in counts]
    draws = []
    for trial in scores:
        positives, negatives = trial[anomalous][:, None], trial[normal]
        wins = (positives > negatives) + 0.5 * (positives == negatives)
        draws.append([_weighted_mean(wins, *counts), _weighted_mean(wins, *rest)])
    in_bag, out_of_bag = np.stack(draws, axis=-1)
    return in_bag, out_of_bag


def _weighted_mean(wins: Floats, anomalous: Floats, normal: Floats) -> Floats:
    """Mean over all pairs of an anomalous and a normal image, for each draw with its weights of images."""
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: Floats = ((anomalous @ wins) * normal).sum(axis=1) / (anomalous.sum(axis=1) * normal.sum(axis=1))
    return mean


def macro_f1_draws(
    truth: npt.NDArray[np.int64], predicted: Sequence[npt.NDArray[np.int64]], labels: int, seed: int = 0
) -> tuple[Floats, Floats]:
    """Macro F1 of each trial on the images of each draw, and on the remaining images.

    Args:
        truth: shape (n,), index of the true label.
        predicted: index of the predicted label in each trial, shape (n,).
        labels: number of labels.
        seed: of the draws.

    Returns:
        Two arrays of shape (resamples, trials).
    """
    rng, n = np.random.default_rng(seed), len(truth)
    draws: list[list[list[float]]] = [[], []]
    for _ in range(RESAMPLES):
        in_bag = rng.integers(n, size=n)
        out_of_bag = np.setdiff1d(np.arange(n), in_bag)
        for rows, images in zip(draws, (in_bag, out_of_bag), strict=True):
            counts = np.stack([confusion(truth[images], trial[images], labels) for trial in predicted])
            values = f1_of_labels(counts)
            rows.append([float(np.nanmean(f1)) if np.isfinite(f1).any() else float("nan") for f1 in values])
    return np.array(draws[0]), np.array(draws[1])

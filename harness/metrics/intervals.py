"""How far chance alone may have moved a figure: 95% intervals by a stratified bootstrap over the test images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from harness.metrics.auroc import auroc
from harness.metrics.measure import measure
from harness.metrics.ranking import Counts, Ranking

RESAMPLES = 2_000
LEVEL = 0.95
CELLS = 2_000_000  # scores resampled at a time


def intervals(
    scores: npt.NDArray[np.floating],
    labels: npt.NDArray[np.bool_],
    threshold: float | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """`image_<name>` -> the interval, for every image metric that is defined.

    Normal and anomalous images are drawn apart, with replacement, as many as there are; the interval lies between the
    2.5% and the 97.5% quantile of the metric over all draws (the percentile method; Efron and Tibshirani, 1993,
    chapter 13). It covers the choice of test images, not that of training images or seeds. Where the classes are
    separated completely every draw gives 1: such an interval has no width, and does not mean certainty.

    Args:
        scores: shape (n,), one an image.
        labels: shape (n,), True is anomalous.
        threshold: what is above it is called anomalous.
        resamples: how many draws.
        seed: of the draws: the same scores always get the same interval.
    """
    drawn: dict[str, list[npt.NDArray[np.float64]]] = {}
    if labels.any() and not labels.all():
        for ranking in _resampled(scores, labels, threshold, resamples, seed):
            for name, value in measure("image", ranking).items():
                drawn.setdefault(name, []).append(np.atleast_1d(value))
    found = {name: quantiles(np.concatenate(values)) for name, values in drawn.items()}
    return {name: ends for name, ends in found.items() if ends is not None}


def auroc_draws(
    scores: npt.NDArray[np.floating], labels: npt.NDArray[np.bool_], resamples: int = RESAMPLES, seed: int = 0
) -> npt.NDArray[np.float64]:
    """Image AUROC of each draw, shape (resamples,); both classes present. Equal labels and seeds draw equal images."""
    return np.concatenate([auroc(ranking) for ranking in _resampled(scores, labels, None, resamples, seed)])


def quantiles(draws: npt.NDArray[np.float64]) -> tuple[float, float] | None:
    """The interval that the draws give; None where none of them is defined."""
    # Precision is undefined in a draw where nothing is above the threshold.
    defined = draws[~np.isnan(draws)]
    if not len(defined):
        return None
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _resampled(
    scores: npt.NDArray[np.floating],
    labels: npt.NDArray[np.bool_],
    threshold: float | None,
    resamples: int,
    seed: int,
) -> Iterator[Ranking]:
    """Rankings with a leading axis of draws, some draws at a time."""
    # In double precision, so that the threshold is not rounded to the scores' type.
    positives, negatives = (scores[chosen].astype(np.float64) for chosen in (labels, ~labels))
    distinct, group = np.unique(positives, return_inverse=True)
    k = len(distinct)
    # How many thresholds a negative is at or above, and strictly above.
    at, above = (np.searchsorted(distinct, negatives, side=side) for side in ("right", "left"))
    rng = np.random.default_rng(seed)
    step = max(1, CELLS // len(scores))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        p = rng.integers(len(positives), size=(rows, len(positives)))
        n = rng.integers(len(negatives), size=(rows, len(negatives)))
        yield Ranking(
            tp=_at_least(group[p], k, shift=0),
            fp=_at_least(at[n], k, shift=1),
            fp_above=_at_least(above[n], k, shift=1),
            positives=len(positives),
            negatives=len(negatives),
            tp_at=None if threshold is None else (positives > threshold)[p].sum(axis=1),
            fp_at=None if threshold is None else (negatives > threshold)[n].sum(axis=1),
        )


def _at_least(values: Counts, k: int, shift: int) -> Counts:
    """For each row and each j in k-1, ..., 0: how many of the row's values are >= j + shift."""
    rows = len(values)
    width = k + shift
    flat = (values + width * np.arange(rows)[:, None]).ravel()
    counts = np.bincount(flat, minlength=rows * width).reshape(rows, width)
    return np.cumsum(counts[:, ::-1], axis=1)[:, :k]

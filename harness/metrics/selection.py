"""What the best of many is worth on images that did not choose it.

The best figure of many trials is too good: it was chosen by the images that it is about. The bootstrap bias corrected
estimate (Tsamardinos, Greasidou and Borboudakis, 2018, algorithm 2) chooses among the trials on images drawn with
replacement, takes the chosen one's figure on those that were not drawn, and averages over draws. Nothing is trained.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from harness.metrics.classification import confusion, f1_of_labels

RESAMPLES = 300
PAIRS = 4_000_000  # of images compared at a time

Floats = npt.NDArray[np.float64]


def corrected(drawn: Floats, left_out: Floats) -> float | None:
    """The estimate.

    Args:
        drawn: figures on the images drawn, larger is better, shape (resamples, trials).
        left_out: on the others; NaN where undefined.
    """
    # Several may be equally good on what was drawn: which of them would be chosen is a matter of chance. The first one
    # would be the best on all images, if they come in that order, and so on those left out.
    chosen = np.where(drawn >= np.nanmax(drawn, axis=1, keepdims=True), left_out, np.nan)
    known = chosen[np.isfinite(chosen).any(axis=1)]
    return float(np.nanmean(known, axis=1).mean()) if len(known) else None


def auroc_draws(labels: npt.NDArray[np.bool_], scores: Sequence[Floats], seed: int = 0) -> tuple[Floats, Floats] | None:
    """AUROC of each trial on images drawn (each class by itself), and on the others; None for very many images.

    Args:
        labels: shape (n,), True is anomalous.
        scores: of each trial, shape (n,).
        seed: of the draws.

    Returns:
        Shapes (resamples, trials).
    """
    bad, good = np.flatnonzero(labels), np.flatnonzero(~labels)
    if not len(bad) or not len(good) or len(bad) * len(good) > PAIRS:
        return None
    rng = np.random.default_rng(seed)
    counts = [
        rng.multinomial(len(one), np.full(len(one), 1 / len(one)), RESAMPLES).astype(float) for one in (bad, good)
    ]
    rest = [(one == 0).astype(float) for one in counts]
    found = []
    for one in scores:
        larger = (one[bad][:, None] > one[good]) + 0.5 * (one[bad][:, None] == one[good])
        found.append([_mean(larger, *counts), _mean(larger, *rest)])
    drawn, left_out = np.stack(found, axis=-1)
    return drawn, left_out


def _mean(larger: Floats, bad: Floats, good: Floats) -> Floats:
    """Of pairs, weighted, for each draw."""
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = ((bad @ larger) * good).sum(axis=1) / (bad.sum(axis=1) * good.sum(axis=1))
    return found


def macro_f1_draws(
    truth: npt.NDArray[np.int64], predicted: Sequence[npt.NDArray[np.int64]], labels: int, seed: int = 0
) -> tuple[Floats, Floats]:
    """Macro F1 of each trial on images drawn, and on the others.

    Args:
        truth: shape (n,), positions of labels.
        predicted: of each trial, shape (n,).
        labels: how many there are.
        seed: of the draws.

    Returns:
        Shapes (resamples, trials).
    """
    rng, n = np.random.default_rng(seed), len(truth)
    parts: list[list[list[float]]] = [[], []]
    for _ in range(RESAMPLES):
        chosen = rng.integers(n, size=n)
        rest = np.setdiff1d(np.arange(n), chosen)
        for part, which in zip(parts, (chosen, rest), strict=True):
            counts = np.stack([confusion(truth[which], one[which], labels) for one in predicted])
            values = f1_of_labels(counts)
            part.append([float(np.nanmean(one)) if np.isfinite(one).any() else float("nan") for one in values])
    return np.array(parts[0]), np.array(parts[1])

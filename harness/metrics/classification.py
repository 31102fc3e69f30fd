"""Figures of named images: macro F1 with its interval, accuracy, each label, class and state, confusions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.metrics.intervals import RESAMPLES, interval

Ints = npt.NDArray[np.int64]
CELLS = 4_000_000  # images resampled at a time


def confusion(truth: Ints, predicted: Ints, labels: int) -> Ints:
    """Shape (labels, labels): rows are true, columns predicted.

    Args:
        truth, predicted: shape (n,), positions of labels; images whose truth is negative are left out.
        labels: how many there are.
    """
    known = truth >= 0
    flat = np.bincount(truth[known] * labels + predicted[known], minlength=labels * labels)
    return flat.reshape(labels, labels).astype(np.int64)


def f1_of_labels(counts: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float64]:
    """F1 of each label, shape (..., labels), of confusions (..., labels, labels).

    NaN for a label that no image has: it says nothing of a classifier, whether or not it was ever predicted.
    """
    right = np.diagonal(counts, axis1=-2, axis2=-1).astype(np.float64)
    true, said = counts.sum(axis=-1), counts.sum(axis=-2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(true > 0, 2 * right / (true + said), np.nan)


def macro_f1(truth: Ints, predicted: Ints, labels: int) -> float:
    """Mean F1 over the labels that some image has; NaN without images."""
    values = f1_of_labels(confusion(truth, predicted, labels))
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def accuracy(truth: Ints, predicted: Ints) -> float:
    """Share of images named right; NaN without images."""
    known = truth >= 0
    return float((truth[known] == predicted[known]).mean()) if known.any() else float("nan")


def macro_f1_interval(
    truth: Ints, predicted: Ints, labels: int, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float] | None:
    """95% interval of macro F1 by a bootstrap over the images of each label; see `harness.metrics.intervals.interval`.

    Args:
        truth, predicted: shape (n,), positions of labels.
        labels: how many there are.
        resamples: how many draws.
        seed: of the draws.
    """
    known = truth >= 0
    if not known.any():
        return None
    draws = macro_f1_draws(truth[known], predicted[known], labels, resamples, seed)
    return interval(macro_f1(truth, predicted, labels), draws, int(known.sum()))


def macro_f1_draws(
    truth: Ints, predicted: Ints, labels: int, resamples: int = RESAMPLES, seed: int = 0
) -> npt.NDArray[np.float64]:
    """Macro F1 of each draw, shape (resamples,). Each image is replaced by one of its label; equal truths draw alike.

    Args:
        truth, predicted: shape (n,), positions of labels.
        labels: how many there are.
        resamples: how many draws.
        seed: of the draws.
    """
    order = np.argsort(truth, kind="stable")
    truth, predicted = truth[order], predicted[order]
    first = np.searchsorted(truth, truth, side="left")
    count = np.searchsorted(truth, truth, side="right") - first
    present, true = np.unique(truth, return_counts=True)
    rng, draws = np.random.default_rng(seed), []
    step = max(1, CELLS // len(truth))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = predicted[first + (rng.random((rows, len(truth))) * count).astype(np.int64)]
        places = drawn + labels * np.arange(rows)[:, None]
        said, right = (
            np.bincount(one.ravel(), minlength=rows * labels).reshape(rows, labels)[:, present]
            for one in (places, places[drawn == truth])
        )
        draws.append((2 * right / (true + said)).mean(axis=1))
    return np.concatenate(draws)


@dataclass(frozen=True)
class Group:
    """Labels taken together: a class, or a state.

    Attributes:
        name: of the class or state.
        images: that it has.
        f1: of telling it from all others.
    """

    name: str
    images: int
    f1: float


def groups(truth: Ints, predicted: Ints, names: Sequence[str]) -> list[Group]:
    """F1 of each group of labels, as if its labels were one.

    Args:
        truth, predicted: shape (n,), positions of labels.
        names: the group of each label.
    """
    known = sorted(set(names))
    place = np.array([known.index(name) for name in names], dtype=np.int64)
    seen = truth >= 0
    counts = confusion(place[truth[seen]], place[predicted[seen]], len(known))
    values = f1_of_labels(counts)
    return [Group(n, int(c), float(v)) for n, c, v in zip(known, counts.sum(axis=1), values, strict=True) if c]


def confused(counts: Ints, labels: Sequence[str], most: int = 20) -> list[dict[str, Any]]:
    """The pairs confused most often: true label, label said instead, how many images, of how many."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    rows, columns = np.unravel_index(order, wrong.shape)
    return [
        {"label": labels[r], "said": labels[c], "images": int(wrong[r, c]), "of": int(counts[r].sum())}
        for r, c in zip(rows, columns, strict=True)
        if wrong[r, c]
    ]


def tail(counts: Ints) -> npt.NDArray[np.bool_]:
    """The rarer half of the labels that are judged: those with the fewest images.

    Args:
        counts: confusions, shape (labels, labels).
    """
    images = counts.sum(axis=1)
    judged = np.flatnonzero(images > 0)
    rarer = judged[np.argsort(images[judged], kind="stable")][: len(judged) // 2]
    found = np.zeros(len(images), dtype=np.bool_)
    found[rarer] = True
    return found

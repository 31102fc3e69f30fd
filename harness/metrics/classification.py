"""Metrics of a classification: macro F1, accuracy, F1 of labels, classes and conditions, confusions.

A label is a class with its condition. Arrays of labels hold the index of each label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def confusion(truth: Ints, predicted: Ints, labels: int) -> Ints:
    """Confusion matrix.

    Args:
        truth: shape (n,), true labels. Images with a negative number have no label and are ignored.
        predicted: shape (n,), predicted labels.
        labels: number of labels.

    Returns:
        Shape (labels, labels): rows are true labels, columns predicted labels.
    """
    labelled = truth >= 0
    flat = np.bincount(truth[labelled] * labels + predicted[labelled], minlength=labels * labels)
    return flat.reshape(labels, labels).astype(np.int64)


def f1_of_labels(counts: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float64]:
    """F1 of each label.

    Args:
        counts: confusion matrices, shape (..., labels, labels).

    Returns:
        Shape (..., labels); NaN for a label without images, since its F1 does not depend on the classifier.
    """
    tp = np.diagonal(counts, axis1=-2, axis2=-1).astype(np.float64)
    images, predictions = counts.sum(axis=-1), counts.sum(axis=-2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(images > 0, 2 * tp / (images + predictions), np.nan)


def macro_f1(truth: Ints, predicted: Ints, labels: int) -> float:
    """Mean F1 over all labels with images.

    Args:
        truth: shape (n,), true labels; a negative number is no label.
        predicted: shape (n,), predicted labels.
        labels: number of labels.

    Returns:
        A number between 0 and 1; NaN without labelled images.
    """
    values = f1_of_labels(confusion(truth, predicted, labels))
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def macro_f1_of_fold(truth: Ints, predicted: Ints) -> float:
    """Mean F1 over all labels of a part of the images, true or predicted, as scikit-learn's `f1_score` counts it.

    A part may lack a rare label. A wrong prediction of this label then has an F1 of 0, which `macro_f1` leaves out.

    Args:
        truth: shape (n,), true labels; all images have one.
        predicted: shape (n,), predicted labels.

    Returns:
        A number between 0 and 1; NaN without images.
    """
    from sklearn.metrics import f1_score

    return float(f1_score(truth, predicted, average="macro")) if len(truth) else float("nan")


def accuracy(truth: Ints, predicted: Ints) -> float:
    """Share of images with the right predicted label.

    Args:
        truth: shape (n,), true labels; a negative number is no label.
        predicted: shape (n,), predicted labels.

    Returns:
        A number between 0 and 1; NaN without labelled images.
    """
    labelled = truth >= 0
    return float((truth[labelled] == predicted[labelled]).mean()) if labelled.any() else float("nan")


@dataclass(frozen=True)
class Group:
    """All labels of one class, or of one condition.

    Attributes:
        name: of the class or condition.
        images: number of its images.
        f1: of the group against all other groups.
    """

    name: str
    images: int
    f1: float


def groups(truth: Ints, predicted: Ints, names: Sequence[str]) -> list[Group]:
    """F1 of each group of labels. All labels of a group count as one label.

    Args:
        truth: shape (n,), true labels; a negative number is no label.
        predicted: shape (n,), predicted labels.
        names: the group of each label.

    Returns:
        The groups with images, sorted by name.
    """
    distinct = sorted(set(names))
    group = np.array([distinct.index(name) for name in names], dtype=np.int64)
    labelled = truth >= 0
    counts = confusion(group[truth[labelled]], group[predicted[labelled]], len(distinct))
    values = f1_of_labels(counts)
    return [Group(n, int(c), float(v)) for n, c, v in zip(distinct, counts.sum(axis=1), values, strict=True) if c]


def confused(counts: Ints, labels: Sequence[str], most: int = 20) -> list[dict[str, Any]]:
    """The pairs of labels with the most wrong predictions.

    Args:
        counts: confusion matrix, shape (labels, labels).
        labels: names of the labels.
        most: largest number of pairs.

    Returns:
        For each pair the true label, the predicted label, the images of the pair and all images of the true label.
    """
    errors = counts.copy()
    np.fill_diagonal(errors, 0)
    order = np.argsort(-errors, axis=None, kind="stable")[:most]
    rows, columns = np.unravel_index(order, errors.shape)
    return [
        {"label": labels[r], "said": labels[c], "images": int(errors[r, c]), "of": int(counts[r].sum())}
        for r, c in zip(rows, columns, strict=True)
        if errors[r, c]
    ]


def tail(counts: Ints) -> npt.NDArray[np.bool_]:
    """The rarer half of the labels with images.

    Args:
        counts: confusion matrix, shape (labels, labels).

    Returns:
        Shape (labels,), True is a rare label.
    """
    images = counts.sum(axis=1)
    present = np.flatnonzero(images > 0)
    rarer = present[np.argsort(images[present], kind="stable")][: len(present) // 2]
    is_rare = np.zeros(len(images), dtype=np.bool_)
    is_rare[rarer] = True
    return is_rare

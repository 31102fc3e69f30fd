"""The result of a fold, and the merging of folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.data.labelled.base import LabelledSplit
from harness.predictions.classification import ClassPredictions, truth_of

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FoldResult:
    """The result of one fold.

    Attributes:
        number: number of the fold.
        indices: positions of the fold's validation images among the training images.
        probabilities: probabilities of the validation images, averaged over views.
        plain: probabilities of the validation images without test-time augmentation.
        test_probabilities: probabilities of the test images.
        claims: number of one-class networks that claim each validation image.
        record: the record of the fold; see `Classified.folds`.
        fit_seconds: time of the training.
        test_seconds: time of the prediction.
    """

    number: int
    indices: Sequence[int]
    probabilities: Floats
    plain: Floats
    test_probabilities: Floats
    claims: Floats
    record: dict[str, Any]
    fit_seconds: float
    test_seconds: float


def merge_folds(folds: Sequence[FoldResult], split: LabelledSplit, truth: npt.NDArray[np.int64]) -> ClassPredictions:
    """Merge folds to out-of-fold probabilities in the order of the training images; see `ClassPredictions`.

    Args:
        folds: results of the folds.
        split: the data.
        truth: (n,) labels of the training images.
    """
    indices = np.concatenate([fold.indices for fold in folds]).astype(int)
    order = np.argsort(indices, kind="stable")
    averaged, plain = (np.concatenate([getattr(f, name) for f in folds])[order] for name in ("probabilities", "plain"))
    has_views = any(fold.probabilities is not fold.plain for fold in folds) and not np.array_equal(averaged, plain)
    return ClassPredictions(
        labels=split.labels,
        label_specs=split.label_specs,
        names=tuple(split.train[i].name for i in indices[order]),
        truth=truth[indices[order]],
        folds=np.concatenate([np.full(len(f.indices), f.number, dtype=np.int64) for f in folds])[order],
        probabilities=averaged.astype(np.float32),
        plain=plain.astype(np.float32) if has_views else None,
        test_names=tuple(sample.name for sample in split.test),
        test_keys=tuple(sample.key for sample in split.test),
        test_truth=truth_of(split.test, split.labels),
        test_by_fold=np.stack([fold.test_probabilities for fold in folds]).astype(np.float32),
    )


def fold_predictions(
    number: int,
    indices: Sequence[int],
    probabilities: npt.NDArray[np.float32],
    split: LabelledSplit,
    truth: npt.NDArray[np.int64],
) -> ClassPredictions:
    """Return the predictions of one fold for its validation images, without test images.

    Args:
        number: number of the fold.
        indices: positions of the validation images among the training images.
        probabilities: (len(indices), labels) probabilities of the validation images.
        split: the data.
        truth: (n,) labels of the training images.
    """
    positions = list(indices)
    return ClassPredictions(
        labels=split.labels,
        label_specs=split.label_specs,
        names=tuple(split.train[i].name for i in positions),
        truth=truth[positions],
        folds=np.full(len(positions), number, dtype=np.int64),
        probabilities=probabilities,
        plain=None,
        test_names=(),
        test_keys=(),
        test_truth=np.zeros(0, dtype=np.int64),
        test_by_fold=np.zeros((1, 0, len(split.labels)), dtype=np.float32),
    )

"""The result of a fold, and the merging of folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
        network: probabilities of the validation images without detectors; None for a run without detectors.
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
    network: Floats | None = None


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
    networks = [fold.network for fold in folds if fold.network is not None]
    return ClassPredictions(
        labels=split.labels,
        label_specs=split.label_specs,
        names=tuple(split.train[i].name for i in indices[order]),
        truth=truth[indices[order]],
        folds=np.concatenate([np.full(len(f.indices), f.number, dtype=np.int64) for f in folds])[order],
        probabilities=averaged.astype(np.float32),
        plain=plain.astype(np.float32) if has_views else None,
        network=np.concatenate(networks)[order].astype(np.float32) if networks else None,
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
    averaged = probabilities.astype(np.float64)
    none = np.zeros((0, len(split.labels)))
    fold = FoldResult(number, indices, averaged, averaged, none, np.ones(len(indices)), {}, 0.0, 0.0)
    return merge_folds([fold], replace(split, test=()), truth)

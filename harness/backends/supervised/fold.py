"""What came of a fold, and folds put together."""

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
class Fold:
    """What came of one fold: positions judged, probabilities with and without views, of the test images, claims."""

    number: int
    judged: Sequence[int]
    own: Floats
    plain: Floats
    of_test: Floats
    claims: Floats
    about: dict[str, Any]
    fit: float
    test: float


def together(folds: Sequence[Fold], split: LabelledSplit, truth: npt.NDArray[np.int64]) -> ClassPredictions:
    """Out of fold, in the order of the training images; test images averaged over folds."""
    judged = np.concatenate([fold.judged for fold in folds]).astype(int)
    order = np.argsort(judged, kind="stable")
    own, plain = (np.concatenate([getattr(fold, name) for fold in folds])[order] for name in ("own", "plain"))
    with_views = any(fold.own is not fold.plain for fold in folds) and not np.array_equal(own, plain)
    return ClassPredictions(
        labels=split.labels,
        label_specs=split.label_specs,
        names=tuple(split.train[i].name for i in judged[order]),
        truth=truth[judged[order]],
        folds=np.concatenate([np.full(len(f.judged), f.number, dtype=np.int64) for f in folds])[order],
        probabilities=own.astype(np.float32),
        plain=plain.astype(np.float32) if with_views else None,
        test_names=tuple(sample.name for sample in split.test),
        test_keys=tuple(sample.key for sample in split.test),
        test_truth=truth_of(split.test, split.labels),
        test_by_fold=np.stack([fold.of_test for fold in folds]).astype(np.float32),
    )


def of_fold(
    number: int,
    judged: Sequence[int],
    said: npt.NDArray[np.float32],
    split: LabelledSplit,
    truth: npt.NDArray[np.int64],
) -> ClassPredictions:
    """What a fold's network says of its own images alone, of each (judged, labels)."""
    chosen = list(judged)
    return ClassPredictions(
        labels=split.labels,
        label_specs=split.label_specs,
        names=tuple(split.train[i].name for i in chosen),
        truth=truth[chosen],
        folds=np.full(len(chosen), number, dtype=np.int64),
        probabilities=said,
        plain=None,
        test_names=(),
        test_keys=(),
        test_truth=np.zeros(0, dtype=np.int64),
        test_by_fold=np.zeros((1, 0, len(split.labels)), dtype=np.float32),
    )

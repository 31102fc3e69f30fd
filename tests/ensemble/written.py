"""Finished runs of a classification with given probabilities, without a training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.data.labelled.base import split_label
from harness.predictions.classification import ClassPredictions
from tests.conftest import ROOT

TEMPLATE = next((ROOT / "tests" / "stored" / "results" / "named" / "runs").glob("*lcross*/record.json"))


def write_run(
    folder: str, labels: Sequence[str], truth: Sequence[int], rows: npt.ArrayLike, test: npt.ArrayLike
) -> ClassPredictions:
    """Write a run with probabilities of shape (n, labels), and for the test (m, labels) or (folds, m, labels)."""
    test_by_fold = np.array(test, dtype=np.float32)
    if test_by_fold.ndim == 2:
        test_by_fold = test_by_fold[None]
    count = test_by_fold.shape[1]
    predictions = ClassPredictions(
        labels=tuple(labels),
        label_specs=tuple(split_label(label) for label in labels),
        names=tuple(f"train/{i}.png" for i in range(len(truth))),
        truth=np.array(truth),
        folds=np.zeros(len(truth), dtype=np.int64),
        probabilities=np.array(rows, dtype=np.float32),
        plain=None,
        test_names=tuple(f"test/t{i}.png" for i in range(count)),
        test_keys=tuple(f"t{i}.png" for i in range(count)),
        test_truth=np.full(count, -1),
        test_by_fold=test_by_fold,
    )
    path = Path(folder)
    path.mkdir(parents=True)
    predictions.save(path)
    record = json.loads(TEMPLATE.read_text())
    record["data"] |= {"folds": list(range(len(test_by_fold))), "sample_submission": None, "root": str(path.resolve())}
    (path / "record.json").write_text(json.dumps(record | {"run_id": path.name}))
    return predictions

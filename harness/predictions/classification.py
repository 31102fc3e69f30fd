"""ClassPredictions: the probabilities that a classification backend returns, checked once, before any metric.

The predicted label of an image has the largest probability. Of equal probabilities, the first label counts.
"""

from __future__ import annotations

import itertools
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import numpy.typing as npt

from harness.common.errors import PredictionsError, StoreError
from harness.data.labelled.base import LabelledSample, LabelSpec

Probabilities = npt.NDArray[np.float32]
FILE = "probabilities.npz"
MAX_BYTES = 2**30


@dataclass(frozen=True)
class ClassPredictions:
    """Probabilities of each label: out of fold for n training images, and for m test images.

    Attributes:
        labels: all labels, in the order of the last axis.
        label_specs: class and condition of each label.
        names: names of the training images with an out-of-fold prediction.
        truth: shape (n,), their labels as positions in `labels`.
        folds: shape (n,), the fold whose networks predicted an image; these networks were not trained on it.
        probabilities: shape (n, labels); rows sum to 1.
        plain: `probabilities` without test-time augmentation; None where a run has no augmentation.
        test_names: names of the test images.
        test_keys: their keys in a submission.
        test_truth: shape (m,), -1 for a label that is unknown or not in `labels`.
        test_by_fold: shape (folds, m, labels), from the networks of each fold, in the order of the folds.
        network: `probabilities` of the networks alone, without detectors; None where a run has no detectors.

    Raises:
        PredictionsError: a shape, a type or a value is wrong.
    """

    labels: tuple[str, ...]
    label_specs: tuple[LabelSpec, ...]
    names: tuple[str, ...]
    truth: npt.NDArray[np.int64]
    folds: npt.NDArray[np.int64]
    probabilities: Probabilities
    plain: Probabilities | None
    test_names: tuple[str, ...]
    test_keys: tuple[str, ...]
    test_truth: npt.NDArray[np.int64]
    test_by_fold: Probabilities
    network: Probabilities | None = None

    def __post_init__(self) -> None:
        n, m, k = len(self.names), len(self.test_names), len(self.labels)
        for name, array, rows in (
            ("out-of-fold", self.probabilities, n),
            ("plain", self.probabilities if self.plain is None else self.plain, n),
            ("network", self.probabilities if self.network is None else self.network, n),
            *(("test", array, m) for array in self.test_by_fold),
        ):
            if array.shape != (rows, k):
                raise PredictionsError(f"{name} probabilities of shape {array.shape} found, {(rows, k)} expected.")
            if not np.isfinite(array).all() or array.min(initial=0) < -1e-6:
                raise PredictionsError(f"{name} probabilities: NaN, infinite or negative found; expected 0 to 1.")
            if rows and np.abs(array.sum(axis=1) - 1).max() > 1e-3:
                raise PredictionsError(f"{name} probabilities: rows found that do not sum to 1; expected sums of 1.")
        if len(self.label_specs) != k:
            raise PredictionsError(f"classes and states of {len(self.label_specs)} labels found, {k} expected.")
        if self.test_by_fold.ndim != 3 or (m and not len(self.test_by_fold)):
            raise PredictionsError(f"test probabilities of shape {self.test_by_fold.shape} found, some folds expected.")
        if len(self.test_keys) != m:
            raise PredictionsError(f"keys of {len(self.test_keys)} test images found, {m} expected.")
        texts = (*self.labels, *self.names, *self.test_names, *self.test_keys, *itertools.chain(*self.label_specs))
        if not all(isinstance(text, str) for text in texts) or len(set(self.labels)) < k:
            raise PredictionsError("labels and names: repeated labels or other types found, different text expected.")
        if any(array.dtype.kind not in "iu" for array in (self.truth, self.folds, self.test_truth)):
            raise PredictionsError("labels or folds: other numbers found, whole numbers expected.")
        if any(array.dtype.kind != "f" for array in (self.probabilities, self.test_by_fold)):
            raise PredictionsError("probabilities: other types found, floating-point numbers expected.")
        if (n and not 0 <= self.truth.min() <= self.truth.max() < k) or self.test_truth.max(initial=-1) >= k:
            raise PredictionsError(f"labels: positions outside 0 to {k - 1} found; {k} labels expected.")
        if self.truth.shape != (n,) or self.folds.shape != (n,) or self.test_truth.shape != (m,):
            raise PredictionsError(f"{len(self.truth)} labels and {len(self.folds)} folds found, {n} of each expected.")

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """Predicted labels, shape (n,), as positions in `labels`."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @property
    def test_probabilities(self) -> Probabilities:
        """Mean of `test_by_fold` over the folds, shape (m, labels)."""
        return np.asarray(self.test_by_fold.mean(axis=0), dtype=np.float32)

    @property
    def test_predicted(self) -> npt.NDArray[np.int64]:
        """Predicted labels of the test images, shape (m,), as positions in `labels`."""
        return np.asarray(self.test_probabilities.argmax(axis=1), dtype=np.int64)

    def save(self, folder: Path) -> None:
        """Write probabilities.npz with plain arrays only, so that loading the file executes nothing.

        Args:
            folder: of the run.
        """
        arrays = {
            "labels": _text(self.labels),
            "classes": _text([name for name, _ in self.label_specs]),
            "states": _text([condition for _, condition in self.label_specs]),
            "names": _text(self.names),
            "truth": self.truth,
            "folds": self.folds,
            "probabilities": self.probabilities,
            "test_names": _text(self.test_names),
            "test_keys": _text(self.test_keys),
            "test_truth": self.test_truth,
            "test_by_fold": self.test_by_fold,
        }
        if self.plain is not None:
            arrays["plain"] = self.plain
        if self.network is not None:
            arrays["network"] = self.network
        np.savez_compressed(folder / FILE, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, folder: Path) -> ClassPredictions:
        """Read probabilities.npz.

        Args:
            folder: of the run.

        Raises:
            StoreError: the file is missing or damaged.
        """
        file = folder / FILE
        try:
            status = file.lstat()
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
                raise ValueError("a regular file of at most 1 GB expected")
            with ZipFile(file) as archive:
                # A compressed file of a few KB can hold many GB of zeros.
                if sum(entry.file_size for entry in archive.infolist()) > MAX_BYTES:
                    raise ValueError("arrays of more than 1 GB found, at most 1 GB expected")
            with np.load(file, allow_pickle=False) as arrays:
                values: dict[str, Any] = {"plain": None, **{key: arrays[key] for key in arrays.files}}
            texts = ("labels", "names", "test_names", "test_keys")
            label_specs = tuple(zip(values.pop("classes").tolist(), values.pop("states").tolist(), strict=True))
            return cls(label_specs=label_specs, **values | {key: tuple(values[key].tolist()) for key in texts})
        except FileNotFoundError:
            raise StoreError(f"{file}: missing; expected the probabilities of a classification run.") from None
        # NumPy raises many types of exceptions for a damaged archive.
        except Exception as error:
            raise StoreError(f"{file}: damaged ({type(error).__name__}: {error}). Make the run again.") from error


def _text(values: Sequence[str]) -> npt.NDArray[np.str_]:
    return np.array(values, dtype=np.str_) if values else np.zeros(0, dtype="U1")


def truth_of(samples: Sequence[LabelledSample], labels: Sequence[str]) -> npt.NDArray[np.int64]:
    """Labels of samples as positions in `labels`.

    Args:
        samples: n samples.
        labels: all labels, in order.

    Returns:
        Shape (n,); -1 for a missing label and for one that is not in `labels`.
    """
    positions = {label: index for index, label in enumerate(labels)}
    return np.array([positions.get(sample.label, -1) for sample in samples], dtype=np.int64)

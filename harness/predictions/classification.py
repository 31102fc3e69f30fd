"""ClassPredictions: what a classifying backend hands over and metrics are computed from, checked once, here.

An image's label is the one with the largest probability; of equal ones the first in the order of labels.
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
LARGEST = 2**30  # bytes


@dataclass(frozen=True)
class ClassPredictions:
    """Probabilities of each label, out of fold and for the images to be named.

    Attributes:
        labels: in the order of the last axis.
        meanings: class and state of each.
        names: of the images that a fold judged.
        truth: shape (n,), their labels as positions in `labels`.
        folds: shape (n,), who judged them: networks that never saw them.
        probabilities: shape (n, labels); rows sum to 1.
        plain: the same without test-time augmentation; None where there was none.
        test_names: of the images to be named.
        test_keys: what a submission calls them.
        test_truth: shape (m,), -1 where the label is not known (or never trained on).
        test_by_fold: shape (folds, m, labels), of each fold's networks, in the order of the folds.
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

    def __post_init__(self) -> None:
        n, m, k = len(self.names), len(self.test_names), len(self.labels)
        for what, found, rows in (
            ("out-of-fold", self.probabilities, n),
            ("plain", self.probabilities if self.plain is None else self.plain, n),
            *(("test", found, m) for found in self.test_by_fold),
        ):
            if found.shape != (rows, k):
                raise PredictionsError(f"{what} probabilities of shape {found.shape} found, {(rows, k)} expected.")
            if not np.isfinite(found).all() or found.min(initial=0) < -1e-6:
                raise PredictionsError(f"{what} probabilities: NaN, infinite or negative ones found.")
            if rows and np.abs(found.sum(axis=1) - 1).max() > 1e-3:
                raise PredictionsError(f"{what} probabilities: rows found that do not sum to 1.")
        if len(self.label_specs) != k:
            raise PredictionsError(f"{k} labels found, with classes and states of {len(self.label_specs)}.")
        if self.test_by_fold.ndim != 3 or (m and not len(self.test_by_fold)):
            raise PredictionsError(f"test probabilities of shape {self.test_by_fold.shape} found, some folds expected.")
        if len(self.test_keys) != m:
            raise PredictionsError(f"{m} test images found, with keys of {len(self.test_keys)}.")
        texts = (*self.labels, *self.names, *self.test_names, *self.test_keys, *itertools.chain(*self.label_specs))
        if not all(isinstance(text, str) for text in texts) or len(set(self.labels)) < k:
            raise PredictionsError("labels or names that are no text, or labels that are not all different, found.")
        if any(found.dtype.kind not in "iu" for found in (self.truth, self.folds, self.test_truth)):
            raise PredictionsError("labels or folds that are no whole numbers found.")
        if any(found.dtype.kind != "f" for found in (self.probabilities, self.test_by_fold)):
            raise PredictionsError("probabilities that are no real numbers found.")
        if (n and not 0 <= self.truth.min() <= self.truth.max() < k) or self.test_truth.max(initial=-1) >= k:
            raise PredictionsError(f"labels beyond the {k} known ones found.")
        if self.truth.shape != (n,) or self.folds.shape != (n,) or self.test_truth.shape != (m,):
            raise PredictionsError(f"{n} images found, with {len(self.truth)} labels and {len(self.folds)} folds.")

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """Shape (n,), positions in `labels`."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @property
    def test_probabilities(self) -> Probabilities:
        """Shape (m, labels), averaged over folds."""
        return np.asarray(self.test_by_fold.mean(axis=0), dtype=np.float32)

    @property
    def test_predicted(self) -> npt.NDArray[np.int64]:
        """Shape (m,), positions in `labels`."""
        return np.asarray(self.test_probabilities.argmax(axis=1), dtype=np.int64)

    def save(self, folder: Path) -> None:
        """Write probabilities.npz; plain arrays only, so that it loads without executing anything."""
        arrays = {
            "labels": _text(self.labels),
            "classes": _text([part for part, _ in self.label_specs]),
            "states": _text([state for _, state in self.label_specs]),
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
        np.savez_compressed(folder / FILE, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, folder: Path) -> ClassPredictions:
        """Of a run's folder.

        Raises:
            StoreError: the file is missing or damaged.
        """
        file = folder / FILE
        try:
            status = file.lstat()
            if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST:
                raise ValueError("a regular file of at most 1 GB expected")
            with ZipFile(file) as archive:
                # What it unpacks to, too: a few KB of zeros can be many GB.
                if sum(entry.file_size for entry in archive.infolist()) > LARGEST:
                    raise ValueError("arrays of at most 1 GB together expected")
            with np.load(file, allow_pickle=False) as found:
                values: dict[str, Any] = {"plain": None, **{key: found[key] for key in found.files}}
            texts = ("labels", "names", "test_names", "test_keys")
            label_specs = tuple(zip(values.pop("classes").tolist(), values.pop("states").tolist(), strict=True))
            return cls(label_specs=label_specs, **values | {key: tuple(values[key].tolist()) for key in texts})
        except FileNotFoundError:
            raise StoreError(f"{file}: missing; expected the probabilities of a classification run.") from None
        # Whatever a damaged archive makes NumPy raise.
        except Exception as error:
            raise StoreError(f"{file}: damaged ({type(error).__name__}: {error}). Make the run again.") from error


def _text(values: Sequence[str]) -> npt.NDArray[np.str_]:
    return np.array(values, dtype=np.str_) if values else np.zeros(0, dtype="U1")


def truth_of(samples: Sequence[LabelledSample], labels: Sequence[str]) -> npt.NDArray[np.int64]:
    """Labels as positions; -1 where there is none, or one that is not among `labels`."""
    place = {label: index for index, label in enumerate(labels)}
    return np.array([place.get(sample.label, -1) for sample in samples], dtype=np.int64)

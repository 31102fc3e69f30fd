"""scores.csv: the scores of a run. The run writes the file with its record, and reports read the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from harness.common.errors import StoreError
from harness.common.reading import LARGEST, read_rows
from harness.common.tables import csv_text, guarded_path, unguarded, unguarded_path
from harness.results.store import AGAIN

if TYPE_CHECKING:
    from harness.metrics.evaluate import Evaluation

SCORES = "scores.csv"
COLUMNS = ("path", "label", "defect_type", "score", "predicted_label", "role")
# Roles of images: the metrics are of the images with `TEST`, and the other images fixed the threshold.
TEST, VALIDATION, HELD_OUT = "test", "validation", "held out"


@dataclass(frozen=True)
class TestScores:
    """The scores of a run's test images.

    Attributes:
        names: paths of the images, relative to the data's root.
        labels: shape (n,), True is anomalous.
        scores: shape (n,), raw scores.
        defects: type of defect of each image.
    """

    __test__ = False  # pytest collects classes whose name begins with Test

    names: tuple[str, ...]
    labels: npt.NDArray[np.bool_]
    scores: npt.NDArray[np.float64]
    defects: tuple[str, ...]

    @property
    def both_classes(self) -> bool:
        """Whether the test set has normal and anomalous images."""
        return bool(self.labels.any()) and not bool(self.labels.all())


def scores_csv(evaluation: Evaluation) -> str:
    """The text of scores.csv, with one row for each image. The predicted label is blank without a threshold."""
    rows: list[Sequence[object]] = [COLUMNS]
    threshold = evaluation.thresholds.image
    subsets = ((TEST, evaluation.test), (VALIDATION, evaluation.validation), (HELD_OUT, evaluation.held_out))
    for role, predictions in subsets:
        if predictions is None:
            continue
        for sample, score in zip(predictions.samples, predictions.scores, strict=True):
            predicted = "" if threshold is None else int(score > threshold)
            name = guarded_path(sample.name)
            rows.append([name, sample.label, sample.defect, repr(float(score)), predicted, role])
    return csv_text(rows)


def read_scores(folder: Path) -> TestScores | None:
    """Read the scores of the test images from a run's folder.

    Returns:
        The scores; None without scores.csv.

    Raises:
        StoreError: the file is damaged.
    """
    file = folder / SCORES
    try:
        rows = list(_test_rows(file, read_rows(file, advice=AGAIN)))
    except FileNotFoundError:
        return None
    names, labels, scores, defects = zip(*rows, strict=True) if rows else ((), (), (), ())
    return TestScores(names, np.array(labels, dtype=np.bool_), np.array(scores, dtype=np.float64), defects)


def _test_rows(file: Path, lines: Iterator[list[str]]) -> Iterator[tuple[str, bool, float, str]]:
    columns = {name: index for index, name in enumerate(next(lines, []))}
    required = ("path", "label", "score", "defect_type")
    missing = [name for name in required if name not in columns]
    if missing:
        raise StoreError(f"{file}: damaged (no column {missing[0]} found). {AGAIN}")
    path, label, score, defect = (columns[name] for name in required)
    # Files of older versions have test images only, and no column of roles.
    role = columns.get("role")
    for number, row in enumerate(lines, 2):
        try:
            if role is None or row[role] == TEST:
                truth = {"0": False, "1": True}[row[label]]
                yield _inside(unguarded_path(row[path])), truth, _number(row[score]), unguarded(row[defect])
        except (IndexError, KeyError, ValueError) as error:
            raise StoreError(f"{file}: damaged (row {number}: {type(error).__name__}: {error}). {AGAIN}") from error


def _number(text: str) -> float:
    value = float(text)
    if not abs(value) <= LARGEST:
        raise ValueError(f"score {text} found, a finite number expected")
    return value


def _inside(name: str) -> str:
    """The name of an image: a path below the data's root, or an absolute path for images outside the root."""
    if not name or "\x00" in name or ".." in PurePosixPath(name).parts:
        raise ValueError(f"image {name!r} found, a path inside the data's folder expected")
    return name

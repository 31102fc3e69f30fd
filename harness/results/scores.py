"""scores.csv and calibration.csv: the scores of a run, written with its record.

scores.csv has the test images, images without a label, and the synthetic defects of `rank: synthetic`. calibration.csv
has the normal images that fixed the threshold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from harness.common.errors import StoreError
from harness.common.reading import LARGEST, read_rows
from harness.common.tables import csv_text, guarded_path, unguarded, unguarded_path
from harness.results.run_folder import AGAIN

if TYPE_CHECKING:
    from harness.metrics.evaluate import Evaluation
    from harness.predictions.detection import Predictions

SCORES = "scores.csv"
COLUMNS = ("path", "label", "defect_type", "score", "predicted_label", "role")
# Roles of images: the metrics are of the images with `TEST`, and labelled images with `VALIDATION` fixed the threshold.
# The images with `HOLDOUT` test the best trial of a search, and those with `SYNTHETIC` rank without labels. Images with
# `UNLABELLED` have no label and no type of defect, and no metric counts them.
TEST, VALIDATION, HOLDOUT, SYNTHETIC, UNLABELLED = "test", "validation", "holdout", "synthetic", "unlabelled"
CALIBRATION = "calibration.csv"
CALIBRATION_COLUMNS = ("path", "score")
LABELS = {"0": False, "1": True}
# Exceptions of a row with a missing column or a wrong value.
DAMAGED = (IndexError, KeyError, ValueError)


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


def scores_csv(
    evaluation: Evaluation, holdout: Predictions | None = None, unlabelled: Predictions | None = None
) -> str:
    """The text of scores.csv, with one row for each image. The predicted label is blank without a threshold.

    Args:
        evaluation: of the run.
        holdout: predictions for the held-out images of a search.
        unlabelled: predictions for images without a label.
    """
    rows: list[Sequence[object]] = [COLUMNS]
    threshold = evaluation.thresholds.image
    subsets = {TEST: evaluation.test, VALIDATION: evaluation.validation, HOLDOUT: holdout}
    subsets |= {SYNTHETIC: evaluation.synthetic, UNLABELLED: unlabelled}
    for role, predictions in subsets.items():
        if predictions is None:
            continue
        for sample, score in zip(predictions.samples, predictions.scores, strict=True):
            predicted = "" if threshold is None else int(score > threshold)
            name = guarded_path(sample.name)
            label = "" if sample.unlabelled else sample.label
            rows.append([name, label, sample.defect, repr(float(score)), predicted, role])
    return csv_text(rows)


def calibration_csv(calibration: Predictions) -> str:
    """The text of calibration.csv: the path of each normal image, and its score by a model that did not learn from it.

    Args:
        calibration: see `harness.backends.base.Detected`.
    """
    scored = zip(calibration.samples, calibration.scores, strict=True)
    return csv_text([CALIBRATION_COLUMNS, *((guarded_path(s.name), repr(float(score))) for s, score in scored)])


@dataclass(frozen=True)
class CalibrationScores:
    """The scores that fixed a threshold.

    Attributes:
        names: paths of the images, relative to the data's root.
        scores: shape (n,), raw scores.
    """

    names: tuple[str, ...]
    scores: npt.NDArray[np.float64]


def read_calibration(folder: Path) -> CalibrationScores | None:
    """Read the calibration scores from a run's folder.

    Returns:
        The scores; None without calibration.csv, as in runs of version 0.1 and runs without calibration images.

    Raises:
        StoreError: the file is damaged.
    """
    file = folder / CALIBRATION
    names, scores = [], []
    try:
        lines = read_rows(file, advice=AGAIN)
        path, score = _columns(file, next(lines, []), CALIBRATION_COLUMNS)
        for number, row in enumerate(lines, 2):
            try:
                names.append(_inside(row[path]))
                scores.append(_number(row[score]))
            except DAMAGED as error:
                raise _damaged_row(file, number, error) from error
    except FileNotFoundError:
        return None
    return CalibrationScores(tuple(names), np.array(scores, dtype=np.float64))


class ScoredImage(NamedTuple):
    """One row of scores.csv.

    Attributes:
        name: path of the image, relative to the data's root.
        label: True is anomalous; None for an image without a label.
        score: the raw score.
        defect: type of defect; empty for an image without a label.
        role: what the image was for, such as `TEST`.
    """

    name: str
    label: bool | None
    score: float
    defect: str
    role: str


def read_scored_images(folder: Path) -> list[ScoredImage] | None:
    """Read all rows of scores.csv from a run's folder.

    Returns:
        The rows; None without scores.csv.

    Raises:
        StoreError: the file is damaged.
    """
    file = folder / SCORES
    try:
        return list(_rows(file, read_rows(file, advice=AGAIN)))
    except FileNotFoundError:
        return None


def read_scores(folder: Path, role: str = TEST) -> TestScores | None:
    """Read the scores of labelled images from a run's folder.

    Args:
        folder: of the run.
        role: of the images; those of the metrics by default.

    Returns:
        The scores; None without scores.csv.

    Raises:
        StoreError: the file is damaged.
    """
    images = read_scored_images(folder)
    if images is None:
        return None
    images = [image for image in images if image.role == role]
    return TestScores(
        names=tuple(image.name for image in images),
        labels=np.array([image.label for image in images], dtype=np.bool_),
        scores=np.array([image.score for image in images], dtype=np.float64),
        defects=tuple(image.defect for image in images),
    )


def _rows(file: Path, lines: Iterator[list[str]]) -> Iterator[ScoredImage]:
    header = next(lines, [])
    path, label, score, defect = _columns(file, header, ("path", "label", "score", "defect_type"))
    # Files of older versions have test images only, and no column of roles.
    role_column = header.index("role") if "role" in header else None
    for number, row in enumerate(lines, 2):
        # A `with` takes longer than the row.
        try:
            role = TEST if role_column is None else row[role_column]
            truth = None if role == UNLABELLED else LABELS[row[label]]
            yield ScoredImage(_inside(row[path]), truth, _number(row[score]), _kind(row[defect]), role)
        except DAMAGED as error:
            raise _damaged_row(file, number, error) from error


def _columns(file: Path, header: Sequence[str], required: Sequence[str]) -> list[int]:
    """Positions of columns in a file."""
    missing = [name for name in required if name not in header]
    if missing:
        raise StoreError(f"{file}: damaged (no column {missing[0]} found). {AGAIN}")
    return [header.index(name) for name in required]


def _damaged_row(file: Path, number: int, error: Exception) -> StoreError:
    """The error of a value, with file and row."""
    return StoreError(f"{file}: damaged (row {number}: {type(error).__name__}: {error}). {AGAIN}")


def _number(text: str) -> float:
    value = float(text)
    if not abs(value) <= LARGEST:
        raise ValueError(f"score {text} found, a finite number expected")
    return value


# Thousands of runs name the same images. Each name is checked and kept in memory once.
@lru_cache(maxsize=2**17)
def _inside(cell: str) -> str:
    """The name of an image: a path below the data's root, or an absolute path for images outside the root."""
    name = unguarded_path(cell)
    if not name or "\x00" in name or ".." in name.split("/"):
        raise ValueError(f"image {name!r} found, a path inside the data's folder expected")
    return name


@lru_cache(maxsize=2**10)
def _kind(cell: str) -> str:
    """The type of defect."""
    return unguarded(cell)

"""scores.csv: what a run said of each image; written with its record, read by reports."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from harness.errors import StoreError

if TYPE_CHECKING:
    from harness.metrics.evaluate import Evaluation

SCORES = "scores.csv"
COLUMNS = ("path", "label", "defect_type", "score", "predicted_label", "role")
# What an image was there for: the figures are about `TEST`; the other two fixed the threshold.
TEST, VALIDATION, HELD_OUT = "test", "validation", "held out"


@dataclass(frozen=True)
class TestScores:
    """What a run said of its test images.

    Attributes:
        names: of the images, relative to the data's root.
        labels: shape (n,), True is anomalous.
        scores: shape (n,), raw.
        defects: type of defect of each.
    """

    __test__ = False  # no test class, whatever pytest makes of its name

    names: tuple[str, ...]
    labels: npt.NDArray[np.bool_]
    scores: npt.NDArray[np.float64]
    defects: tuple[str, ...]

    @property
    def both_classes(self) -> bool:
        """Whether there is anything to tell apart."""
        return bool(self.labels.any()) and not bool(self.labels.all())


def scores_csv(evaluation: Evaluation) -> str:
    """One row an image; the predicted label is blank where there is no threshold."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    threshold = evaluation.thresholds.image
    parts = ((TEST, evaluation.test), (VALIDATION, evaluation.validation), (HELD_OUT, evaluation.held_out))
    for role, predictions in parts:
        if predictions is None:
            continue
        for sample, score in zip(predictions.samples, predictions.scores, strict=True):
            predicted = "" if threshold is None else int(score > threshold)
            writer.writerow([sample.name, sample.label, sample.defect, repr(float(score)), predicted, role])
    return text.getvalue()


def read_scores(folder: Path) -> TestScores | None:
    """scores.csv of a run's folder: its test images.

    Raises:
        StoreError: the file is damaged.
    """
    file = folder / SCORES
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            rows = list(_test_rows(csv.reader(stream)))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, IndexError, StopIteration, RuntimeError) as error:
        raise StoreError(
            f"{file}: damaged ({type(error).__name__}: {error}). Remove the run's folder to have it made again."
        ) from error
    names, labels, scores, defects = zip(*rows, strict=True) if rows else ((), (), (), ())
    return TestScores(names, np.array(labels, dtype=np.bool_), np.array(scores, dtype=np.float64), defects)


def _test_rows(lines: Iterator[list[str]]) -> Iterator[tuple[str, bool, float, str]]:
    place = {name: index for index, name in enumerate(next(lines))}
    path, label, score, defect = (place[name] for name in ("path", "label", "score", "defect_type"))
    # Files of older versions hold test images only, and do not say so.
    role = place.get("role")
    for row in lines:
        if role is None or row[role] == TEST:
            yield row[path], row[label] == "1", float(row[score]), row[defect]

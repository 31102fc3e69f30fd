"""Predicted labels of the test images, in the form of a sample submission."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.common.errors import DataError, StoreError
from harness.common.files import write_atomic
from harness.common.tables import csv_text, guarded
from harness.ensemble.runs import ClassRun, check_all_classes, check_labels
from harness.predictions.classification import ClassPredictions


@dataclass(frozen=True)
class Submission:
    """Facts on a written submission.

    Attributes:
        rows: number of rows.
        counts: number of rows of each label.
        like: the sample submission; None without one.
        header: names of the columns.
        marked: number of cells with an added apostrophe, so that no spreadsheet takes them for formulas.
    """

    rows: int
    counts: Counter[str]
    like: Path | None
    header: Sequence[str]
    marked: int = 0


def submit(runs: Sequence[ClassRun], out: Path) -> Submission:
    """Average the probabilities of runs, each averaged over its folds, and write the labels of the test images.

    Args:
        runs: one run or more.
        out: path of the CSV file.

    Returns:
        Number of rows and labels, and the form of the file.

    Raises:
        StoreError: the runs have different test images or none, a run has networks for some classes only, or the file
            can't be written.
        DataError: the sample submission has rows of other images.
    """
    check_labels(runs)
    check_all_classes(runs)
    first = runs[0].predictions
    for run in runs[1:]:
        if run.predictions.test_keys != first.test_keys:
            raise StoreError(
                f"{run.folder}: {len(run.predictions.test_keys)} test images found, {len(first.test_keys)} other test "
                f"images in {runs[0].folder}; expected runs on the same test images."
            )
    if not first.test_keys:
        raise StoreError(f"{runs[0].folder}: no test images found; expected a run on data with test images.")
    mean = np.mean([run.predictions.test_probabilities for run in runs], axis=0)
    if len(set(first.test_keys)) < len(first.test_keys):
        raise StoreError(f"{runs[0].folder}: test images with the same name found; expected a name for each image.")
    labels = dict(zip(first.test_keys, (first.labels[i] for i in mean.argmax(axis=1)), strict=True))
    sample = runs[0].record.data.get("sample_submission")
    like = Path(sample) if sample else None
    # The key of an image is the name of its file, or an index in a table of the data.
    has_file_names = all(name.endswith(key) for name, key in zip(first.test_names, first.test_keys, strict=True))
    plain = [["file_name" if has_file_names else "index", "label"], *map(list, labels.items())]
    rows = _rows_like(like, labels, first) if like is not None else plain
    write_atomic(out, csv_text(rows))
    marked = sum(guarded(cell) != cell for row in rows for cell in row)
    return Submission(len(rows) - 1, Counter(row[1] for row in rows[1:]), like, rows[0], marked)


def _rows_like(sample: Path, labels: dict[str, str], predictions: ClassPredictions) -> list[list[str]]:
    """The rows in the order and with the two columns of a sample submission: key of the image, and label.

    Raises:
        DataError: the sample can't be read, or has rows of other images.
    """
    try:
        with sample.open(encoding="utf-8-sig", newline="") as stream:
            header, *rows = list(csv.reader(stream))
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise DataError(f"{sample}: can't be read as a CSV table ({error}).") from error
    if len(header) != 2:
        raise DataError(f"{sample}: columns {', '.join(header)} found; expected two: name of the image, and label.")
    keys = [row[0].strip() for row in rows if row]
    by_name = dict(zip((Path(name).name for name in predictions.test_names), labels.values(), strict=True))
    if len(by_name) < len(labels):
        # Files in different folders have the same name, so a name alone does not identify an image.
        by_name = {}
    if by_name and not set(keys) <= set(labels) and set(keys) <= set(by_name):
        # The sample may have file names although the table of the data has indices.
        labels = by_name
    missing, spare = sorted(set(keys) - set(labels)), sorted(set(labels) - set(keys))
    if missing or spare or len(set(keys)) < len(keys):
        raise DataError(
            f"{sample}: {len(keys)} rows found for {len(labels)} test images: {len(missing)} without a prediction "
            f"({', '.join(missing[:3]) or 'none'}), {len(spare)} test images without a row "
            f"({', '.join(spare[:3]) or 'none'}); expected the same images, each once."
        )
    return [header, *([key, labels[key]] for key in keys)]

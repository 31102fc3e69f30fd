"""Labels for the images to be named, in the form of a sample submission."""

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
from harness.ensemble.runs import ClassRun, same_labels
from harness.predictions.classification import ClassPredictions


@dataclass(frozen=True)
class Submission:
    """What was written.

    Attributes:
        rows: how many.
        counts: how many of each label.
        like: the sample submission, None where there was none.
        header: names of the columns.
        marked: cells that begin with an apostrophe now, so that no spreadsheet takes them for formulas.
    """

    rows: int
    counts: Counter[str]
    like: Path | None
    header: Sequence[str]
    marked: int = 0


def submit(runs: Sequence[ClassRun], out: Path) -> Submission:
    """Average runs (each already averaged over its folds) and write their labels.

    Args:
        runs: at least one.
        out: the file.

    Raises:
        StoreError: the runs do not name the same images, or the file can't be written.
        DataError: the sample submission asks for other rows.
    """
    same_labels(runs)
    first = runs[0].predictions
    for run in runs[1:]:
        if run.predictions.test_keys != first.test_keys:
            raise StoreError(
                f"{run.folder}: names {len(run.predictions.test_keys)} images, {runs[0].folder} "
                f"{len(first.test_keys)}, and not the same ones; expected runs on the same test images."
            )
    if not first.test_keys:
        raise StoreError(f"{runs[0].folder}: there are no images to be named (no test images in its data).")
    mean = np.mean([run.predictions.test_probabilities for run in runs], axis=0)
    if len(set(first.test_keys)) < len(first.test_keys):
        raise StoreError(f"{runs[0].folder}: test images that are called alike found; expected a name for each.")
    labels = dict(zip(first.test_keys, (first.labels[i] for i in mean.argmax(axis=1)), strict=True))
    sample = runs[0].record.data.get("sample_submission")
    like = Path(sample) if sample else None
    # Without a sample: what images are called is their file's name, or what a table has for it.
    files = all(name.endswith(key) for name, key in zip(first.test_names, first.test_keys, strict=True))
    plain = [["file_name" if files else "index", "label"], *map(list, labels.items())]
    rows = _like(like, labels, first) if like is not None else plain
    write_atomic(out, csv_text(rows))
    marked = sum(guarded(cell) != cell for row in rows for cell in row)
    return Submission(len(rows) - 1, Counter(row[1] for row in rows[1:]), like, rows[0], marked)


def _like(sample: Path, labels: dict[str, str], found: ClassPredictions) -> list[list[str]]:
    """Rows in the order and with the columns of a sample submission: the first is what images are called, then labels.

    Raises:
        DataError: it can't be read, or asks for other images than those that were named.
    """
    try:
        with sample.open(encoding="utf-8-sig", newline="") as stream:
            header, *rows = list(csv.reader(stream))
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise DataError(f"{sample}: can't be read as a CSV table ({error}).") from error
    if len(header) != 2:
        raise DataError(
            f"{sample}: columns {', '.join(header)} found; expected two, what an image is called and its label."
        )
    asked = [row[0].strip() for row in rows if row]
    by_name = dict(zip((Path(name).name for name in found.test_names), labels.values(), strict=True))
    if len(by_name) < len(labels):
        # Files of several folders are called alike: their names alone say nothing.
        by_name = {}
    if by_name and not set(asked) <= set(labels) and set(asked) <= set(by_name):
        # It may call images by their files where the table has numbers for them.
        labels = by_name
    missing, spare = sorted(set(asked) - set(labels)), sorted(set(labels) - set(asked))
    if missing or spare or len(set(asked)) < len(asked):
        raise DataError(
            f"{sample}: {len(asked)} rows found for {len(labels)} named images: {len(missing)} of images that were not "
            f"named ({', '.join(missing[:3]) or 'none'}), {len(spare)} named images without a row "
            f"({', '.join(spare[:3]) or 'none'}); expected the same images, each once."
        )
    return [header, *([key, labels[key]] for key in asked)]

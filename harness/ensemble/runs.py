"""Finished classifications, as ensembles want them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from harness.common.errors import StoreError
from harness.predictions.classification import ClassPredictions
from harness.results.record import RunRecord
from harness.results.store import RECORD, ResultFolder, read_record


@dataclass(frozen=True)
class ClassRun:
    """A run.

    Attributes:
        folder: its folder.
        record: its record.
    """

    folder: Path
    record: RunRecord

    @cached_property
    def predictions(self) -> ClassPredictions:
        """Read when they are asked for."""
        return ClassPredictions.load(self.folder)


def class_run(path: Path) -> ClassRun:
    """A run's folder, or a sweep's: its best run. Its model need not have been kept.

    Raises:
        StoreError: there is none, or it is no finished classification.
    """
    folder = path
    if not (path / RECORD).is_file():
        results = ResultFolder(path)
        records = results.read_records()
        done = [record for record in records.good if record.status == "ok"]
        if not done and records.damaged:
            raise StoreError(list(records.damaged.values()))
        if not done:
            found = "a file" if path.is_file() else "no finished runs" if path.is_dir() else "nothing"
            raise StoreError(f"{path}: {found} found; expected a run's folder, or a sweep's (results/<name>).")
        folder = results.run_folder(max(done, key=RunRecord.rank).run_id)
    record = read_record(folder)
    if record is None or record.status != "ok" or record.task != "classification":
        what = "nothing" if record is None else f"a {record.task}, {record.status}"
        raise StoreError(f"{folder}: {what} found; expected a finished run of task classification.")
    return ClassRun(folder, record)


def same_labels(runs: Sequence[ClassRun]) -> None:
    """Refuse runs of other labels.

    Raises:
        StoreError: which of them.
    """
    first = runs[0]
    for run in runs[1:]:
        own, others = set(run.predictions.labels), set(first.predictions.labels)
        if run.predictions.labels != first.predictions.labels:
            more, less = sorted(own - others), sorted(others - own)
            raise StoreError(
                f"{run.folder}: other labels than {first.folder} found ({', '.join((more + less)[:3])}); expected runs "
                "on the same labels."
            )


def same_images(runs: Sequence[ClassRun]) -> None:
    """Refuse runs that were judged by other images, or by the same names with other labels or contents.

    Raises:
        StoreError: which of them.
    """
    same_labels(runs)
    first = runs[0].predictions
    for run in runs[1:]:
        if run.predictions.names != first.names:
            raise StoreError(
                f"{run.folder}: judged by {len(run.predictions.names)} images, {runs[0].folder} by {len(first.names)}, "
                "and not the same ones; expected runs on the same data and run_folds."
            )
        ours, theirs = (one.record.data.get("test_fingerprint") for one in (run, runs[0]))
        if not np.array_equal(run.predictions.truth, first.truth) or ours != theirs:
            raise StoreError(
                f"{run.folder}: judged by images of the same names as {runs[0].folder}, but with other labels or "
                "contents; expected runs on the same data. Make the older ones again."
            )
        if run.predictions.test_keys != first.test_keys:
            raise StoreError(f"{run.folder}: names other test images than {runs[0].folder}; expected the same ones.")

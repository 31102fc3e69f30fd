"""Finished classification runs, with checks that they fit together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from harness.common.errors import StoreError
from harness.predictions.classification import ClassPredictions
from harness.results.record import RunRecord
from harness.results.run_folder import RECORD, read_record
from harness.results.store import ResultFolder


@dataclass(frozen=True)
class ClassRun:
    """A finished classification run.

    Attributes:
        folder: the run's folder.
        record: the run's record.
    """

    folder: Path
    record: RunRecord

    @cached_property
    def predictions(self) -> ClassPredictions:
        """The run's predictions, read at the first access."""
        return ClassPredictions.load(self.folder)

    @property
    def only_classes(self) -> tuple[str, ...]:
        """Classes with networks; empty for all."""
        names = self.record.spec.get("params", {}).get("only_classes", ())
        return (names,) if isinstance(names, str) else tuple(names)


def class_run(path: Path) -> ClassRun:
    """Find a finished classification run in a run's folder, or the best run in a sweep's folder. No model is needed.

    Raises:
        StoreError: there is no run, or the run is no finished classification.
    """
    folder = path
    if not (path / RECORD).is_file():
        results = ResultFolder(path)
        records = results.read_records()
        finished = [record for record in records.good if record.status == "ok"]
        if not finished and records.damaged:
            raise StoreError(list(records.damaged.values()))
        if not finished:
            kind = "a file" if path.is_file() else "no finished runs" if path.is_dir() else "nothing"
            raise StoreError(f"{path}: {kind} found; expected a run's folder, or a sweep's (results/<name>).")
        folder = results.run_folder(max(finished, key=RunRecord.rank).run_id)
    record = read_record(folder)
    if record is None or record.status != "ok" or record.task != "classification":
        kind = "nothing" if record is None else f"a {record.task} with status {record.status}"
        raise StoreError(
            f"{folder}: {kind} found; expected a finished run of task classification. `submit --format` takes "
            "detections."
        )
    return ClassRun(folder, record)


def check_labels(runs: Sequence[ClassRun]) -> None:
    """Check that all runs have the same labels.

    Raises:
        StoreError: a run has other labels than the first run.
    """
    first = runs[0]
    for run in runs[1:]:
        if run.predictions.labels != first.predictions.labels:
            labels, expected = set(run.predictions.labels), set(first.predictions.labels)
            different = sorted(labels - expected) + sorted(expected - labels)
            raise StoreError(
                f"{run.folder}: other labels than {first.folder} found ({', '.join(different[:3])}); expected runs "
                "on the same labels."
            )


def check_all_classes(runs: Sequence[ClassRun]) -> None:
    """Check that each run has networks for all classes, so that an average makes sense.

    Raises:
        StoreError: a run has networks for some classes only.
    """
    for run in runs:
        if run.only_classes:
            raise StoreError(
                f"{run.folder}: networks for {', '.join(run.only_classes)} only found (only_classes); expected "
                "networks for all classes in an average. Take this run in a rule of a blend."
            )


def check_images(runs: Sequence[ClassRun]) -> None:
    """Check that all runs have predictions for the same images, with the same labels and contents.

    Raises:
        StoreError: a run has other labels or other images than the first run.
    """
    check_labels(runs)
    first = runs[0].predictions
    for run in runs[1:]:
        if run.predictions.names != first.names:
            raise StoreError(
                f"{run.folder}: {len(run.predictions.names)} images found, {len(first.names)} other images in "
                f"{runs[0].folder}; expected runs on the same data and run_folds."
            )
        fingerprint, expected = (one.record.data.get("test_fingerprint") for one in (run, runs[0]))
        if not np.array_equal(run.predictions.truth, first.truth) or fingerprint != expected:
            raise StoreError(
                f"{run.folder}: images of the same names as in {runs[0].folder} found, but with other labels or "
                "contents; expected runs on the same data. Make the older runs again."
            )
        if run.predictions.test_keys != first.test_keys:
            raise StoreError(f"{run.folder}: other test images than in {runs[0].folder} found; expected the same ones.")

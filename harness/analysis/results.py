"""The Python interface of finished results: runs, summary, scores and maps, for pandas and NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.common.errors import ConfigError, StoreError, UnknownNameError, unknown_name
from harness.inference.model import load_model
from harness.predictions.classification import ClassPredictions
from harness.report.combine import result_folder
from harness.report.parts import task_report
from harness.report.results import Results
from harness.results.record import RunRecord
from harness.results.scores import SYNTHETIC, read_scored_images


@dataclass(frozen=True)
class LoadedResults:
    """The results of one sweep.

    Attributes:
        results: the records, and the other files of the runs.
    """

    results: Results

    @property
    def task(self) -> str:
        """detection or classification."""
        return self.results.task

    @property
    def folder(self) -> Path:
        """The result folder."""
        return self.results.folder.root

    @property
    def damaged(self) -> tuple[str, ...]:
        """One sentence for each damaged file, whose run or part is missing here."""
        return tuple(self.results.damaged)

    @cached_property
    def runs(self) -> pd.DataFrame:
        """A row for each run, the best first; failed and skipped runs are at the end.

        The columns are those of the sheet *Runs*, with typed values. The column `run` has the run ids.
        """
        return typed(task_report(self.results).runs(self.results))

    def summary(self) -> pd.DataFrame:
        """A row for each compared configuration: the rows and columns of the sheet *Summary*, with typed values."""
        return typed(task_report(self.results).summary(self.results))

    def scores(self, run: str) -> pd.DataFrame:
        """The predictions of one run, a row for each image.

        Args:
            run: a run id, as in the column `run` of `runs`.

        Returns:
            For a detection: path, label (True is anomalous; missing without a label), defect_type, score and role of
            the image. For a classification: path, role, true label, predicted label and one probability for each label.

        Raises:
            UnknownNameError: there is no such run.
            StoreError: the run has no predictions, or their file is damaged.
        """
        folder = self.results.folder.run_folder(self._record(run).run_id)
        if self.task == "classification":
            return _class_scores(ClassPredictions.load(folder))
        images = read_scored_images(folder)
        if images is None:
            raise StoreError(f"{folder}: no scores found. Make the run again with --fresh.")
        rows = [(image.name, image.label, image.defect or None, image.score, image.role) for image in images]
        frame = pd.DataFrame(rows, columns=["path", "label", "defect_type", "score", "role"])
        return frame.astype({"label": "boolean", "score": "float64"})

    def maps(self, run: str, device: str = "auto") -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
        """The anomaly maps of one run's images on disk. No map is stored: the saved model of the run computes them.

        Args:
            run: a run id of a detection, as in the column `run` of `runs`.
            device: auto, cpu, cuda, cuda:N or mps.

        Yields:
            The path of an image as in `scores`, and its raw map, shape (height, width) of the network's input.

        Raises:
            UnknownNameError: there is no such run.
            ConfigError: the run is a classification, or its model gives no maps.
            StoreError: the run has no saved model.
            DataError: an image is missing or can't be read.
        """
        record = self._record(run)
        if self.task != "detection":
            raise ConfigError(f"maps: results of task {self.task!r} found; expected a detection.")
        model = load_model(self.results.folder.run_folder(record.run_id), device=device)
        root = Path(record.data["root"])
        scores = self.scores(run)
        # The files of synthetic defects are gone.
        for name in scores["path"][scores["role"] != SYNTHETIC]:
            anomaly_map = model.predict(root / name).anomaly_map
            if anomaly_map is None:
                raise ConfigError(f"{record.run_id}: a model without maps found; expected a model with anomaly maps.")
            yield name, anomaly_map

    def _record(self, run: str) -> RunRecord:
        for record in self.results.records:
            if record.run_id == run:
                return record
        raise UnknownNameError(unknown_name("run", run, [record.run_id for record in self.results.records]))


def load_results(folder: str | Path) -> LoadedResults:
    """Read the results of a sweep or a search.

    Args:
        folder: a result folder, such as results/patchcore.

    Returns:
        The results. Damaged files are named in `damaged`.

    Raises:
        StoreError: the folder holds no finished runs, or a newer version of harness wrote it.
    """
    return LoadedResults(Results.of(result_folder(Path(folder))))


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    """A copy whose columns have pandas' nullable types: Int64, Float64, boolean or string where all values allow it.

    Args:
        frame: a table of a report.
    """
    return frame.convert_dtypes()


def _class_scores(predictions: ClassPredictions) -> pd.DataFrame:
    labels = np.array([*predictions.labels, None], dtype=object)
    parts = (
        (predictions.names, "out of fold", predictions.truth, predictions.probabilities),
        (predictions.test_names, "test", predictions.test_truth, predictions.test_probabilities),
    )
    frames = []
    for names, role, truth, probabilities in parts:
        if not names:
            continue
        facts = {"path": names, "role": role, "label": labels[truth]}
        facts |= {"predicted_label": labels[probabilities.argmax(axis=1)]}
        columns = {f"p {label}": probabilities[:, index] for index, label in enumerate(predictions.labels)}
        frames.append(pd.DataFrame({**facts, **columns}))
    return pd.concat(frames, ignore_index=True)

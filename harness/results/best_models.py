"""`save_models: best`: during a sweep, each data set has one saved model, the model of its best run so far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.results.record import RunRecord
from harness.results.store import ResultFolder


def data_of(record: RunRecord) -> str:
    """Identity of a run's data. Runs of a search that holds out test images are compared with each other only."""
    fingerprint, holdout = str(record.data["fingerprint"]), record.spec.get("holdout")
    return f"{fingerprint} less {holdout['share']}, seed {holdout['seed']}" if holdout else fingerprint


def is_best(record: RunRecord, rivals: Mapping[str, RunRecord]) -> bool:
    """Whether a run is better than the run with a saved model on the same data.

    Args:
        record: of the run.
        rivals: records of the runs with a saved model, by `data_of`.
    """
    rival = rivals.get(data_of(record))
    return rival is None or rival.run_id == record.run_id or record.rank() > rival.rank()


class BestModels:
    """The saved models of a result folder.

    Args:
        folder: the result folder.
        records: of all its runs.

    Attributes:
        records: records of the runs with the best saved model, by `data_of`.
    """

    def __init__(self, folder: ResultFolder, records: Iterable[RunRecord]) -> None:
        self._folder = folder
        self.records: dict[str, RunRecord] = {}
        for record in records:
            if record.status == "ok" and folder.model_file(record.run_id) and self.is_best(record):
                self.records[data_of(record)] = record

    def is_best(self, record: RunRecord) -> bool:
        """Whether a run is better than the run with a saved model on the same data."""
        return is_best(record, self.records)

    def replace(self, record: RunRecord) -> None:
        """Register the saved model of a new best run, and delete the model of the previous best run."""
        previous = self.records.get(data_of(record))
        self.records[data_of(record)] = record
        if previous is not None and previous.run_id != record.run_id:
            file = self._folder.model_file(previous.run_id)
            if file:
                file.unlink(missing_ok=True)

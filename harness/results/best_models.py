"""`save_models: best`: the result folder has one saved model for each data set, the model of the best run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.results.record import RunRecord
from harness.results.store import ResultFolder


def is_best(record: RunRecord, rivals: Mapping[str, RunRecord]) -> bool:
    """Whether a run is better than the run with a saved model on the same data.

    Args:
        record: of the run.
        rivals: records of the runs with a saved model, by fingerprint of the data.
    """
    rival = rivals.get(record.data["fingerprint"])
    return rival is None or rival.run_id == record.run_id or record.rank() > rival.rank()


class BestModels:
    """The saved models of a result folder.

    Args:
        folder: the result folder.
        records: of all its runs.

    Attributes:
        kept: records of the runs with the best saved model, by fingerprint of the data.
    """

    def __init__(self, folder: ResultFolder, records: Iterable[RunRecord]) -> None:
        self._folder = folder
        self.kept: dict[str, RunRecord] = {}
        for record in records:
            if record.status == "ok" and folder.model_file(record.run_id) and self.is_best(record):
                self.kept[record.data["fingerprint"]] = record

    def is_best(self, record: RunRecord) -> bool:
        """Whether a run is better than the run with a saved model on the same data."""
        return is_best(record, self.kept)

    def replace(self, record: RunRecord) -> None:
        """Register the saved model of a new best run, and delete the model of the previous best run."""
        previous = self.kept.get(record.data["fingerprint"])
        self.kept[record.data["fingerprint"]] = record
        if previous is not None and previous.run_id != record.run_id:
            file = self._folder.model_file(previous.run_id)
            if file:
                file.unlink(missing_ok=True)

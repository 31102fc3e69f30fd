"""`save_models: best`: which run's model is kept on which data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.results.record import RunRecord
from harness.results.store import ResultFolder


def is_best(record: RunRecord, rivals: Mapping[str, RunRecord]) -> bool:
    """Whether no run with a kept model on the same data is better."""
    rival = rivals.get(record.data["fingerprint"])
    return rival is None or rival.run_id == record.run_id or record.rank() > rival.rank()


class BestModels:
    """Those of a result folder.

    Attributes:
        kept: by data, the run.
    """

    def __init__(self, folder: ResultFolder, records: Iterable[RunRecord]) -> None:
        self._folder = folder
        self.kept: dict[str, RunRecord] = {}
        for record in records:
            if record.status == "ok" and folder.model_file(record.run_id) and self.is_best(record):
                self.kept[record.data["fingerprint"]] = record

    def is_best(self, record: RunRecord) -> bool:
        """Whether no run with a kept model on the same data is better."""
        return is_best(record, self.kept)

    def replace(self, record: RunRecord) -> None:
        """Keep this run's model, drop the one before."""
        before = self.kept.get(record.data["fingerprint"])
        self.kept[record.data["fingerprint"]] = record
        if before is not None and before.run_id != record.run_id:
            file = self._folder.model_file(before.run_id)
            if file:
                file.unlink(missing_ok=True)

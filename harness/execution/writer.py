"""Finished runs are committed to the result folder: record, files, saved model and workbook."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, field, replace

from harness.common.errors import StoreError
from harness.execution.log_capture import capture_logs
from harness.execution.progress import SweepProgress
from harness.planning.prepare import Prepared
from harness.report.excel import write_workbook
from harness.results.best_models import BestModels
from harness.results.record import RunRecord
from harness.tracking.session import TrackingSession

WORKBOOK_EVERY = 5.0  # seconds between two versions of the workbook during the runs


@dataclass
class SweepSummary:
    """The results of one call.

    Attributes:
        done: runs finished by this call.
        failed: runs that failed in this call.
        interrupted: whether Ctrl-C or a signal ended the call.
    """

    done: list[RunRecord] = field(default_factory=list)
    failed: list[RunRecord] = field(default_factory=list)
    interrupted: bool = False


def log_rest(prepared: Prepared, progress: SweepProgress, verbose: bool) -> None:
    """Log the runs of earlier calls that a tracker does not have, in a call without any run.

    Args:
        prepared: the sweep.
        progress: shows notes to the user.
        verbose: whether the terminal shows the output of the trackers too.

    Raises:
        StoreError: the result folder is not writable.
    """
    config, folder = prepared.config, prepared.folder
    with closing(TrackingSession(config.tracking, folder, config.name, progress.note)) as tracking:
        if not tracking.has_rest():
            return
        folder.create()
        with folder.open_log() as log, capture_logs(log, verbose):
            tracking.log_rest()


class ResultWriter:
    """Commits runs, one after the other.

    Args:
        prepared: the sweep.
        progress: shows notes to the user.

    Attributes:
        summary: the runs of this call so far.
        models: the saved models of the result folder.
        tracking: the trackers of the sweep.
    """

    def __init__(self, prepared: Prepared, progress: SweepProgress) -> None:
        self.summary = SweepSummary()
        self.models = BestModels(prepared.folder, prepared.records.values())
        config = prepared.config
        self.tracking = TrackingSession(config.tracking, prepared.folder, config.name, progress.note)
        self._references = prepared.config.references
        self._keeps_best, self._keeps_all = (prepared.config.save_models == choice for choice in ("best", "all"))
        self._folder, self._progress = prepared.folder, progress
        self._next_write = 0.0
        self._changed = False

    def commit(self, record: RunRecord) -> RunRecord:
        """Commit a run in one step, log it to the trackers, and return its record as written.

        The caller claims the run.

        Raises:
            StoreError: the result folder is not writable.
        """
        if self._references:
            record = replace(record, provenance={**record.provenance, "references": self._references})
        best = self._keeps_best and bool(record.model)
        if best and not self.models.is_best(record):
            # Another worker has committed a better model since this run started.
            self._folder.drop_staged_model(record.run_id)
            best, record = False, replace(record, model={})
        self._folder.commit(record)
        self._changed = True
        (self.summary.done if record.status == "ok" else self.summary.failed).append(record)
        if best:
            # The better model is committed first, so a kill at this point leaves two models, and never none.
            self.models.replace(record)
        # The sweep may still replace the model of the best run so far.
        self.tracking.log(record, with_model=self._keeps_all)
        return record

    def update(self, record: RunRecord) -> None:
        """Replace the record of a run that this call has finished.

        Raises:
            StoreError: the result folder is not writable.
        """
        self._folder.update(record)
        self.summary.done = [record if done.run_id == record.run_id else done for done in self.summary.done]

    def add_model(self, record: RunRecord) -> None:
        """Take the staged model of a run that was made again. The run's other files and its record stay as they are.

        Args:
            record: of the run that was made again.

        Raises:
            StoreError: the result folder is not writable.
        """
        first = self._folder.read_record(record.run_id)
        assert first is not None
        changed = [name for name, value in record.metrics.items() if first.metrics.get(name) != value]
        if changed:
            self._progress.note(f"  warning: {record.run_id}: made again, the run has other values of {changed[0]}")
        self._folder.add_model(replace(first, model=record.model))

    def write_workbook(self, force: bool) -> None:
        """Write models_comparing.xlsx.

        Args:
            force: whether to write in any case; otherwise only new records, in at most a tenth of the sweep's time.

        Raises:
            StoreError: the forced writing failed.
        """
        if not force and (not self._changed or time.monotonic() < self._next_write):
            return
        start = time.monotonic()
        try:
            write_workbook(self._folder)
        except StoreError as error:
            # Another program may lock the workbook. The records are safe, so only the last writing must succeed.
            if force:
                raise
            self._progress.note(f"  warning: {error} The sweep goes on and tries again.")
        else:
            self._changed = False
        seconds = time.monotonic() - start
        self._next_write = start + seconds + max(WORKBOOK_EVERY, 9 * seconds)

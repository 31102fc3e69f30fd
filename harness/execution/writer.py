"""Finished runs put in place: the record and its files, whose model is kept, the workbook, and what this call did."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from harness.common.errors import StoreError
from harness.execution.progress import SweepProgress
from harness.planning.prepare import Prepared
from harness.report.excel import write_workbook
from harness.results.best_models import BestModels
from harness.results.record import RunRecord

# How often the workbook is rewritten while runs are going on; it is always written at the end.
WORKBOOK_EVERY = 5.0  # seconds


@dataclass
class SweepSummary:
    """What this call did.

    Attributes:
        done: runs finished by this call.
        failed: runs that failed in this call.
        interrupted: whether it was stopped by Ctrl-C or a signal.
    """

    done: list[RunRecord] = field(default_factory=list)
    failed: list[RunRecord] = field(default_factory=list)
    interrupted: bool = False


class ResultWriter:
    """Puts runs in place, one after the other.

    Args:
        prepared: the sweep.
        progress: told what the user must know.
    """

    def __init__(self, prepared: Prepared, progress: SweepProgress) -> None:
        self.summary = SweepSummary()
        self.models = BestModels(prepared.folder, prepared.records.values())
        self._references = prepared.config.references
        self._keeps_best = prepared.config.save_models == "best"
        self._folder, self._progress = prepared.folder, progress
        self._next_write = 0.0

    def commit(self, record: RunRecord) -> RunRecord:
        """Put a run in place, in one step; gives its record as it was written."""
        if self._references:
            record = replace(record, provenance={**record.provenance, "references": self._references})
        best = self._keeps_best and bool(record.model)
        if best and not self.models.is_best(record):
            # Another worker has made a better one meanwhile.
            self._folder.drop_staged_model(record.run_id)
            best, record = False, replace(record, model={})
        self._folder.commit(record)
        if record.status != "ok":
            self.summary.failed.append(record)
            return record
        if best:
            # Only now that the better one is in place: a kill in between leaves one model too many, never none.
            self.models.replace(record)
        self.summary.done.append(record)
        return record

    def write_workbook(self, force: bool) -> None:
        """Bring models_comparing.xlsx up to date; unless forced, so seldom that it costs a tenth of the time."""
        if not force and time.monotonic() < self._next_write:
            return
        start = time.monotonic()
        try:
            write_workbook(self._folder)
        except StoreError as error:
            # Open in a program that locks it, say. The records are safe; at the end it is an error.
            if force:
                raise
            self._progress.note(f"  warning: {error} The sweep goes on and tries again.")
        took = time.monotonic() - start
        self._next_write = start + took + max(WORKBOOK_EVERY, 9 * took)

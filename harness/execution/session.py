"""Runs in progress of a sweep or a search: this process claims, commits and releases the runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack

from harness.execution.jobs import failure, now
from harness.execution.progress import SweepProgress
from harness.execution.writer import ResultWriter
from harness.planning.prepare import PlannedRun, Prepared
from harness.results.provenance import provenance
from harness.results.record import RunRecord


class RunSession:
    """The runs that one call of `sweep` or `tune` works on.

    Args:
        prepared: the sweep; its result folder exists.
        progress: shows the state of the runs.

    Attributes:
        writer: commits finished runs.
    """

    def __init__(self, prepared: Prepared, progress: SweepProgress) -> None:
        self._prepared, self._config, self._folder = prepared, prepared.config, prepared.folder
        self._progress = progress
        self.writer = ResultWriter(prepared, progress)

    def note(self, text: str) -> None:
        """Show a sentence to the user."""
        self._progress.note(text)

    def claim(self, run_ids: Iterable[str]) -> ExitStack | None:
        """Claim runs for this process, all or none.

        Args:
            run_ids: of the runs.

        Returns:
            The claims, which `release` closes; None where another process holds one of the runs.
        """
        with ExitStack() as claims:
            if all(claims.enter_context(self._folder.claim(run_id)) for run_id in run_ids):
                return claims.pop_all()
        return None

    def release(self, run_ids: Iterable[str], claims: ExitStack) -> None:
        """Delete the temporary files of runs, and let other processes claim the runs.

        Args:
            run_ids: of the runs.
            claims: their claims.
        """
        self._folder.clear_work(run_ids)
        claims.close()

    def give_up(self, runs: Sequence[PlannedRun], error: Exception, began: str, seconds: float) -> list[RunRecord]:
        """Commit a failure for each run.

        Args:
            runs: claimed runs without a record.
            error: the reason.
            began: time at which the work on the runs began.
            seconds: the time spent.

        Returns:
            The records, as written.
        """
        origin = {**provenance(), "began": began, "ended": now()}
        return [self.writer.commit(failure(self._config, run, error, self._folder, seconds, origin)) for run in runs]

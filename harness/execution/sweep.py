"""Groups of runs -> records. A failure stays in its run, and a kill loses the runs in progress only."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Hashable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

from harness.common.errors import StoreError, WorkerLostError
from harness.config.spec import differing
from harness.execution.interrupt import Interrupt
from harness.execution.jobs import Job, grouped, now
from harness.execution.keep import keep_recommended
from harness.execution.launchers.base import JobFinished, Launcher, ProgressEvent, RunFinished, WorkerLost
from harness.execution.launchers.in_process import InProcessLauncher
from harness.execution.launchers.spread import spread
from harness.execution.progress import SweepProgress
from harness.execution.retime import retime
from harness.execution.session import RunSession
from harness.execution.writer import SweepSummary
from harness.planning.prepare import PlannedRun, Prepared, backend
from harness.results.record import RunRecord

RETRY_SECONDS = 0.5  # between two attempts to claim the runs of another process


def execute(
    prepared: Prepared,
    runs: Sequence[PlannedRun],
    progress: SweepProgress,
    launcher: Launcher | None = None,
    retries: int = 0,
) -> SweepSummary:
    """Execute runs, commit their records, and write the workbook, also after an error or an interrupt.

    Args:
        prepared: the sweep; its result folder exists.
        runs: the runs of this call.
        progress: shows the state of the runs.
        launcher: executes the runs; entered and ready. None for this process.
        retries: how often a run starts again after the loss of its worker.

    Returns:
        The finished and the failed runs of this call.

    Raises:
        StoreError: the result folder is not writable.
    """
    interrupt = Interrupt()
    sweep = _Sweep(prepared, progress, interrupt, launcher or InProcessLauncher(prepared.folder, progress), retries)
    try:
        with interrupt:
            prepared.folder.clear_abandoned()
            sweep.run(runs)
            # The recommendation may depend on the new times.
            retime(prepared, sweep.writer, progress)
            keep_recommended(sweep, prepared, prepared.runs)
            sweep.writer.tracking.log_rest()
    except (KeyboardInterrupt, SystemExit):
        # Lightning turns Ctrl-C into SystemExit.
        sweep.writer.summary.interrupted = True
    finally:
        with closing(sweep.writer.tracking):
            sweep.writer.write_workbook(force=True)
    return sweep.writer.summary


@dataclass
class _Group:
    """A group of runs in one job.

    Attributes:
        key: see `Job`.
        runs: the runs without a record.
        tries: how often the worker was lost.
        failed: whether a run of the group failed.
        claims: of the runs, until the group ends.
        run_ids: of all runs at the start of the job.
        began: time of the start.
    """

    key: str
    runs: list[PlannedRun]
    tries: int = 0
    failed: bool = False
    claims: ExitStack = field(default_factory=ExitStack)
    run_ids: tuple[str, ...] = ()
    began: str = ""


class _Sweep(RunSession):
    """One call of `execute`."""

    def __init__(
        self, prepared: Prepared, progress: SweepProgress, interrupt: Interrupt, launcher: Launcher, retries: int
    ) -> None:
        super().__init__(prepared, progress)
        self._interrupt = interrupt
        self._launcher, self._retries = launcher, retries
        self._differing = differing([run.spec for run in prepared.runs])
        self._active: dict[int, _Group] = {}
        self._started = 0

    def run(self, runs: Sequence[PlannedRun]) -> None:
        """Execute all groups. A group of another process waits until the other process ends or commits the runs."""
        try:
            waiting = self._spread(runs)
            while waiting or self._active:
                self._start_jobs(waiting)
                # Other processes compute meanwhile. After the last job, `execute` writes the workbook.
                self.writer.write_workbook(force=False)
                if self._active:
                    self._listen(waiting)
                elif waiting:
                    count = sum(len(group.runs) for group in waiting)
                    event = "another process to end them" if self._launcher.jobs else "a node with room for them"
                    self._progress.note(f"{count} runs are left: waiting for {event}")
                    time.sleep(RETRY_SECONDS)
        finally:
            if self._active:
                # The workers must stop before the release deletes their files and lets other processes claim the runs.
                self._launcher.stop()
            for group in self._active.values():
                self.release(group.run_ids, group.claims)

    def _spread(self, runs: Sequence[PlannedRun]) -> list[_Group]:
        """Group the runs, and split groups where workers would have no group."""
        groups = grouped(runs)
        keys = {run.run_id: key for key, members in groups.items() for run in members}
        counts: Counter[str] = Counter()
        jobs = []
        for subset in spread(list(groups.values()), self._launcher.jobs, _levels):
            key = keys[subset[0].run_id]
            # A whole group keeps its key with any number of workers, so that a later call finds its checkpoints.
            jobs.append(_Group(key if not counts[key] else f"{key}-{counts[key]}", subset))
            counts[key] += 1
        return jobs

    def _start_jobs(self, waiting: list[_Group]) -> None:
        """Start waiting groups while the launcher has room."""
        for group in list(waiting):
            if len(self._active) >= self._launcher.jobs:
                return
            self._interrupt.check()
            if not self._claim(group):
                continue
            waiting.remove(group)
            if not group.runs:
                group.claims.close()
                continue
            group.began, group.run_ids = now(), tuple(run.run_id for run in group.runs)
            self._started += 1
            self._active[self._started] = group
            self._progress.start(group.runs[0].spec.label(self._differing))
            self._launcher.start(
                self._started, Job(self._config, tuple(group.runs), group.key, self.writer.models.records)
            )

    def _claim(self, group: _Group) -> bool:
        """Claim all runs of a group, and drop the finished ones. False where another process holds a run."""
        claims = self.claim(run.run_id for run in group.runs)
        if claims is None:
            return False
        group.claims = claims
        # Another process may have finished runs since this call began.
        group.runs = [run for run in group.runs if not self._finished_elsewhere(run)]
        return True

    def _finished_elsewhere(self, run: PlannedRun) -> bool:
        try:
            record = self._folder.read_record(run.run_id)
        except StoreError:
            # Only --fresh selects a run with a damaged record. The new record replaces the damaged one.
            return False
        return record is not None and record.status == "ok" and record != self._prepared.records.get(run.run_id)

    def _listen(self, waiting: list[_Group]) -> None:
        """Handle the events of the launcher."""
        for event in self._launcher.events(RETRY_SECONDS if waiting else None):
            group = self._active[event.job]
            match event:
                case ProgressEvent(stage=stage):
                    self._progress.stage(stage, group.runs[0].spec.label(self._differing) if group.runs else None)
                case RunFinished(record=record):
                    self._committed(group, self.writer.commit(record))
                    self._interrupt.check()
                case JobFinished():
                    self._end(event.job)
                case WorkerLost(why=reason):
                    self._end(event.job)
                    self._retry(group, reason, waiting)

    def _end(self, number: int) -> None:
        group = self._active.pop(number)
        if not group.runs and not group.failed:
            self._folder.clear_unfinished(group.key)
        self.release(group.run_ids, group.claims)

    def _retry(self, group: _Group, reason: str, waiting: list[_Group]) -> None:
        """Let the runs without a record wait for another worker, or commit their failures after the last retry."""
        if not group.runs:
            return
        group.tries += 1
        if group.tries <= self._retries:
            self._progress.note(f"  warning: {reason}; {len(group.runs)} of its runs are tried again")
            waiting.insert(0, _Group(group.key, group.runs, group.tries, group.failed))
            return
        error = WorkerLostError(f"{reason}; number of attempts: {group.tries}.")
        for run in list(group.runs):
            claims = self.claim([run.run_id])
            if claims is not None:
                with claims:
                    self._committed(group, *self.give_up([run], error, group.began, 0.0))

    def _committed(self, group: _Group, record: RunRecord) -> None:
        """Remove a committed run from its group, and show its result."""
        run = next(run for run in group.runs if run.run_id == record.run_id)
        group.runs.remove(run)
        label = run.spec.label(self._differing)
        if record.status == "ok":
            self._progress.done(label, record)
        else:
            group.failed = True
            self._progress.failed(label, record)


def _levels(run: PlannedRun) -> tuple[Hashable, ...]:
    return backend(run.spec.backend).share_levels(run.spec)

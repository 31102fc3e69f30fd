"""Groups of runs -> records: finished runs are skipped, failures isolated, and a kill loses one run at most."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Hashable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from harness.common.errors import StoreError, WorkerLostError
from harness.config.spec import differing
from harness.execution.interrupt import Interrupt
from harness.execution.jobs import Job, grouped, now
from harness.execution.launchers.base import JobFinished, Launcher, ProgressEvent, RunFinished, WorkerLost
from harness.execution.launchers.in_process import InProcessLauncher
from harness.execution.launchers.spread import spread
from harness.execution.progress import SweepProgress
from harness.execution.session import RunSession
from harness.execution.writer import SweepSummary
from harness.planning.prepare import PlannedRun, Prepared, backend
from harness.results.record import RunRecord

LOOK_AGAIN = 0.5  # seconds between looks at runs that another process works on


def execute(
    prepared: Prepared,
    runs: Sequence[PlannedRun],
    progress: SweepProgress,
    launcher: Launcher | None = None,
    retries: int = 0,
) -> SweepSummary:
    """Run what is asked for, record it, and leave a valid workbook behind, whatever happens.

    Args:
        prepared: the sweep; its result folder exists.
        runs: those to be run now.
        progress: shows what goes on.
        launcher: what makes them, entered and ready; None for this process.
        retries: how often runs are tried again that were lost with what made them.
    """
    interrupt = Interrupt()
    sweep = _Sweep(prepared, progress, interrupt, launcher or InProcessLauncher(prepared.folder, progress), retries)
    try:
        with interrupt:
            prepared.folder.clear_abandoned()
            sweep.run(runs)
    except (KeyboardInterrupt, SystemExit):
        # Lightning turns Ctrl-C into SystemExit.
        sweep.writer.summary.interrupted = True
    finally:
        sweep.writer.write_workbook(force=True)
    return sweep.writer.summary


@dataclass
class _Group:
    """Runs that are made together.

    Attributes:
        key: see `Job`.
        runs: those without a record.
        tries: how often they were lost.
        failed: whether one of its runs did.
        claims: what is given back when the group ends.
        names: run ids of all that were handed out.
        began: when that was.
    """

    key: str
    runs: list[PlannedRun]
    tries: int = 0
    failed: bool = False
    claims: ExitStack = field(default_factory=ExitStack)
    names: tuple[str, ...] = ()
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
        """Run all groups; those that another process has are looked at again until they are free or done."""
        try:
            waiting = self._spread(runs)
            while waiting or self._active:
                self._hand_out(waiting)
                if self._active:
                    self._listen(waiting)
                elif waiting:
                    left = sum(len(group.runs) for group in waiting)
                    what = "another process to end them" if self._launcher.jobs else "a node with room for them"
                    self._progress.note(f"{left} runs are left: waiting for {what}")
                    time.sleep(LOOK_AGAIN)
        finally:
            if self._active:
                # Before their stages go, and others may claim their runs.
                self._launcher.stop()
            for group in self._active.values():
                self.release(group.names, group.claims)

    def _spread(self, runs: Sequence[PlannedRun]) -> list[_Group]:
        """Groups, split where workers would have none."""
        groups = grouped(runs)
        keys = {run.run_id: key for key, found in groups.items() for run in found}
        parts = spread(list(groups.values()), self._launcher.jobs, _levels)
        counts: Counter[str] = Counter()
        found = []
        for part in parts:
            key = keys[part[0].run_id]
            # Of a group that is whole the name stays, however many workers there are.
            found.append(_Group(key if not counts[key] else f"{key}-{counts[key]}", part))
            counts[key] += 1
        return found

    def _hand_out(self, waiting: list[_Group]) -> None:
        """Start what can be started."""
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
            group.began, group.names = now(), tuple(run.run_id for run in group.runs)
            self._started += 1
            self._active[self._started] = group
            self._progress.start(group.runs[0].spec.label(self._differing))
            self._launcher.start(
                self._started, Job(self._config, tuple(group.runs), group.key, self.writer.models.kept)
            )

    def _claim(self, group: _Group) -> bool:
        """Hold all runs of a group that are not done; gives False where another process has one of them."""
        claims = self.claim(run.run_id for run in group.runs)
        if claims is None:
            return False
        group.claims = claims
        # Another process may have finished some since this call began.
        group.runs = [run for run in group.runs if not self._finished_elsewhere(run)]
        return True

    def _finished_elsewhere(self, run: PlannedRun) -> bool:
        try:
            record = self._folder.read_record(run.run_id)
        except StoreError:
            # Asked for with --fresh: what can't be read is replaced.
            return False
        return record is not None and record.status == "ok" and record != self._prepared.records.get(run.run_id)

    def _listen(self, waiting: list[_Group]) -> None:
        """Take what comes, until something ended."""
        for event in self._launcher.events(LOOK_AGAIN if waiting else None):
            group = self._active[event.job]
            match event:
                case ProgressEvent(stage=stage):
                    self._progress.stage(stage, group.runs[0].spec.label(self._differing) if group.runs else None)
                case RunFinished(record=record):
                    self._committed(group, self.writer.commit(record))
                    self._interrupt.check()
                case JobFinished():
                    self._end(event.job)
                case WorkerLost(why=why):
                    self._end(event.job)
                    self._lost(group, why, waiting)

    def _end(self, number: int) -> None:
        group = self._active.pop(number)
        if not group.runs and not group.failed:
            self._folder.clear_unfinished(group.key)
        self.release(group.names, group.claims)
        self.writer.write_workbook(force=False)

    def _lost(self, group: _Group, why: str, waiting: list[_Group]) -> None:
        """Try again what has no record yet, or give it up."""
        if not group.runs:
            return
        group.tries += 1
        if group.tries <= self._retries:
            self._progress.note(f"  warning: {why}; {len(group.runs)} of its runs are tried again")
            waiting.insert(0, _Group(group.key, group.runs, group.tries, group.failed))
            return
        error = WorkerLostError(f"{why}, as often as it was tried ({group.tries}).")
        for run in list(group.runs):
            claims = self.claim([run.run_id])
            if claims is not None:
                with claims:
                    self._committed(group, *self.give_up([run], error, group.began, 0.0))

    def _committed(self, group: _Group, record: RunRecord) -> None:
        """Take a run with a record out of its group, and report it."""
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

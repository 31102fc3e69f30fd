"""The trials of a search in progress: their start and end, their runs and their lines on the terminal."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from harness.common.errors import StoreError, WorkerLostError
from harness.execution.jobs import now
from harness.execution.launchers.base import ProgressEvent, RunFinished
from harness.execution.launchers.ray_connection import RayConnection
from harness.execution.progress import SweepProgress
from harness.execution.session import RunSession
from harness.planning.prepare import PlannedRun, Prepared
from harness.results.record import RunRecord
from harness.search.history import FAILED, LOST, VALUE, History, Trial, value_of
from harness.search.points import Point, Space


@dataclass
class _Active:
    """A trial in progress.

    Attributes:
        trial: its entry in the history.
        runs: of the trial.
        claims: of the runs, until the trial ends.
        start: time at which a worker started the trial; None before.
        records: of the committed runs, by run id.
        error: the reason of a failure without a record.
    """

    trial: Trial
    runs: tuple[PlannedRun, ...]
    claims: ExitStack
    start: float | None = None
    records: dict[str, RunRecord] = field(default_factory=dict)
    error: str = ""

    @property
    def seconds(self) -> float:
        """Seconds since the start; 0 before the start."""
        return time.monotonic() - self.start if self.start is not None else 0.0


class SearchSession(RunSession):
    """The trials of one call of `tune`. This class does not depend on Ray Tune.

    Args:
        prepared: the sweep; its result folder exists.
        space: the space of the search.
        history: the trials of earlier calls.
        connection: the connection to the cluster, ready.
        progress: shows the state of the trials.
        retries: how often a trial runs again after the loss of its worker.

    Attributes:
        active: trials in progress, by number.
        failed: number of trials that failed in this call.
    """

    def __init__(
        self,
        prepared: Prepared,
        space: Space,
        history: History,
        connection: RayConnection,
        progress: SweepProgress,
        retries: int,
    ) -> None:
        super().__init__(prepared, progress)
        self._space, self._history, self._connection, self._retries = space, history, connection, retries
        self.active: dict[int, _Active] = {}
        self.failed = 0
        self._numbers: dict[str, int] = {}

    def begin(self, trial_id: str, point: Point) -> dict[str, Any] | None:
        """Start a trial for a proposed point.

        Args:
            trial_id: Ray Tune's id of the trial.
            point: in the space.

        Returns:
            The config of the trial. None for a finished point, for a damaged record, and for runs of another process.
        """
        runs = self._space.runs(point)
        run_ids = [run.run_id for run in runs]
        if any(trial.runs == run_ids for trial in self._history.trials):
            return None
        try:
            records = {run_id: self._folder.read_record(run_id) for run_id in run_ids}
        except StoreError:
            # Every report shows a damaged record, and no search replaces such a record.
            return None
        finished = {
            run_id: record for run_id, record in records.items() if record is not None and record.status == "ok"
        }
        claims = None if len(finished) == len(run_ids) else self.claim(run_ids)
        if claims is None:
            return None
        with claims:
            trial = self._history.begin(point, run_ids)
            self._numbers[trial_id] = trial.number
            self.active[trial.number] = _Active(trial, runs, claims.pop_all(), records=finished)
        return self.config(trial.number)

    def config(self, number: int) -> dict[str, Any]:
        """The config of a trial for its worker. All values are text or numbers, since Ray Tune writes the config."""
        active = self.active[number]
        return {
            "number": number,
            "point": json.dumps(dict(active.trial.point)),
            "finished": json.dumps([record.as_dict() for record in active.records.values()]),
            "rivals": json.dumps({data: record.as_dict() for data, record in self.writer.models.records.items()}),
        }

    def started(self, number: int) -> None:
        """Record and show that a worker has started a trial."""
        active = self.active.get(number)
        if active is not None and active.start is None:
            active.start, active.trial.began = time.monotonic(), now()
            self._history.save()
            self._progress.start(self._label(active.trial))

    def listen(self) -> None:
        """Handle the messages of the nodes: commit runs, and show the progress.

        Raises:
            HarnessError: a node refuses a trial, or a run can't be committed.
        """
        for kind, number, *rest in self._connection.messages():
            active = self.active.get(number)
            if kind == "refused":
                raise rest[0]
            if kind == "broken" and active is not None:
                active.error = rest[0]
            for event in self._connection.event(kind, number, *rest) if active is not None or kind == "log" else ():
                assert active is not None
                if isinstance(event, RunFinished):
                    active.records[event.record.run_id] = self.writer.commit(event.record)
                elif isinstance(event, ProgressEvent):
                    self._progress.stage(event.stage, self._label(active.trial))

    def add_evaluation(self, number: int, epoch: int, value: float) -> None:
        """Record an intermediate evaluation of a trial.

        Args:
            number: of the trial.
            epoch: number of finished epochs.
            value: of the metric.
        """
        self.active[number].trial.looks.append((epoch, value))

    def end(self, trial_id: str, result: Mapping[str, Any], stopped: bool) -> Trial | None:
        """End a trial.

        Args:
            trial_id: Ray Tune's id of the trial.
            result: the last reported values.
            stopped: whether ASHA stopped the trial.

        Returns:
            The trial; None for a trial without a result, after a lost worker or at the end of the time budget.
        """
        self.listen()
        active = self.active.get(self._numbers[trial_id])
        if active is None:
            return None
        trial = active.trial
        if result.get(VALUE) is not None:
            trial.state, trial.value = "done", float(result[VALUE])
        elif result.get(FAILED):
            trial.state, trial.why = "failed", self._reason(active)
        elif stopped and trial.looks:
            trial.state, trial.value = "stopped", trial.looks[-1][1]
        else:
            return None
        self._finish(active)
        return trial

    def retry(self, number: int) -> dict[str, Any] | None:
        """Return the config for the next attempt of a trial with a lost worker; None for an ended trial."""
        self.listen()
        active = self.active.get(number)
        if active is None:
            return None
        active.trial.looks.clear()
        self._progress.note(f"  warning: trial {number} was lost with its worker or node; it is tried again")
        return self.config(number)

    def give_up_trial(self, number: int) -> None:
        """Record the failure of a trial that lost its worker in every attempt."""
        active = self.active.get(number)
        if active is None:
            return
        error = WorkerLostError(f"lost with its worker or node; number of attempts: {self._retries + 1}.")
        pending = [run for run in active.runs if run.run_id not in active.records]
        self.give_up(pending, error, active.trial.began, active.seconds)
        active.trial.state, active.trial.why = "failed", f"{LOST}: {error}"
        self._finish(active)

    def settle(self) -> None:
        """Finish the trials whose last run was committed just before the end of the search."""
        for active in list(self.active.values()):
            records = [record for record in active.records.values() if record.status == "ok"]
            value = value_of(records, self._space.metric) if len(records) == len(active.runs) else None
            if value is not None:
                active.trial.state, active.trial.value = "done", value
                self._finish(active)

    def close(self) -> None:
        """Release the runs of unfinished trials. The next call starts with these trials."""
        for active in self.active.values():
            self.release(active.trial.runs, active.claims)

    def _finish(self, active: _Active) -> None:
        trial = active.trial
        trial.ended, trial.seconds = now(), active.seconds
        del self.active[trial.number]
        self.failed += trial.state == "failed"
        self.release(trial.runs, active.claims)
        self._history.save()
        self._show(trial)
        self.writer.write_workbook(force=False)

    def _reason(self, active: _Active) -> str:
        for record in active.records.values():
            if record.error is not None:
                return f"{record.error['type']}: {record.error['message']}".split("\n", maxsplit=1)[0]
        return active.error or f"{self._space.metric} is undefined on these images"

    def _label(self, trial: Trial) -> str:
        values = {name: "+".join(map(str, v)) if isinstance(v, list) else v for name, v in trial.point.items()}
        texts = (f"{name}={v:.3g}" if isinstance(v, float) else f"{name}={v}" for name, v in values.items())
        return f"trial {trial.number}: {' '.join(texts)}"

    def _show(self, trial: Trial) -> None:
        metric, best = self._space.metric, self._history.best
        rank = f" (best {best.value:.4f}, trial {best.number})" if best and best is not trial else " (the best)"
        if trial.state == "failed":
            self._progress.ended(self._label(trial), f"FAILED: {trial.why}", "red")
        elif trial.state == "stopped":
            text = f"stopped after epoch {trial.looks[-1][0]}, {metric} {trial.value:.4f} by then"
            self._progress.ended(self._label(trial), text, "yellow")
        else:
            text = f"{metric} {trial.value:.4f}{rank}, {trial.seconds:.1f} s"
            self._progress.ended(self._label(trial), text, "green")

"""What goes on in a search: trials begun and ended, runs put in place, what is remembered and said."""

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
    """A trial that is being made.

    Attributes:
        trial: what is remembered of it.
        runs: that it means.
        claims: what is given back when it ends.
        start: when it got its worker, None before.
        made: run ids that have been put in place.
        why: it failed without a record of it.
    """

    trial: Trial
    runs: tuple[PlannedRun, ...]
    claims: ExitStack
    start: float | None = None
    made: dict[str, RunRecord] = field(default_factory=dict)
    why: str = ""


class SearchSession(RunSession):
    """One call of `tune`, without the parts of Ray Tune.

    Args:
        prepared: the sweep; its result folder exists.
        space: the space of the search.
        history: the trials of earlier calls.
        connection: the connection to the cluster, ready.
        progress: shows the state of the trials.
        retries: how often a trial runs again after its worker was lost.

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
        """A proposal becomes a trial, unless it is known; gives what to hand to it.

        Args:
            trial_id: Ray Tune's name of it.
            point: in the space.
        """
        runs = self._space.runs(point)
        names = [run.run_id for run in runs]
        if any(trial.runs == names for trial in self._history.trials):
            return None
        try:
            there = {name: self._folder.read_record(name) for name in names}
        except StoreError:
            # Left alone, as in a sweep; every report says so.
            return None
        done = {name: record for name, record in there.items() if record is not None and record.status == "ok"}
        if len(done) == len(names):
            return None
        claims = self.claim(names)
        if claims is None:
            # A sweep works on the runs at present.
            return None
        with claims:
            trial = self._history.begin(point, names)
            self._numbers[trial_id] = trial.number
            self.active[trial.number] = _Active(trial, runs, claims.pop_all(), made=done)
        return self.handed(trial.number)

    def handed(self, number: int) -> dict[str, Any]:
        """What a trial is told: texts and numbers, since Ray Tune writes them down."""
        active = self.active[number]
        return {
            "number": number,
            "point": json.dumps(dict(active.trial.point)),
            "made": json.dumps([record.as_dict() for record in active.made.values()]),
            "rivals": json.dumps({data: record.as_dict() for data, record in self.writer.models.kept.items()}),
        }

    def started(self, number: int) -> None:
        """A trial got its worker."""
        active = self.active.get(number)
        if active is not None and active.start is None:
            active.start, active.trial.began = time.monotonic(), now()
            self._history.save()
            self._progress.start(self._label(active.trial))

    def listen(self) -> None:
        """Put in place what has come, and say what goes on.

        Raises:
            HarnessError: a node refuses its work, or a run can't be put in place.
        """
        for what, number, *rest in self._connection.messages():
            active = self.active.get(number)
            if what == "refused":
                raise rest[0]
            if what == "broken" and active is not None:
                active.why = rest[0]
            for event in self._connection.event(what, number, *rest) if active is not None or what == "log" else ():
                assert active is not None
                if isinstance(event, RunFinished):
                    active.made[event.record.run_id] = self.writer.commit(event.record)
                elif isinstance(event, ProgressEvent):
                    self._progress.stage(event.stage, self._label(active.trial))

    def reached(self, number: int, epoch: int, value: float) -> None:
        """What the training of a trial had reached."""
        self.active[number].trial.looks.append((epoch, value))

    def end(self, trial_id: str, result: Mapping[str, Any], hopeless: bool) -> Trial | None:
        """A trial is over.

        Args:
            trial_id: Ray Tune's name of it.
            result: what it said last.
            hopeless: whether it was stopped early.

        Returns:
            The trial; None where nothing came of it: the time is over, or it was lost.
        """
        self.listen()
        active = self.active.get(self._numbers[trial_id])
        if active is None:
            return None
        trial = active.trial
        if result.get(VALUE) is not None:
            trial.state, trial.value = "done", float(result[VALUE])
        elif result.get(FAILED):
            trial.state, trial.why = "failed", self._why(active)
        elif hopeless and trial.looks:
            trial.state, trial.value = "stopped", trial.looks[-1][1]
        else:
            return None
        self._over(active)
        return trial

    def again(self, number: int) -> dict[str, Any] | None:
        """A trial was lost and is made again; gives what to hand to it now."""
        self.listen()
        active = self.active.get(number)
        if active is None:
            return None
        active.trial.looks.clear()
        self._progress.note(f"  warning: trial {number} was lost with its worker or node; it is tried again")
        return self.handed(number)

    def lost(self, number: int) -> None:
        """A trial was lost as often as it may be."""
        active = self.active.get(number)
        if active is None:
            return
        error = WorkerLostError(f"lost with its worker or node, as often as it was tried ({self._retries + 1}).")
        took = time.monotonic() - (active.start or time.monotonic())
        left = [run for run in active.runs if run.run_id not in active.made]
        self.give_up(left, error, active.trial.began, took)
        active.trial.state, active.trial.why = "failed", f"{LOST}: {error}"
        self._over(active)

    def settle(self) -> None:
        """Trials whose last run has come just before the end are done."""
        for active in list(self.active.values()):
            made = [record for record in active.made.values() if record.status == "ok"]
            value = value_of(made, self._space.metric) if len(made) == len(active.runs) else None
            if value is not None:
                active.trial.state, active.trial.value = "done", value
                self._over(active)

    def close(self) -> None:
        """What is under way is given up: the next call begins with it."""
        for active in self.active.values():
            self.release(active.trial.runs, active.claims)

    def _over(self, active: _Active) -> None:
        trial = active.trial
        trial.ended, trial.seconds = now(), time.monotonic() - (active.start or time.monotonic())
        del self.active[trial.number]
        self.failed += trial.state == "failed"
        self.release(trial.runs, active.claims)
        self._history.save()
        self._say(trial)
        self.writer.write_workbook(force=False)

    def _why(self, active: _Active) -> str:
        for record in active.made.values():
            if record.error is not None:
                return f"{record.error['type']}: {record.error['message']}".split("\n", maxsplit=1)[0]
        return active.why or f"{self._space.metric} is undefined on these images"

    def _label(self, trial: Trial) -> str:
        shown = {name: "+".join(map(str, v)) if isinstance(v, list) else v for name, v in trial.point.items()}
        said = (f"{name}={v:.3g}" if isinstance(v, float) else f"{name}={v}" for name, v in shown.items())
        return f"trial {trial.number}: {' '.join(said)}"

    def _say(self, trial: Trial) -> None:
        metric, best = self._space.metric, self._history.best
        beside = f" (best {best.value:.4f}, trial {best.number})" if best and best is not trial else " (the best)"
        if trial.state == "failed":
            self._progress.ended(self._label(trial), f"FAILED: {trial.why}", "red")
        elif trial.state == "stopped":
            text = f"stopped after epoch {trial.looks[-1][0]}, {metric} {trial.value:.4f} by then"
            self._progress.ended(self._label(trial), text, "yellow")
        else:
            text = f"{metric} {trial.value:.4f}{beside}, {trial.seconds:.1f} s"
            self._progress.ended(self._label(trial), text, "green")

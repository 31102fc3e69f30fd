"""Groups of runs -> records: finished runs are skipped, failures isolated, and a kill loses one run at most."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.backends.base import Failure, Outcome, RunContext
from harness.errors import StoreError
from harness.interrupt import Interrupt
from harness.prepare import PlannedRun, Prepared, backend, task
from harness.progress import SweepProgress
from harness.provenance import provenance
from harness.record import RunRecord
from harness.report.excel import write_workbook
from harness.spec import differing
from harness.store import ResultFolder, saved_model

# How often the workbook is rewritten while runs are going on; it is always written at the end.
WORKBOOK_EVERY = 5.0  # seconds
LOOK_AGAIN = 0.5  # seconds between looks at runs that another process works on


@dataclass
class Tally:
    """What this call did.

    Attributes:
        done: runs finished by this call.
        failed: runs that failed in this call.
        interrupted: whether it was stopped by Ctrl-C or a signal.
    """

    done: list[RunRecord] = field(default_factory=list)
    failed: list[RunRecord] = field(default_factory=list)
    interrupted: bool = False


def execute(prepared: Prepared, runs: Sequence[PlannedRun], progress: SweepProgress) -> Tally:
    """Run what is asked for, record it, and leave a valid workbook behind, whatever happens.

    Args:
        prepared: the sweep; its result folder exists.
        runs: those to be run now.
        progress: shows what goes on.
    """
    interrupt = Interrupt()
    sweep = _Sweep(prepared, progress, interrupt)
    try:
        with interrupt:
            prepared.folder.clear_abandoned()
            sweep.run(runs)
    except (KeyboardInterrupt, SystemExit):
        # Lightning turns Ctrl-C into SystemExit.
        sweep.tally.interrupted = True
    finally:
        sweep.write_workbook(force=True)
    return sweep.tally


class _Sweep:
    """One call of `execute`."""

    def __init__(self, prepared: Prepared, progress: SweepProgress, interrupt: Interrupt) -> None:
        self._interrupt = interrupt
        self.tally = Tally()
        self._prepared = prepared
        self._config = prepared.config
        self._folder = prepared.folder
        self._progress = progress
        self._models = _BestModels(prepared.folder, prepared.records.values())
        self._next_write = 0.0
        self._task = task(self._config.task)
        self._differing = differing([run.spec for run in prepared.runs])

    def run(self, runs: Sequence[PlannedRun]) -> None:
        """Run all groups; those that another process has are looked at again until they are free or done."""
        waiting = _groups(runs)
        while waiting:
            busy = [group for group in waiting if not self._try(group)]
            if len(busy) == len(waiting):
                self._progress.note(f"waiting for {sum(map(len, busy))} runs of another process")
                time.sleep(LOOK_AGAIN)
            waiting = busy

    def _try(self, group: Sequence[PlannedRun]) -> bool:
        """Run a group unless another process has one of its runs; gives False then."""
        self._interrupt.check()
        with ExitStack() as claims:
            claimed = [claims.enter_context(self._folder.claim(run.run_id)) for run in group]
            if not all(claimed):
                return False
            # Another process may have finished some since this call began.
            fresh = [run for run in group if not self._finished_elsewhere(run)]
            if fresh:
                self._run_group(fresh)
            self.write_workbook(force=False)
        return True

    def _finished_elsewhere(self, run: PlannedRun) -> bool:
        record = self._folder.read_record(run.run_id)
        return record is not None and record.status == "ok" and record != self._prepared.records.get(run.run_id)

    def _run_group(self, group: Sequence[PlannedRun]) -> None:
        unanswered = {run.spec: run for run in group}
        context = RunContext(
            scratch=self._folder.scratch(group[0].run_id),
            device=self._config.device,
            num_workers=self._config.data.num_workers,
            stage=self._progress.stage,
            cache=Path(self._config.cache) if self._config.cache is not None else None,
            cache_limit=self._config.cache_limit,
            memory_limit=self._config.memory_limit,
            latency=self._config.latency,
            unfinished=self._folder.unfinished(group[0].run_id),
        )
        self._progress.start(group[0].spec.label(self._differing))
        clock = _Clock()
        try:
            for answer in backend(group[0].spec.backend).run([r.spec for r in group], group[0].split, context):
                self._record(unanswered.pop(answer.spec), answer, clock)
                self._interrupt.check()
                clock = _Clock()
        except StoreError:
            # The result folder itself can't be written: nothing could be recorded.
            raise
        # The one place that isolates a failing run: whatever a model, Lightning or Torch raises becomes a record.
        except Exception as error:  # noqa: BLE001
            for run in unanswered.values():
                self._fail(run, error, clock)
        finally:
            self._folder.clear_work(run.run_id for run in group)

    def _record(self, run: PlannedRun, answer: Outcome | Failure, clock: _Clock) -> None:
        """What raises while a run is measured or written is that run's failure, and not its group's."""
        try:
            if isinstance(answer, Failure):
                self._fail(run, answer.error, clock)
            else:
                self._succeed(run, answer, clock)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001
            self._fail(run, error, clock)

    def _succeed(self, run: PlannedRun, outcome: Outcome, clock: _Clock) -> None:
        """Measure, write what a person looks at, and put the run in place in one step."""
        stage = self._folder.stage(run.run_id)
        measured = dict(self._task.measure(run.spec, run.split, outcome, stage))
        metrics, warnings = measured.pop("metrics"), measured.pop("warnings", [])
        record = RunRecord(
            run_id=run.run_id,
            status="ok",
            spec=run.spec.as_dict(),
            axes=list(run.spec.axes),
            weights=outcome.weights,
            metrics={**metrics, **outcome.own_metrics},
            cost=outcome.cost,
            seconds={**outcome.seconds, "total": clock.seconds()},
            device=outcome.device,
            warnings=[*outcome.warnings, *warnings],
            provenance=clock.provenance(),
            task=self._task.name,
            **measured,
        )
        keep = self._config.save_models == "all" or (
            self._config.save_models == "best" and self._models.is_best(record)
        )
        if keep:
            outcome.save_model(stage)
            record = replace(record, model=saved_model(stage))
        self._folder.commit(record)
        self._folder.clear_unfinished(run.run_id)
        if keep and self._config.save_models == "best":
            # Only now that the better one is in place: a kill in between leaves one model too many, never none.
            self._models.replace(record)
        self.tally.done.append(record)
        self._progress.done(run.spec.label(self._differing), record)

    def _fail(self, run: PlannedRun, error: Exception, clock: _Clock) -> None:
        self._folder.stage(run.run_id)
        text = "".join(traceback.format_exception(error))
        record = RunRecord(
            run_id=run.run_id,
            status="failed",
            spec=run.spec.as_dict(),
            axes=list(run.spec.axes),
            data=self._task.describe(run.split),
            seconds={"total": clock.seconds()},
            provenance=clock.provenance(),
            task=self._task.name,
            error={"type": type(error).__name__, "message": str(error), "traceback": text},
        )
        self._folder.commit(record)
        self.tally.failed.append(record)
        self._progress.failed(run.spec.label(self._differing), record)

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


class _BestModels:
    """Which run's model is kept on which data, with `save_models: best`."""

    def __init__(self, folder: ResultFolder, records: Iterable[RunRecord]) -> None:
        self._folder = folder
        self._best: dict[str, RunRecord] = {}
        for record in records:
            if record.status == "ok" and folder.model_file(record.run_id) and self.is_best(record):
                self._best[record.data["fingerprint"]] = record

    def is_best(self, record: RunRecord) -> bool:
        """Whether no run with a kept model on the same data is better."""
        rival = self._best.get(record.data["fingerprint"])
        return rival is None or rival.run_id == record.run_id or record.rank() > rival.rank()

    def replace(self, record: RunRecord) -> None:
        """Keep this run's model, drop the one before."""
        before = self._best.get(record.data["fingerprint"])
        self._best[record.data["fingerprint"]] = record
        if before is not None and before.run_id != record.run_id:
            file = self._folder.model_file(before.run_id)
            if file:
                file.unlink(missing_ok=True)


class _Clock:
    """When a run began, and how long it has been going on."""

    def __init__(self) -> None:
        self._began = _now()
        self._start = time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self._start

    def provenance(self) -> dict[str, Any]:
        return {**provenance(), "began": self._began, "ended": _now()}


def _groups(runs: Sequence[PlannedRun]) -> list[list[PlannedRun]]:
    """Runs that their backend wants together, in the order in which each group's first run was planned."""
    groups: dict[Any, list[PlannedRun]] = {}
    for run in runs:
        key = (run.spec.backend, run.split.fingerprint, backend(run.spec.backend).share_key(run.spec))
        groups.setdefault(key, []).append(run)
    return list(groups.values())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")

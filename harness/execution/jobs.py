"""A group of runs made: trained, measured, its files gathered in a stage. Whoever asked puts them in place."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from harness.backends.base import EpochPredictions, Failure, Outcome, RunContext
from harness.common.errors import StoreError
from harness.config.spec import RunSpec
from harness.config.sweep import SweepConfig
from harness.planning.prepare import PlannedRun, backend, task
from harness.results.best_models import is_best
from harness.results.provenance import provenance
from harness.results.record import RunRecord
from harness.results.store import ResultFolder, saved_model


@dataclass(frozen=True)
class Job:
    """A group of runs that are made together, and all it takes to make them, here or elsewhere.

    Attributes:
        config: the sweep's.
        runs: the group.
        key: names what they share; the same whenever the same runs are grouped.
        rivals: with `save_models: best`, by data the best run whose model is kept so far.
    """

    config: SweepConfig
    runs: tuple[PlannedRun, ...]
    key: str
    rivals: Mapping[str, RunRecord] = field(default_factory=dict)


def grouped(runs: Sequence[PlannedRun]) -> dict[str, list[PlannedRun]]:
    """Runs that their backend wants together, in the order in which each group's first run was planned, by key."""
    groups: dict[str, list[PlannedRun]] = {}
    for run in runs:
        shared = (run.spec.backend, run.split.fingerprint, backend(run.spec.backend).share_key(run.spec))
        groups.setdefault(sha256(repr(shared).encode()).hexdigest()[:12], []).append(run)
    return groups


@dataclass(frozen=True)
class Rungs:
    """Epochs after which a training is looked at, before it is known what will become of it.

    Attributes:
        epochs: which.
        tell: called with the epoch and the metrics so far; it need not return.
    """

    epochs: Collection[int]
    tell: Callable[[int, Mapping[str, float | None]], None]


def make(
    job: Job, folder: ResultFolder, stage: Callable[[str], None], rungs: Rungs | None = None
) -> Iterator[RunRecord]:
    """One record a run, as soon as it is known; its other files lie in `folder.stage(run_id)`.

    What lies in stages and in scratch is left to whoever asked, to be put in place or removed.

    Args:
        job: what to make.
        folder: where stages are.
        stage: told what goes on.
        rungs: when the first training of the job is looked at; None for never.

    Raises:
        StoreError: the folder can't be written to, so that nothing could be recorded.
    """
    maker = _Maker(job, folder)
    unanswered = {run.spec: run for run in job.runs}
    first = job.runs[0]
    context = RunContext(
        scratch=folder.scratch(first.run_id),
        device=job.config.device,
        num_workers=job.config.data.num_workers,
        stage=stage,
        cache=Path(job.config.cache) if job.config.cache is not None else None,
        cache_limit=job.config.cache_limit,
        memory_limit=job.config.memory_limit,
        latency=job.config.latency,
        unfinished=folder.unfinished(job.key),
        watch=None if rungs is None else _Observer(job, rungs),
    )
    clock = _Clock()
    try:
        for answer in backend(first.spec.backend).run([run.spec for run in job.runs], first.split, context):
            yield maker.record(unanswered.pop(answer.spec), answer, clock)
            clock = _Clock()
    except StoreError:
        raise
    # The one place that isolates a failing run: whatever a model, Lightning or Torch raises becomes a record.
    except Exception as error:  # noqa: BLE001
        for run in unanswered.values():
            yield failure(job.config, run, error, folder, clock.facts())


def failure(
    config: SweepConfig, run: PlannedRun, error: Exception, folder: ResultFolder, facts: tuple[float, dict[str, Any]]
) -> RunRecord:
    """The record of a run that failed; its stage is empty.

    Args:
        config: the sweep's.
        run: which.
        error: why.
        folder: where stages are.
        facts: seconds that it took, and its provenance.
    """
    folder.stage(run.run_id)
    kind = task(config.task)
    return RunRecord(
        run_id=run.run_id,
        status="failed",
        spec=run.spec.as_dict(),
        axes=list(run.spec.axes),
        data=kind.data_summary(run.split),
        seconds={"total": facts[0]},
        provenance=facts[1],
        task=kind.name,
        error={
            "type": type(error).__name__,
            "message": str(error),
            "traceback": "".join(traceback.format_exception(error)),
        },
    )


class _Maker:
    """Outcomes -> records."""

    def __init__(self, job: Job, folder: ResultFolder) -> None:
        self._config, self._folder = job.config, folder
        self._task = task(job.config.task)
        self._rivals = dict(job.rivals)

    def record(self, run: PlannedRun, answer: Outcome | Failure, clock: _Clock) -> RunRecord:
        """What raises while a run is measured or written is that run's failure, and not its group's."""
        try:
            if isinstance(answer, Failure):
                raise answer.error
            return self._success(run, answer, clock)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001
            return failure(self._config, run, error, self._folder, clock.facts())

    def _success(self, run: PlannedRun, outcome: Outcome, clock: _Clock) -> RunRecord:
        """Measure, and write what a person looks at."""
        stage = self._folder.stage(run.run_id)
        measured = dict(self._task.measure(run.spec, run.split, outcome, stage))
        metrics, warnings = measured.pop("metrics"), measured.pop("warnings", [])
        seconds, origin = clock.facts()
        record = RunRecord(
            run_id=run.run_id,
            status="ok",
            spec=run.spec.as_dict(),
            axes=list(run.spec.axes),
            weights=outcome.weights,
            metrics={**metrics, **outcome.own_metrics},
            cost=outcome.cost,
            seconds={**outcome.seconds, "total": seconds},
            device=outcome.device,
            warnings=[*outcome.warnings, *warnings],
            provenance=origin,
            task=self._task.name,
            **measured,
        )
        best = self._config.save_models == "best" and is_best(record, self._rivals)
        if best or self._config.save_models == "all":
            outcome.save_model(stage)
            record = replace(record, model=saved_model(stage))
        if best:
            self._rivals[record.data["fingerprint"]] = record
        return record


class _Observer:
    """See `harness.backends.base.EpochObserver`: only the job's first run is looked at."""

    def __init__(self, job: Job, rungs: Rungs) -> None:
        self._task, self._run, self._rungs = task(job.config.task), job.runs[0], rungs

    def wants(self, spec: RunSpec, epoch: int) -> bool:
        return spec == self._run.spec and epoch in self._rungs.epochs

    def on_epoch(self, spec: RunSpec, epoch: int, epoch_predictions: EpochPredictions) -> None:
        self._rungs.tell(epoch, self._task.epoch_metrics(spec, epoch_predictions))


class _Clock:
    """When a run began, and how long it has been going on."""

    def __init__(self) -> None:
        self._began = now()
        self._start = time.perf_counter()

    def facts(self) -> tuple[float, dict[str, Any]]:
        """Seconds, and where and when."""
        return time.perf_counter() - self._start, {**provenance(), "began": self._began, "ended": now()}


def now() -> str:
    """UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")

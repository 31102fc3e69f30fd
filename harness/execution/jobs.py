"""Execution of a group of runs: training, evaluation, and the files of each run in its stage before the commit."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

from harness.backends.base import AnySplit, EpochPredictions, Failure, Outcome, RunContext
from harness.backends.latency import Timing, measure
from harness.common.errors import StoreError
from harness.common.threads import same_number
from harness.config.spec import RunSpec
from harness.config.sweep import SweepConfig
from harness.data.samples import Split
from harness.planning.prepare import PlannedRun, backend, task
from harness.results.best_models import data_of, is_best
from harness.results.provenance import provenance
from harness.results.record import RunRecord
from harness.results.run_folder import saved_model
from harness.results.store import ResultFolder


@dataclass(frozen=True)
class Job:
    """A group of runs with everything that this process, or another one, needs to execute the group.

    Attributes:
        config: of the sweep.
        runs: the group.
        key: identity of the shared work; equal groups of runs have equal keys in every call.
        rivals: with `save_models: best`, records of the runs with a saved model, by `best_models.data_of`.
    """

    config: SweepConfig
    runs: tuple[PlannedRun, ...]
    key: str
    rivals: Mapping[str, RunRecord] = field(default_factory=dict)


def grouped(runs: Sequence[PlannedRun]) -> dict[str, list[PlannedRun]]:
    """Groups of the runs that share work, by key. The first run of each group gives the order of the groups."""
    groups: dict[str, list[PlannedRun]] = {}
    for run in runs:
        identity = (run.spec.backend, run.split.fingerprint, backend(run.spec.backend).share_key(run.spec))
        groups.setdefault(sha256(repr(identity).encode()).hexdigest()[:12], []).append(run)
    return groups


@dataclass(frozen=True)
class Rungs:
    """Intermediate evaluations of a training.

    Attributes:
        epochs: epochs after which the training is evaluated.
        on_epoch_metrics: called with the epoch and its metrics; may end the training with SystemExit.
    """

    epochs: Collection[int]
    on_epoch_metrics: Callable[[int, Mapping[str, float | None]], None]


def execute_job(
    job: Job, folder: ResultFolder, stage: Callable[[str], None], rungs: Rungs | None = None
) -> Iterator[RunRecord]:
    """Execute a job, and yield the record of each run as soon as the run ends.

    The other files of a run are in `folder.staged(run_id)`. The caller commits or deletes the staged files, and deletes
    the temporary files.

    Args:
        job: the group of runs.
        folder: the result folder, or the folder of a node.
        stage: callback that takes the name of the current step.
        rungs: intermediate evaluations of the job's first training; None for no evaluation.

    Raises:
        StoreError: the folder is not writable, so no record can be written.
    """
    recorder = _Recorder(job, folder, stage)
    pending = {run.spec: run for run in job.runs}
    first = job.runs[0]
    context = RunContext(
        scratch=folder.scratch(first.run_id),
        device=job.config.device,
        num_workers=job.config.data.num_workers,
        stage=stage,
        cache=Path(job.config.cache) if job.config.cache is not None else None,
        cache_limit=job.config.cache_limit,
        memory_limit=job.config.memory_limit,
        unfinished=folder.unfinished(job.key),
        watch=None if rungs is None else _Observer(job, rungs),
    )
    clock = _Clock()
    engine = backend(first.spec.backend)
    try:
        # Only imported libraries can get the number of threads.
        import_module(engine.heavy)
        with same_number():
            for result in engine.run([run.spec for run in job.runs], first.split, context):
                yield recorder.record(pending.pop(result.spec), result, clock)
                clock = _Clock()
    except StoreError:
        raise
    # Any exception of a model, Lightning or Torch becomes the record of a failure, so that the sweep goes on.
    except Exception as error:  # noqa: BLE001
        for run in pending.values():
            yield failure(job.config, run, error, folder, *clock.read())


def at_intervals(interval: float, send: Callable[[str], None]) -> Callable[[str], None]:
    """A function that sends a text, and drops each text that comes too early after the last one.

    Args:
        interval: least time between two sent texts, in seconds.
        send: sends a text.
    """
    last = 0.0

    def send_at_intervals(text: str) -> None:
        nonlocal last
        if time.monotonic() - last > interval:
            last = time.monotonic()
            send(text)

    return send_at_intervals


def failure(
    config: SweepConfig, run: PlannedRun, error: Exception, folder: ResultFolder, seconds: float, origin: dict[str, Any]
) -> RunRecord:
    """Empty the stage of a failed run, and return the record of the failure.

    Args:
        config: of the sweep.
        run: the failed run.
        error: the reason.
        folder: the folder with the stage.
        seconds: duration of the run.
        origin: provenance of the run.
    """
    folder.stage(run.run_id)
    config_task = task(config.task)
    return run.record(
        "failed",
        data=config_task.data_summary(run.own_split),
        seconds={"total": seconds},
        provenance=origin,
        task=config_task.name,
        error={
            "type": type(error).__name__,
            "message": str(error),
            "traceback": "".join(traceback.format_exception(error)),
        },
    )


class _Recorder:
    """Results of the backend -> records and staged files."""

    def __init__(self, job: Job, folder: ResultFolder, on_stage: Callable[[str], None]) -> None:
        self._config, self._folder, self._on_stage = job.config, folder, on_stage
        self._timings: dict[Hashable, Timing] = {}
        self._task = task(job.config.task)
        self._rivals = dict(job.rivals)

    def record(self, run: PlannedRun, result: Outcome | Failure, clock: _Clock) -> RunRecord:
        """The record of a run. An error of its evaluation or its files is a failure of this run only.

        Args:
            run: the planned run.
            result: of the backend.
            clock: started with the run.

        Raises:
            StoreError: the folder is not writable.
        """
        try:
            if isinstance(result, Failure):
                raise result.error
            return self._success(run, result, clock)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001
            return failure(self._config, run, error, self._folder, *clock.read())

    def _success(self, run: PlannedRun, outcome: Outcome, clock: _Clock) -> RunRecord:
        """Evaluate a run, and write its files for the user."""
        stage = self._folder.stage(run.run_id)
        fields = dict(self._task.measure(run.spec, run.own_split, outcome, stage))
        metrics, warnings = fields.pop("metrics"), fields.pop("warnings", [])
        cost, remarks = self._latency(run, outcome, fields.get("thresholds", {}))
        seconds, origin = clock.read()
        record = run.record(
            "ok",
            weights=outcome.weights,
            metrics={**metrics, **outcome.own_metrics},
            cost={**outcome.cost, **cost},
            seconds={**outcome.seconds, "total": seconds},
            device=outcome.device,
            warnings=[*outcome.warnings, *remarks, *warnings],
            provenance=origin,
            task=self._task.name,
            **fields,
        )
        best = self._config.save_models == "best" and is_best(record, self._rivals)
        if best or self._config.save_models == "all":
            outcome.save_model(stage)
            record = replace(record, model=saved_model(stage))
        if best:
            self._rivals[data_of(record)] = record
        return record

    def _latency(
        self, run: PlannedRun, outcome: Outcome, thresholds: Mapping[str, Any]
    ) -> tuple[dict[str, float | None], list[str]]:
        """The times of single images for `RunRecord.cost`, and warnings about them."""
        if not self._config.latency or outcome.scorer is None:
            return {}, []
        if outcome.timing_key is not None and (shared := self._timings.get(outcome.timing_key)) is not None:
            return shared.cost(), shared.warnings()
        self._on_stage("timing single images")
        try:
            with outcome.scorer() as scorer:
                timing = measure(self._task.decision(scorer, thresholds), timed_images(run.own_split))
        # Some models may not support the timing; the run itself is complete.
        except Exception as error:  # noqa: BLE001
            return {}, [f"latency: could not be measured ({type(error).__name__}: {error})"]
        if outcome.timing_key is not None:
            self._timings[outcome.timing_key] = timing
        return timing.cost(), timing.warnings()


def timed_images(split: AnySplit) -> list[str]:
    """Files of the images whose time is measured: the test images, or those of the training without test images."""
    test = split.real_test if isinstance(split, Split) else split.test
    return [sample.path for sample in (test or split.train)]


class _Observer:
    """Evaluates the first run of a job after the epochs of the rungs; see `harness.backends.base.EpochObserver`."""

    def __init__(self, job: Job, rungs: Rungs) -> None:
        self._task, self._run, self._rungs = task(job.config.task), job.runs[0], rungs

    def wants(self, spec: RunSpec, epoch: int) -> bool:
        """Whether to evaluate a training.

        Args:
            spec: of the run in training.
            epoch: number of finished epochs.
        """
        return spec == self._run.spec and epoch in self._rungs.epochs

    def on_epoch(self, spec: RunSpec, epoch: int, epoch_predictions: EpochPredictions) -> None:
        """Evaluate a training.

        Args:
            spec: of the run in training.
            epoch: number of finished epochs.
            epoch_predictions: of the network after this epoch.
        """
        self._rungs.on_epoch_metrics(epoch, self._task.epoch_metrics(spec, epoch_predictions))


class _Clock:
    """The start and the duration of a run."""

    def __init__(self) -> None:
        self._began = now()
        self._start = time.perf_counter()

    def read(self) -> tuple[float, dict[str, Any]]:
        """The duration in seconds, and the provenance with the times of start and end."""
        return time.perf_counter() - self._start, {**provenance(), "began": self._began, "ended": now()}


def now() -> str:
    """The current time in UTC with milliseconds, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")

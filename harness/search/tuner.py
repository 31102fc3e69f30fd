"""A search with Ray Tune: the sampler proposes trials, ASHA stops trials early, and the session records all trials.

Ray Tune would hide an exception in one of these objects, or leave its workers behind. So Ctrl-C, the time budget and an
error all end the search through a stopper of Ray Tune. The search raises the error after that.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from shutil import rmtree
from typing import Any, TypeVar

import optuna
import ray
from ray import tune
from ray.tune import Callback, Stopper
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from harness.execution.interrupt import Interrupt
from harness.execution.keep import keep_recommended
from harness.execution.launchers.ray_connection import RayConnection
from harness.execution.progress import SweepProgress
from harness.execution.retime import retime
from harness.execution.writer import SweepSummary
from harness.planning.prepare import Prepared
from harness.search.asha import ASHA
from harness.search.history import EPOCH, REACHED, History, Trial, evaluated_points
from harness.search.points import Point, Space
from harness.search.sampler import NoCheckpoint, Sampler, importance
from harness.search.session import SearchSession
from harness.search.trial import node_cache, node_folder, run_trial

# The harness replaces these parts of Ray Tune: its handler of Ctrl-C, its loggers, its reporter and its folder names.
SETTINGS = {"TUNE_DISABLE_SIGINT_HANDLER": "1", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0",
            "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0", "RAY_CHDIR_TO_TRIAL_DIR": "0",
            "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1"}  # fmt: skip
CLEAR_ATTEMPTS = 20
T = TypeVar("T")
# Ray Tune's folder in the result folder's .work, and the lock of a search, so that no sweep deletes the folder.
NAME = "search"


class Tuning:
    """One call of `tune`.

    Args:
        prepared: the sweep; its result folder exists.
        space: the space of the search.
        history: the trials of earlier calls.
        connection: the connection to the cluster, ready.
        progress: shows the state of the trials.
        retries: how often a trial runs again after the loss of its worker.
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
        os.environ.update(SETTINGS)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._prepared, self._space, self._history = prepared, space, history
        self._connection, self._progress, self._retries = connection, progress, retries
        self._folder, self._search = prepared.folder, space.search
        self._session = SearchSession(prepared, space, history, connection, progress, retries)
        self._interrupt = Interrupt(raises=False)
        self._deadline = time.monotonic() + (self._search.time_budget or float("inf"))
        self._error: BaseException | None = None
        self._asha = ASHA(self._search, history.finished)
        self._sampler = new_sampler(prepared, space, history, self._begin, self._end, connection.limit)

    def run(self) -> tuple[SweepSummary, int]:
        """Run trials until the search has enough, and write the workbook, also after an error or an interrupt.

        Returns:
            The results of this call, and the number of failed trials.

        Raises:
            HarnessError: a node refused a trial, or a run can't be committed.
        """
        summary = self._session.writer.summary
        try:
            with self._interrupt:
                self._folder.clear_abandoned()
                self._fit()
                if not self._interrupt.requested:
                    self._keep_model()
                    self._session.writer.tracking.log_rest()
        except (KeyboardInterrupt, SystemExit):
            summary.interrupted = True
        finally:
            with closing(self._session.writer.tracking):
                self._session.close()
                self._history.save()
                save_importance(self._history, self._sampler)
                self._session.writer.write_workbook(force=True)
        summary.interrupted = summary.interrupted or self._interrupt.requested
        return summary, self._session.failed

    def _keep_model(self) -> None:
        points = [trial.point for trial in self._history.finished]
        runs = {run.run_id: run for point in points for run in self._space.runs(point)}
        prepared = replace(self._prepared, runs=(*self._prepared.runs, *runs.values()))
        # The recommendation may depend on the new times.
        retime(prepared, self._session.writer, self._progress)
        keep_recommended(self._session, prepared, prepared.runs)

    def _fit(self) -> None:
        # Ray Tune warns of the missing files of its loggers, which are switched off.
        logging.getLogger("ray.tune").setLevel(logging.ERROR)
        try:
            self._tuner().fit()
        finally:
            self._guard(self._session.listen)
            self._guard(self._session.settle)
            rmtree(self._folder.root / ".work" / NAME, ignore_errors=True)
            self._clear_nodes()
        if self._error is not None:
            raise self._error
        if self._sampler.exhausted:
            self._progress.note("The space is exhausted: every point has a trial.")
        elif time.monotonic() > self._deadline:
            count = sum(active.start is not None for active in self._session.active.values())
            dropped = f"; {count} unfinished trial{'' if count == 1 else 's'} dropped" if count else ""
            self._progress.note(f"The time budget is used up{dropped}.")

    def _tuner(self) -> tune.Tuner:
        splits, needs = self._prepared.splits, self._connection.needs
        trainable = tune.with_parameters(
            run_trial,
            sweep=self._space.config,
            splits=dict(splits),
            queue=self._connection.queue,
            home=self._connection.home,
            directory=self._connection.directory,
            contents={split.fingerprint: self._connection.contents(split) for split in splits.values()},
        )
        resources = {"cpu": needs.cpus, "gpu": needs.gpus or 0} | ({"memory": needs.memory} if needs.memory else {})
        return tune.Tuner(
            tune.with_resources(trainable, resources),
            tune_config=tune.TuneConfig(
                search_alg=self._sampler,
                scheduler=self._asha,
                num_samples=self._search.num_samples - len(self._history.finished),
                # Imports take long, so the next trial uses the same process.
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=NAME,
                storage_path=str((self._folder.root / ".work").resolve()),
                failure_config=tune.FailureConfig(max_failures=self._retries),
                callbacks=[_Events(self._session, self._guard)],
                stop=_SearchStopper(self._is_over),
                verbose=0,
            ),
        )

    def _is_over(self) -> bool:
        if self._interrupt.requested:
            self._progress.note("stopping: workers have up to 15 s to end. Send the signal again to stop at once.")
        return self._interrupt.requested or self._error is not None or time.monotonic() > self._deadline

    def _guard(self, call: Callable[[], T]) -> T | None:
        """Call a function. Its exception ends the search, and no function is called after that."""
        try:
            return None if self._error is not None else call()
        except BaseException as error:  # noqa: BLE001
            self._error = error
            return None

    def _begin(self, trial_id: str, point: Point) -> dict[str, Any] | None:
        return self._guard(lambda: self._session.begin(trial_id, point))

    def _end(self, trial_id: str, result: dict[str, Any]) -> Trial | None:
        return self._guard(lambda: self._session.end(trial_id, result, trial_id in self._asha.stopped))

    def _clear_nodes(self) -> None:
        """Delete the folders of the search on the nodes; the next call needs the checkpoints of unfinished trials."""
        alive = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
        strategies = [NodeAffinitySchedulingStrategy(node, soft=False) for node in alive]
        tasks = [
            ray.remote(clear)
            .options(num_cpus=0, max_retries=0, scheduling_strategy=strategy)
            .remote(self._connection.home, bool(self._session.active))
            for strategy in strategies
        ]
        # A node that dies at this point has no cache to delete.
        with suppress(ray.exceptions.RayError):
            ray.get(tasks, timeout=20)


def new_sampler(prepared: Prepared, space: Space, history: History, begin: Any, end: Any, limit: int | None) -> Sampler:
    """Create a sampler with all results of the result folder.

    Args:
        prepared: the sweep.
        space: the space of the search.
        history: the trials of earlier calls; interrupted points are proposed first.
        begin, end, limit: see `Sampler`.
    """
    seed = space.search.seed + len(history.finished)
    sampler = Sampler(space.search, space.domains, begin, end, seed, limit)
    for trial in history.finished:
        sampler.add(trial.point, trial.state, trial.value, trial.looks)
    for point, value in evaluated_points(space, prepared.records, history):
        sampler.add(point, "done", value)
    for point in history.interrupted:
        sampler.enqueue(point)
    return sampler


def save_importance(history: History, sampler: Sampler) -> None:
    """Compute the importance of the axes, and save the history.

    Args:
        history: the trials of the search.
        sampler: with all results.
    """
    history.importance = importance(sampler.study)
    history.save()


def clear(home: str, cache_only: bool) -> None:
    """Delete the folder of a search on this node.

    Args:
        home: name of the search on the nodes.
        cache_only: whether to delete the cache only, and keep the checkpoints.
    """
    folder = node_cache(home) if cache_only else node_folder(home)
    for _ in range(CLEAR_ATTEMPTS):
        rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        # A stopped worker may still write files.
        time.sleep(0.5)


class _SearchStopper(NoCheckpoint, Stopper):  # type: ignore[misc]
    """Ends the search at an interrupt, at an error, or after the time budget."""

    def __init__(self, is_over: Callable[[], bool]) -> None:
        self._is_over = is_over

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Return False: ASHA stops single trials."""
        return False

    def stop_all(self) -> bool:
        """Whether the search ends."""
        return self._is_over()


class _Events(NoCheckpoint, Callback):  # type: ignore[misc]
    """Passes Ray Tune's events to the session."""

    def __init__(self, session: SearchSession, guard: Callable[[Callable[[], Any]], Any]) -> None:
        self._session, self._guard = session, guard

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Handle the messages of the nodes; Ray Tune calls this method several times a second.

        Args:
            iteration, trials, info: of Ray Tune; unused.
        """
        self._guard(self._session.listen)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record that a worker has started a trial.

        Args:
            iteration, trials, info: of Ray Tune; unused.
            trial: of Ray Tune.
        """
        self._guard(lambda: self._session.started(trial.config["number"]))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Record an intermediate evaluation.

        Args:
            iteration, trials, info: of Ray Tune; unused.
            trial: of Ray Tune.
            result: the reported epoch and metric.
        """
        if EPOCH in result and REACHED in result:
            number, epoch, value = trial.config["number"], int(result[EPOCH]), float(result[REACHED])
            self._guard(lambda: self._session.add_evaluation(number, epoch, value))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Prepare the next attempt of a trial. Its config names the committed runs, which do not run again.

        Args:
            iteration, trials, info: of Ray Tune; unused.
            trial: of Ray Tune.
        """
        trial.config.update(self._guard(lambda: self._session.retry(trial.config["number"])) or {})

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record the failure of a trial after its last attempt.

        Args:
            iteration, trials, info: of Ray Tune; unused.
            trial: of Ray Tune.
        """
        self._guard(lambda: self._session.give_up_trial(trial.config["number"]))

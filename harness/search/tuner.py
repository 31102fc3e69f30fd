"""A search at work: Ray Tune runs trials, the proposer says which, ASHA stops hopeless ones, the book keeps them.

Nothing is raised through Ray Tune, which would swallow it, or leave its workers behind: a search that is stopped, by
Ctrl-C, by its time budget or by an error, ends by Ray Tune's own means, and what there is to raise is raised then.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from shutil import rmtree
from typing import Any

import optuna
import ray
from ray import tune
from ray.tune import Callback, Stopper
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from harness.execution.interrupt import Interrupt
from harness.execution.launchers.ray_connection import RayConnection
from harness.execution.progress import SweepProgress
from harness.execution.writer import SweepSummary
from harness.planning.prepare import Prepared
from harness.search.asha import ASHA
from harness.search.history import EPOCH, REACHED, History, Trial, made_before
from harness.search.points import Space
from harness.search.sampler import NoCheckpoint, Sampler, importance
from harness.search.session import SearchSession
from harness.search.trial import attempt, own_cache, own_home

# Ray Tune's own ways, which ours replace: its handler of Ctrl-C, loggers, reporter, and names of folders.
SETTINGS = {"TUNE_DISABLE_SIGINT_HANDLER": "1", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0",
            "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0", "RAY_CHDIR_TO_TRIAL_DIR": "0",
            "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1"}  # fmt: skip
# Of Ray Tune's, in the result folder's work; also the lock of a search, so that it is not taken for abandoned.
CLEARED = 20  # tries
NAME = "search"


class Tuning:
    """One call of `tune`.

    Args:
        prepared: the sweep; its result folder exists.
        space: of the search.
        history: of earlier calls.
        link: to the cluster, ready.
        progress: shows what goes on.
        retries: how often a trial is tried again that was lost with what made it.
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
        self._halving = ASHA(self._search, history.known)
        self._sampler = sampler(prepared, space, history, self._begin, self._end, connection.limit)

    def run(self) -> tuple[SweepSummary, int]:
        """Try settings until there are enough of them, and leave a valid workbook behind, whatever happens.

        Returns:
            What this call did, and how many of its trials failed.
        """
        summary = self._session.writer.summary
        try:
            with self._interrupt:
                self._folder.clear_abandoned()
                self._fit()
        except (KeyboardInterrupt, SystemExit):
            summary.interrupted = True
        finally:
            self._session.close()
            self._history.save()
            conclude(self._history, self._sampler)
            self._session.writer.write_workbook(force=True)
        summary.interrupted = summary.interrupted or self._interrupt.requested
        return summary, self._session.failed

    def _fit(self) -> None:
        # It misses the files of its loggers, which are switched off.
        logging.getLogger("ray.tune").setLevel(logging.ERROR)
        try:
            self._tuner().fit()
        finally:
            self._guarded(self._session.listen)
            self._guarded(self._session.settle)
            rmtree(self._folder.root / ".work" / NAME, ignore_errors=True)
            self._clear_nodes()
        if self._error is not None:
            raise self._error
        if self._sampler.exhausted:
            self._progress.note("The space is exhausted: all that is in it has been tried.")
        elif time.monotonic() > self._deadline:
            begun = sum(active.start is not None for active in self._session.active.values())
            dropped = f"; {begun} begun trial{'' if begun == 1 else 's'} dropped" if begun else ""
            self._progress.note(f"The time budget is used up{dropped}.")

    def _tuner(self) -> tune.Tuner:
        splits, needs = self._prepared.splits, self._connection.needs
        trainable = tune.with_parameters(
            attempt,
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
                scheduler=self._halving,
                num_samples=self._search.num_samples - len(self._history.known),
                # What a trial has imported, the next one has too.
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=NAME,
                storage_path=str((self._folder.root / ".work").resolve()),
                failure_config=tune.FailureConfig(max_failures=self._retries),
                callbacks=[_Listening(self._session, self._guarded)],
                stop=_Stopping(self._is_over),
                verbose=0,
            ),
        )

    def _is_over(self) -> bool:
        if self._interrupt.requested:
            self._progress.note("stopping: workers get up to 15 s to end; the same signal again does not wait.")
        return self._interrupt.requested or self._error is not None or time.monotonic() > self._deadline

    def _guarded(self, work: Callable[[], Any]) -> Any:
        """Do it; what it raises ends the search."""
        try:
            return None if self._error is not None else work()
        except BaseException as error:  # noqa: BLE001
            self._error = error
            return None

    def _begin(self, trial_id: str, point: Any) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self._guarded(lambda: self._session.begin(trial_id, point))
        return found

    def _end(self, trial_id: str, result: dict[str, Any]) -> Trial | None:
        hopeless = trial_id in self._halving.stopped
        found: Trial | None = self._guarded(lambda: self._session.end(trial_id, result, hopeless))
        return found

    def _clear_nodes(self) -> None:
        """What nodes kept for the search goes, but not what trainings have reached that the next call begins with."""
        alive = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
        places = [NodeAffinitySchedulingStrategy(node, soft=False) for node in alive]
        tasks = [
            ray.remote(clear)
            .options(num_cpus=0, max_retries=0, scheduling_strategy=place)
            .remote(self._connection.home, bool(self._session.active))
            for place in places
        ]
        # A node that dies now takes its cache along.
        with suppress(ray.exceptions.RayError):
            ray.get(tasks, timeout=20)


def sampler(prepared: Prepared, space: Space, history: History, begin: Any, end: Any, limit: int | None) -> Sampler:
    """What proposes, with all that is known."""
    seed = space.search.seed + len(history.known)
    found = Sampler(space.search, space.domains, begin, end, seed, limit)
    for trial in history.known:
        found.know(trial.point, trial.state, trial.value, trial.looks)
    for point, value in made_before(space, prepared.records, history):
        found.know(point, "done", value)
    for point in history.interrupted:
        found.first(point)
    return found


def conclude(history: History, known: Sampler) -> None:
    """Remember what the metric depends on."""
    history.importance = importance(known.study)
    history.save()


def clear(home: str, cache_only: bool) -> None:
    """On a node: remove what it kept for a search."""
    folder = own_cache(home) if cache_only else own_home(home)
    for _ in range(CLEARED):
        rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        # A worker that was just stopped is still writing.
        time.sleep(0.5)


class _Stopping(NoCheckpoint, Stopper):  # type: ignore[misc]
    """Ends the search."""

    def __init__(self, is_over: Callable[[], bool]) -> None:
        self._is_over = is_over

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Single trials are stopped by ASHA."""
        return False

    def stop_all(self) -> bool:
        """Whether it is over."""
        return self._is_over()


class _Listening(NoCheckpoint, Callback):  # type: ignore[misc]
    """Ray Tune's events, for the book."""

    def __init__(self, session: SearchSession, guarded: Callable[[Callable[[], Any]], Any]) -> None:
        self._session, self._guarded = session, guarded

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Many times a second, or whenever something happens."""
        self._guarded(self._session.listen)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial got its worker."""
        self._guarded(lambda: self._session.started(trial.config["number"]))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """It was looked at."""
        if EPOCH in result and REACHED in result:
            number, epoch, value = trial.config["number"], int(result[EPOCH]), float(result[REACHED])
            self._guarded(lambda: self._session.reached(number, epoch, value))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """It is made again; what is there of it already need not be."""
        trial.config.update(self._guarded(lambda: self._session.again(trial.config["number"])) or {})

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """It is given up."""
        self._guarded(lambda: self._session.lost(trial.config["number"]))

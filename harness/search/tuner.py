"""A search at work: Ray Tune runs trials, the proposer says which, ASHA stops hopeless ones, runs are put in place."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from shutil import rmtree
from typing import Any

import optuna
import ray
from ray import tune
from ray.tune import Callback
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from harness.errors import WorkerLostError
from harness.interrupt import Interrupt
from harness.landing import Landing, Tally
from harness.launch.base import Made, Said
from harness.launch.link import Link
from harness.prepare import PlannedRun, Prepared
from harness.progress import SweepProgress
from harness.provenance import provenance
from harness.search.history import History, Trial, made_before
from harness.search.points import Point, Space
from harness.search.proposer import EPOCH, FAILED, REACHED, VALUE, Proposer, Unkept, importance
from harness.search.trial import LONGEST, attempt, own_cache
from harness.work import failure, now

# Ray Tune's own ways, which ours replace: its handler of Ctrl-C, loggers, reporter, and names of folders.
SETTINGS = {"TUNE_DISABLE_SIGINT_HANDLER": "1", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0",
            "TUNE_FUNCTION_THREAD_TIMEOUT_S": "5", "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
            "RAY_CHDIR_TO_TRIAL_DIR": "0", "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1"}  # fmt: skip


@dataclass
class _Active:
    """A trial that is being made."""

    trial: Trial
    runs: tuple[PlannedRun, ...]
    claims: ExitStack
    start: float


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
        link: Link,
        progress: SweepProgress,
        retries: int,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._prepared, self._space, self._history = prepared, space, history
        self._link, self._progress, self._retries = link, progress, retries
        self._folder = prepared.folder
        self._landing = Landing(prepared, progress)
        self._interrupt = Interrupt()
        self._active: dict[int, _Active] = {}
        self._ids: dict[str, int] = {}
        self._raised: Exception | None = None
        self._halving = _Halving(space.search)
        seed = space.search.seed + len(history.known)
        self._proposer = Proposer(space.search, space.domains, self._begin, self._end, seed)

    def run(self) -> Tally:
        """Try settings until there are enough of them, and leave a valid workbook behind, whatever happens."""
        os.environ.update(SETTINGS)
        try:
            with self._interrupt:
                self._folder.clear_abandoned()
                self._know()
                self._fit()
        except (KeyboardInterrupt, SystemExit):
            self._landing.tally.interrupted = True
        finally:
            for active in self._active.values():
                active.claims.close()
            self._history.importance = importance(self._proposer.study)
            self._history.save()
            self._landing.write_workbook(force=True)
        return self._landing.tally

    def _know(self) -> None:
        for trial in self._history.known:
            self._proposer.know(trial.point, trial.state, trial.value, trial.looks)
        for point, value in made_before(self._space, self._prepared.records, self._history):
            self._proposer.know(point, "done", value)
        for point in self._history.interrupted:
            self._proposer.first(point)

    def _fit(self) -> None:
        search = self._space.search
        splits, contents = self._prepared.splits, {}
        for split in splits.values():
            found = self._link.contents(split)
            if found is not None:
                contents[split.fingerprint] = ray.get(found)
        trainable = tune.with_parameters(
            attempt,
            sweep=self._space.config,
            splits=dict(splits),
            queue=self._link.queue,
            home=self._link.home,
            directory=self._link.directory,
            contents=contents,
        )
        needs = self._link.needs
        resources = {"cpu": needs.cpus, "gpu": needs.gpus or 0} | ({"memory": needs.memory} if needs.memory else {})
        tuner = tune.Tuner(
            tune.with_resources(trainable, resources),
            tune_config=tune.TuneConfig(
                search_alg=self._proposer,
                scheduler=self._halving,
                num_samples=search.num_samples - len(self._history.known),
                max_concurrent_trials=self._link.limit,
                time_budget_s=search.time_budget,
                # What a trial has imported, the next one has too.
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str((self._folder.root / ".work").resolve()),
                failure_config=tune.FailureConfig(max_failures=self._retries),
                callbacks=[_Listening(self)],
                verbose=0,
            ),
        )
        # It misses the files of its loggers, which are switched off.
        logging.getLogger("ray.tune").setLevel(logging.ERROR)
        try:
            tuner.fit()
        finally:
            self.listen(checked=False)
            rmtree(self._folder.root / ".work" / "tune", ignore_errors=True)
            self._clear_nodes()
        if self._proposer.exhausted:
            self._progress.note("The space is exhausted: all that is proposed has been tried.")
        elif self._active and search.time_budget is not None:
            count = len(self._active)
            self._progress.note(f"The time budget is used up; {count} begun trial{'' if count == 1 else 's'} dropped.")

    def _begin(self, trial_id: str, point: Point) -> dict[str, Any] | None:
        """A proposal becomes a trial, unless it is known."""
        runs = self._space.runs(point)
        names = [run.run_id for run in runs]
        if any(trial.runs == names for trial in self._history.trials):
            return None
        if all(run.run_id in self._prepared.records and self._prepared.is_done(run) for run in runs):
            return None
        trial = self._history.begin(point, names, now())
        claims = ExitStack()
        for name in names:
            claims.enter_context(self._folder.claim(name))
        self._ids[trial_id] = trial.number
        self._active[trial.number] = _Active(trial, runs, claims, time.monotonic())
        self._progress.start(self._label(trial))
        return {"number": trial.number, "point": json.dumps(dict(point))}

    def _label(self, trial: Trial) -> str:
        shown = {name: "+".join(map(str, v)) if isinstance(v, list) else v for name, v in trial.point.items()}
        said = (f"{name}={v:.3g}" if isinstance(v, float) else f"{name}={v}" for name, v in shown.items())
        return f"trial {trial.number}: {' '.join(said)}"

    def listen(self, checked: bool = True) -> None:
        """Put in place what has come, and say what goes on.

        Args:
            checked: whether this is where Ctrl-C is noticed.
        """
        if checked:
            self._interrupt.check()
            if self._raised is not None:
                raise self._raised
        for what, number, *rest in self._link.messages():
            if what == "refused":
                raise rest[0]
            active = self._active.get(number)
            for event in self._link.event(what, number, *rest) if active is not None or what == "log" else ():
                if isinstance(event, Made):
                    self._landing.land(event.record)
                elif isinstance(event, Said) and active is not None:
                    self._progress.stage(event.stage, self._label(active.trial))

    def _end(self, trial_id: str, result: Mapping[str, Any]) -> Trial | None:
        """A trial is over; gives None where nothing came of it."""
        try:
            self.listen(checked=False)
        # Ray Tune would swallow it here; it is raised at the end of the step.
        except Exception as error:  # noqa: BLE001
            self._raised = error
        active = self._active.get(self._ids[trial_id])
        if active is None:
            return None
        trial = active.trial
        if result.get(VALUE) is not None:
            trial.state, trial.value = "done", float(result[VALUE])
        elif result.get(FAILED):
            trial.state, trial.why = "failed", self._why(active)
        elif trial_id in self._halving.stopped:
            trial.state, trial.value = "stopped", trial.looks[-1][1]
        else:
            # The time is over, or it was lost: the next call begins with it.
            return None
        self._over(active)
        return trial

    def _over(self, active: _Active) -> None:
        trial = active.trial
        trial.ended, trial.seconds = now(), time.monotonic() - active.start
        del self._active[trial.number]
        self._folder.clear_work(trial.runs)
        active.claims.close()
        self._history.save()
        self._say(trial)
        self._landing.write_workbook(force=False)

    def _why(self, active: _Active) -> str:
        names = set(active.trial.runs)
        for record in self._landing.tally.failed:
            if record.run_id in names:
                error = record.error or {}
                return f"{error.get('type')}: {error.get('message', '')}".split("\n", maxsplit=1)[0]
        return f"{self._space.metric} is undefined on these images"

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

    def reached(self, number: int, epoch: int, value: float) -> None:
        """What the training of a trial had reached."""
        self._active[number].trial.looks.append((epoch, value))

    def again(self, number: int) -> None:
        """A trial was lost and is made again."""
        self._active[number].trial.looks.clear()
        self._progress.note(f"  warning: trial {number} was lost with its worker or node; it is tried again")

    def lost(self, number: int) -> None:
        """A trial was lost as often as it may be."""
        active = self._active.get(number)
        if active is None:
            return
        error = WorkerLostError(f"lost with its worker or node, as often as it was tried ({self._retries + 1}).")
        for run in active.runs:
            facts = (time.monotonic() - active.start, {**provenance(), "began": active.trial.began, "ended": now()})
            self._landing.land(failure(self._space.config, run, error, self._folder, facts))
        active.trial.state, active.trial.why = "failed", f"WorkerLostError: {error}"
        self._over(active)

    def _clear_nodes(self) -> None:
        """What nodes kept for the search goes, but not what trainings have reached that the next call begins with."""
        kept = own_cache(self._link.home)
        place_of_all = str(kept if self._active else kept.parent)
        alive = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
        places = [NodeAffinitySchedulingStrategy(node, soft=False) for node in alive]
        tasks = [
            ray.remote(_clear).options(num_cpus=0, max_retries=0, scheduling_strategy=place).remote(place_of_all)
            for place in places
        ]
        # A node that dies now takes its cache along.
        with suppress(ray.exceptions.RayError):
            ray.get(tasks, timeout=20)


def _clear(folder: str) -> None:
    rmtree(folder, ignore_errors=True)


class _Halving(Unkept, ASHAScheduler):  # type: ignore[misc]
    """ASHA, which remembers whom it stopped; nothing of it outlives the call."""

    def __init__(self, search: Any) -> None:
        super().__init__(
            time_attr=EPOCH,
            metric=REACHED,
            mode=search.mode,
            max_t=LONGEST,
            grace_period=search.grace_epochs,
            reduction_factor=search.reduction_factor,
        )
        self.stopped: set[str] = set()

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """See ASHAScheduler."""
        action = str(super().on_trial_result(tune_controller, trial, result))
        if action == TrialScheduler.STOP:
            self.stopped.add(trial.trial_id)
        return action


class _Listening(Unkept, Callback):  # type: ignore[misc]
    """Ray Tune's events."""

    def __init__(self, tuning: Tuning) -> None:
        self._tuning = tuning

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Many times a second, or whenever something happens."""
        self._tuning.listen()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """It was looked at."""
        if EPOCH in result and REACHED in result:
            self._tuning.reached(trial.config["number"], int(result[EPOCH]), float(result[REACHED]))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """It is made again."""
        self._tuning.again(trial.config["number"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """It is given up."""
        self._tuning.lost(trial.config["number"])

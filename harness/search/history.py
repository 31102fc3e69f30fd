"""The trials of a search with their values: search.json in the result folder. The records have all other results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from harness.common.files import write_atomic
from harness.report.configurations import Configuration
from harness.results.record import RunRecord
from harness.results.store import SEARCH_SCHEMA, ResultFolder
from harness.search.points import Point, Space

# Keys of the results that trials report to Ray Tune.
EPOCH, REACHED, VALUE, FAILED = "epoch", "reached", "value", "failed"
LOST = "WorkerLostError"
State = Literal["running", "done", "stopped", "failed"]


@dataclass
class Trial:
    """A trial: one configuration of the search.

    Attributes:
        number: from 1.
        point: the configuration, one value for each axis.
        runs: run ids.
        state: done, stopped (early), failed or running. After a kill, an interrupted trial has the state running.
        value: of the metric; for a stopped trial, the last intermediate value.
        looks: (epoch, value) of the intermediate evaluations of its first training.
        seconds: duration.
        began, ended: times of start and end.
        why: the reason of a failure.
    """

    number: int
    point: dict[str, Any]
    runs: list[str]
    state: State = "running"
    value: float | None = None
    looks: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0
    began: str = ""
    ended: str = ""
    why: str = ""


class History:
    """The trials of a result folder.

    Args:
        folder: the result folder.
        space: the space of this call.
        records: of the result folder, by run id.
        retry_failed: whether failed trials run again.

    Attributes:
        trials: trials of this call, and the valid trials of earlier calls.
        interrupted: points of trials that an earlier call has not finished, or that run again.
        importance: share of each axis in the variance of the metric.

    Raises:
        StoreError: search.json is damaged, or a newer version of the harness wrote the file.
    """

    def __init__(
        self, folder: ResultFolder, space: Space, records: Mapping[str, RunRecord], retry_failed: bool = False
    ) -> None:
        self._folder, self._space = folder, space
        self.trials: list[Trial] = []
        self.interrupted: list[Point] = []
        self.importance: dict[str, float] = {}
        self._retry_failed = retry_failed
        content = folder.read_search() or {}
        same_metric = content.get("metric") == space.metric
        for values in content.get("trials", []):
            self._add_earlier(Trial(**{key.name: values[key.name] for key in fields(Trial)}), same_metric, records)
        self.interrupted += [point for point in content.get("interrupted", []) if space.holds(point)]

    def _add_earlier(self, trial: Trial, same_metric: bool, records: Mapping[str, RunRecord]) -> None:
        """Add a trial of an earlier call, if the trial is valid for this call."""
        trial.looks = [(int(epoch), float(value)) for epoch, value in trial.looks]
        finished = [records[run] for run in trial.runs if run in records and records[run].status == "ok"]
        value = value_of(finished, self._space.metric) if trial.runs and len(finished) == len(trial.runs) else None
        if value is not None:
            # All runs have results, for example from a sweep, so the state of the trial no longer matters.
            trial.state, trial.value, trial.why = "done", value, ""
        elif trial.state == "running" or (trial.state == "failed" and (self._retry_failed or LOST in trial.why)):
            if self._space.holds(trial.point):
                self.interrupted.append(trial.point)
            return
        elif trial.state == "done" or not same_metric:
            return
        self.trials.append(trial)

    @property
    def finished(self) -> list[Trial]:
        """The trials in the space of this call that are not running."""
        return [trial for trial in self.trials if trial.state != "running" and self._space.holds(trial.point)]

    @property
    def best(self) -> Trial | None:
        """The best trial with complete trainings; None without such a trial."""
        completed = [trial for trial in self.finished if trial.state == "done" and trial.value is not None]
        sign = 1 if self._space.search.mode == "max" else -1
        return max(completed, key=lambda trial: sign * (trial.value or 0.0), default=None)

    def begin(self, point: Point, runs: Sequence[str]) -> Trial:
        """Add a running trial, and save the history.

        Args:
            point: in the space.
            runs: run ids.
        """
        number = max((trial.number for trial in self.trials), default=0) + 1
        trial = Trial(number, dict(point), list(runs))
        self.trials.append(trial)
        self.interrupted = [other for other in self.interrupted if other != trial.point]
        self.save()
        return trial

    def save(self) -> None:
        """Write search.json.

        Raises:
            StoreError: the file can't be written.
        """
        search = self._space.search
        values = {
            "schema": SEARCH_SCHEMA,
            "metric": self._space.metric,
            "mode": search.mode,
            "num_samples": search.num_samples,
            "holdout": self._space.holdout or None,
            "axes": {
                name: {"text": str(domain), "log": domain.kind == "loguniform"}
                for name, domain in self._space.domains.items()
            },
            "importance": self.importance,
            "interrupted": [dict(point) for point in self.interrupted],
            "trials": [{**asdict(trial), "inside": self._space.holds(trial.point)} for trial in self.trials],
        }
        write_atomic(self._folder.search, json.dumps(values, indent=1))


def value_of(records: Sequence[RunRecord], metric: str) -> float | None:
    """Mean of a metric: over the seeds of each category, then over the categories.

    Args:
        records: of the runs of one configuration.
        metric: name of the metric.

    Returns:
        The mean; None where the metric is undefined.
    """
    return Configuration("", tuple(records)).metric(metric) if records else None


def evaluated_points(space: Space, records: Mapping[str, RunRecord], history: History) -> list[tuple[Point, float]]:
    """Points whose runs come from a grid or another search.

    Args:
        space: the space of the search.
        records: of the result folder, by run id.
        history: the trials of this search; their runs do not count here.

    Returns:
        Each point with all its categories and seeds, and its value.
    """
    of_trials = {run for trial in history.trials for run in trial.runs}
    values: dict[str, tuple[Point, float]] = {}
    for record in records.values():
        if record.status != "ok" or record.run_id in of_trials:
            continue
        point = space.point_of_record(record)
        key = json.dumps(point, sort_keys=True)
        if point is None or key in values:
            continue
        runs = [run.run_id for run in space.runs(point)]
        # The point counts only with this run in it, and with the results of all categories and seeds.
        if record.run_id in runs and all(run in records and records[run].status == "ok" for run in runs):
            value = value_of([records[run] for run in runs], space.metric)
            if value is not None:
                values[key] = (point, value)
    return list(values.values())

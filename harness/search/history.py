"""What a search has tried, and what came of it: search.json beside the sheet. Results themselves are in the records."""

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

# Words of what trials report.
EPOCH, REACHED, VALUE, FAILED = "epoch", "reached", "value", "failed"
LOST = "WorkerLostError"
State = Literal["running", "done", "stopped", "failed"]


@dataclass
class Trial:
    """One setting that was tried.

    Attributes:
        number: from 1.
        point: where in the space.
        runs: run ids.
        state: done; stopped early; failed; or running, which after a kill means that it was.
        value: of the metric; of a stopped one, what it had reached.
        looks: (epoch, value) of its first training, before the end.
        seconds: that it took.
        began, ended: when.
        why: it failed.
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
        folder: the sweep's.
        space: as it is searched now.
        records: what the folder holds, by run id.
        retry_failed: whether failed trials are to be tried again.

    Attributes:
        trials: by number; of earlier calls those that are still known.
        interrupted: points that an earlier call had begun with, or that are to be tried again.
        importance: share of each axis in what the metric varies by.
    """

    def __init__(
        self, folder: ResultFolder, space: Space, records: Mapping[str, RunRecord], retry_failed: bool = False
    ) -> None:
        self._folder, self._space = folder, space
        self.trials: list[Trial] = []
        self.interrupted: list[Point] = []
        self.importance: dict[str, float] = {}
        self._retry_failed = retry_failed
        found = folder.read_search() or {}
        same = found.get("metric") == space.metric
        for values in found.get("trials", []):
            self._take(Trial(**{one.name: values[one.name] for one in fields(Trial)}), same, records)
        self.interrupted += [point for point in found.get("interrupted", []) if space.holds(point)]

    def _take(self, trial: Trial, same_metric: bool, records: Mapping[str, RunRecord]) -> None:
        """A trial of an earlier call, as far as it still means something."""
        trial.looks = [(int(epoch), float(value)) for epoch, value in trial.looks]
        own = [records[run] for run in trial.runs if run in records and records[run].status == "ok"]
        value = value_of(own, self._space.metric) if trial.runs and len(own) == len(trial.runs) else None
        if value is not None:
            # Whatever became of the trial, its runs are there, made by a sweep perhaps.
            trial.state, trial.value, trial.why = "done", value, ""
        elif trial.state == "running" or (trial.state == "failed" and (self._retry_failed or LOST in trial.why)):
            self._try_again(trial.point)
            return
        elif trial.state == "done" or not same_metric:
            return
        self.trials.append(trial)

    def _try_again(self, point: dict[str, Any]) -> None:
        if self._space.holds(point):
            self.interrupted.append(point)

    @property
    def known(self) -> list[Trial]:
        """Those that count: in the space as it is now."""
        return [trial for trial in self.trials if trial.state != "running" and self._space.holds(trial.point)]

    @property
    def best(self) -> Trial | None:
        """The best that was made to the end."""
        done = [trial for trial in self.known if trial.state == "done" and trial.value is not None]
        sign = 1 if self._space.search.mode == "max" else -1
        return max(done, key=lambda trial: sign * (trial.value or 0.0), default=None)

    def begin(self, point: Point, runs: Sequence[str]) -> Trial:
        """One more."""
        number = max((trial.number for trial in self.trials), default=0) + 1
        trial = Trial(number, dict(point), list(runs))
        self.trials.append(trial)
        self.interrupted = [one for one in self.interrupted if one != trial.point]
        self.save()
        return trial

    def save(self) -> None:
        """Write search.json."""
        search = self._space.search
        values = {
            "schema": SEARCH_SCHEMA,
            "metric": self._space.metric,
            "mode": search.mode,
            "num_samples": search.num_samples,
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
    """Mean of a metric over categories, of each over seeds; None where it is undefined."""
    return Configuration("", tuple(records)).metric(metric) if records else None


def made_before(space: Space, records: Mapping[str, RunRecord], history: History) -> list[tuple[Point, float]]:
    """Points that a grid's runs, or another search's, stand for: whole settings, each with its value."""
    tried = {run for trial in history.trials for run in trial.runs}
    found: dict[str, tuple[Point, float]] = {}
    for record in records.values():
        if record.status != "ok" or record.run_id in tried:
            continue
        point = space.point_of_record(record)
        key = json.dumps(point, sort_keys=True)
        if point is None or key in found:
            continue
        runs = [run.run_id for run in space.runs(point)]
        # Only if the point means this very run, and all its other categories and seeds are there.
        if record.run_id in runs and all(run in records and records[run].status == "ok" for run in runs):
            value = value_of([records[run] for run in runs], space.metric)
            if value is not None:
                found[key] = (point, value)
    return list(found.values())

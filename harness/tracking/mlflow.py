"""MLflow: a server at MLFLOW_TRACKING_URI, or a database in the result folder (https://mlflow.org/docs/latest)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, TypeVar

from harness.tracking.base import LOCAL, RUN_ID, TIMEOUT, TrackedRun, without_password

ADDRESS = "MLFLOW_TRACKING_URI"
# MLflow's own values let a dead server cost minutes, and send statistics of its use. Values of the user come first.
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(TIMEOUT),
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
BATCH = 100  # most parameters in one request of MLflow's REST API
T = TypeVar("T")


class MLflowTracker:
    """A tracker of MLflow. A run of MLflow has the run id as its tag `harness.run_id`."""

    modules: ClassVar[tuple[str, ...]] = ("mlflow", "sqlalchemy", "alembic")

    def __init__(self, folder: Path, experiment: str) -> None:
        self._folder, self._experiment = folder.absolute(), experiment
        self._address = os.environ.get(ADDRESS, "")
        self.store = without_password(self._address) or LOCAL

    def log(self, run: TrackedRun) -> str:
        """Log a run, or change the run of MLflow that has the run id; see `Tracker.log`."""
        mlflow_run = self._find(run.run_id)
        own_id = self._create(run) if mlflow_run is None else str(mlflow_run.info.run_id)
        self._log_values(own_id, run, mlflow_run)
        self._client.log_text(own_id, run.record, "record.json")
        for name, file in run.pictures.items():
            self._client.log_artifact(own_id, str(file), str(PurePosixPath(name).parent))
        if run.model is not None and not run.knows_model:
            self._client.log_artifact(own_id, str(run.model))
        self._client.set_terminated(own_id, "FINISHED" if run.succeeded else "FAILED", _milliseconds(run.ended))
        return own_id

    def close(self) -> None:
        """Nothing: MLflow's client holds nothing open."""

    @cached_property
    def _client(self) -> Any:
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        from mlflow.tracking import MlflowClient

        if self._address:
            return MlflowClient(tracking_uri=self._address)
        self._folder.mkdir(exist_ok=True)
        return MlflowClient(tracking_uri=f"sqlite:///{self._folder / 'mlflow.db'}")

    @cached_property
    def _experiment_id(self) -> str:
        from mlflow.exceptions import MlflowException

        location = None if self._address else (self._folder / "artifacts").as_uri()
        experiment = self._client.get_experiment_by_name(self._experiment)
        if experiment is None:
            try:
                return str(self._client.create_experiment(self._experiment, artifact_location=location))
            except MlflowException:
                # Another process may have created it since the question.
                experiment = self._client.get_experiment_by_name(self._experiment)
                if experiment is None:
                    raise
        return str(experiment.experiment_id)

    def _find(self, run_id: str) -> Any:
        """The run of MLflow with a run id; None without one."""
        matches = self._client.search_runs([self._experiment_id], f"tags.`{RUN_ID}` = '{run_id}'", max_results=1)
        return matches[0] if matches else None

    def _create(self, run: TrackedRun) -> str:
        # The tag is part of the creation, so that a killed process leaves no run without it.
        created = self._client.create_run(
            self._experiment_id, start_time=_milliseconds(run.began), tags={RUN_ID: run.run_id}, run_name=run.name
        )
        return str(created.info.run_id)

    def _log_values(self, own_id: str, run: TrackedRun, mlflow_run: Any) -> None:
        """Log the values that the run of MLflow does not have. MLflow refuses another value of a parameter."""
        from mlflow.entities import Metric, Param, RunTag

        known_parameters: Mapping[str, str] = mlflow_run.data.params if mlflow_run is not None else {}
        known_metrics: Mapping[str, float] = mlflow_run.data.metrics if mlflow_run is not None else {}
        time = _milliseconds(run.ended) or 0
        parameters = [Param(key, value) for key, value in run.parameters.items() if key not in known_parameters]
        metrics = [Metric(key, value, time, 0) for key, value in run.metrics.items() if known_metrics.get(key) != value]
        tags = [RunTag(key, value) for key, value in run.tags.items()]
        for batch in _batches(parameters):
            self._client.log_batch(own_id, params=batch)
        for batch in _batches(metrics):
            self._client.log_batch(own_id, metrics=batch)
        self._client.log_batch(own_id, tags=tags)


def _batches(values: Iterable[T]) -> Iterator[Sequence[T]]:
    rest = iter(values)
    while batch := list(islice(rest, BATCH)):
        yield batch


def _milliseconds(time: datetime | None) -> int | None:
    return None if time is None else round(time.timestamp() * 1000)

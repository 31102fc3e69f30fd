"""The real MLflow: a database in the result folder, and an address where nobody answers."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from harness.results.store import ResultFolder
from harness.tracking.base import LOCAL, TrackedRun
from harness.tracking.content import tracked_run
from harness.tracking.mlflow import ADDRESS, SETTINGS, MLflowTracker
from tests.conftest import Cli, write_config

pytest.importorskip("mlflow", reason="needs the extra mlflow")
from mlflow.tracking import MlflowClient


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tracker sets variables for MLflow; they end with the test."""
    for name in (ADDRESS, *SETTINGS):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a database, whose tables take a second to make; each test has an experiment of its own."""
    return tmp_path_factory.mktemp("store") / "mlflow"


@pytest.fixture
def run(sweep_folder: ResultFolder) -> TrackedRun:
    record = next(record for record in sweep_folder.records() if record.status == "ok")
    return tracked_run(record, sweep_folder.run_folder(record.run_id))


def test_a_run_is_in_the_local_store_once(run: TrackedRun, store: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"a model")
    tracker = MLflowTracker(store, "parts")
    assert tracker.store == LOCAL
    first = tracker.log(run)
    # As after a kill before the note in the run's folder: another process does not know of the first call.
    changed = {**run.metrics, "seconds/total": 7.0}
    failed = replace(run, model=model, metrics=changed, parameters={**run.parameters, "model": "another"})
    assert MLflowTracker(store, "parts").log(failed) == first
    client = MlflowClient(tracking_uri=f"sqlite:///{store / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("parts")
    (logged,) = client.search_runs([experiment.experiment_id])
    assert logged.info.run_id == first
    assert (logged.info.run_name, logged.info.status) == (run.name, "FINISHED")
    assert run.began is not None and logged.info.start_time == round(run.began.timestamp() * 1000)
    assert logged.data.params == run.parameters
    assert logged.data.metrics == changed
    assert run.tags.items() <= logged.data.tags.items()
    (unchanged,) = client.get_metric_history(first, "image_AUROC")
    assert unchanged.value == run.metrics["image_AUROC"]
    assert {file.path for file in client.list_artifacts(first)} == {"record.json", "heatmaps", "model.safetensors"}
    assert {file.path for file in client.list_artifacts(first, "heatmaps")} == set(run.pictures)
    assert Path(client.download_artifacts(first, "record.json", str(tmp_path))).read_text() == run.record


def test_a_known_model_is_not_sent_and_a_failure_is_told(run: TrackedRun, store: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"a model")
    own_id = MLflowTracker(store, "failures").log(replace(run, model=model, knows_model=True, succeeded=False))
    client = MlflowClient(tracking_uri=f"sqlite:///{store / 'mlflow.db'}")
    assert client.get_run(own_id).info.status == "FAILED"
    assert "model.safetensors" not in {file.path for file in client.list_artifacts(own_id)}


def test_nobody_answers_at_the_address(
    cli: Cli, dummy: type, tmp_path: Path, toy_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del dummy
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://user:secret@127.0.0.1:{free.getsockname()[1]}"
        monkeypatch.setenv(ADDRESS, address)
        text = f"data: {{kind: mvtec, root: {toy_tree}}}\nlatency: false\ngrid: {{backend: dummy, model: plain}}\n"
        result = cli("sweep", write_config(tmp_path / "dead.yaml", text), "tracking=[mlflow]")
    assert result.exit_code == 0, result.output
    assert result.output.count("mlflow: runs can't be logged (") == 1
    assert "secret" not in result.output
    (record,) = ResultFolder(Path("results/dead")).records()
    assert record.status == "ok"
    assert not (Path("results/dead/runs") / record.run_id / "tracking.json").exists()

"""A real MLflow server on this machine: a sweep is killed and resumed, and the server goes away."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest

from harness.results.store import ResultFolder
from harness.tracking.mlflow import ADDRESS, SETTINGS
from tests.conftest import ROOT, Cli, write_config

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

pytestmark = [
    pytest.mark.slow,
    # A server, and two processes that import large libraries.
    pytest.mark.timeout(600),
    # The server comes with the whole of MLflow, and the extra has its client only.
    pytest.mark.skipif(find_spec("flask") is None or find_spec("mlflow") is None, reason="needs the server of MLflow"),
]
TEXT = """
name: parts
data: {{kind: mvtec, root: {root}}}
latency: false
tracking: [mlflow]
grid: {{backend: dummy, model: mean, power: [1.0, 2.0, 3.0]}}
"""
# A sweep that stands still after its second run is logged, and before the note in the folder of the run.
STILL = """
import sys, time
from harness import registry
from harness.cli.main import app
from harness.tracking import session

note = session.write_logged
notes = []

def stand_still(*arguments):
    notes.append(arguments)
    time.sleep(600) if len(notes) == 2 else note(*arguments)

session.write_logged = stand_still
registry.BACKENDS["dummy"] = "tests.dummy:DummyBackend"
app(["sweep", sys.argv[1]])
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A server with an empty store, and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}"]
    command += ["--artifacts-destination", str(tmp_path / "artifacts")]
    environment = {**os.environ, **SETTINGS, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment)
    try:
        while not _is_up(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None, (tmp_path / "server.log").read_text()
            time.sleep(0.1)
        yield process, f"http://127.0.0.1:{port}"
    finally:
        _stop(process)


def _is_up(address: str) -> bool:
    try:
        with urlopen(address, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server with its workers."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def logged_runs(client: MlflowClient) -> list[Run]:
    experiment = client.get_experiment_by_name("parts")
    return [] if experiment is None else list(client.search_runs([experiment.experiment_id]))


def test_a_killed_and_resumed_sweep_logs_each_run_once(
    server: tuple[subprocess.Popen[bytes], str],
    cli: Cli,
    dummy: type,
    tmp_path: Path,
    toy_tree: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    del dummy
    process, address = server
    for name, value in {ADDRESS: address, **SETTINGS}.items():
        monkeypatch.setenv(name, value)
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=address)
    config = write_config(tmp_path / "parts.yaml", TEXT.format(root=toy_tree))
    folder = ResultFolder(Path("results/parts"))
    with (tmp_path / "killed.log").open("wb") as log:
        path = os.pathsep.join([str(ROOT), *sys.path])
        killed = subprocess.Popen(
            [sys.executable, "-c", STILL, str(config)], stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": path}
        )
    while [run.info.status for run in logged_runs(client)] != ["FINISHED", "FINISHED"]:
        assert killed.poll() is None, (tmp_path / "killed.log").read_text()
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert len(folder.records()) == 2
    assert len(list(folder.runs.glob("*/tracking.json"))) == 1

    result = cli("sweep", config)
    assert result.exit_code == 0, result.output
    assert "1 to run now" in result.output
    records = {record.run_id: record for record in folder.records()}
    logged = logged_runs(client)
    assert sorted(run.data.tags["harness.run_id"] for run in logged) == sorted(records)
    assert len(records) == 3
    for run in logged:
        record = records[run.data.tags["harness.run_id"]]
        assert run.info.status == "FINISHED"
        assert run.data.metrics["image_AUROC"] == record.metrics["image_AUROC"]
        assert run.data.params["params.power"] == str(record.spec["params"]["power"])
        files = {file.path for file in client.list_artifacts(run.info.run_id)}
        kept = folder.model_file(record.run_id)
        assert {"record.json", "heatmaps", *([kept.name] if kept else [])} == files
    assert sum(folder.model_file(run_id) is not None for run_id in records) == 1

    # The server goes away, and the sweep goes on.
    _stop(process)
    result = cli("sweep", config, "grid[0].power=[1.0,2.0,3.0,4.0]")
    assert result.exit_code == 0, result.output
    assert result.output.count("mlflow: runs can't be logged (") == 1
    assert len(folder.records()) == 4

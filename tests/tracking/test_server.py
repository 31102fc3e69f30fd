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
from urllib.request import urlopen

import pytest

from harness.results.store import ResultFolder
from harness.tracking.mlflow import ADDRESS, SETTINGS
from tests.conftest import write_config

pytestmark = [
    pytest.mark.slow,
    # The server comes with the whole of MLflow, and the extra has its client only.
    pytest.mark.skipif(find_spec("flask") is None or find_spec("mlflow") is None, reason="needs the server of MLflow"),
]
TEXT = """
name: parts
data: {{kind: mvtec, root: {root}}}
weights: random
device: cpu
latency: false
tracking: [mlflow]
grid: {{model: padim, backend: native, backbone: resnet18, layers: [layer1], n_features: [10, 20, 30], image_size: 64}}
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
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
        )
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


def start(config: Path, address: str, *overrides: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "harness", "sweep", str(config), *overrides],
        env={**os.environ, ADDRESS: address},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_killed_and_resumed_sweep_logs_each_run_once(
    server: tuple[subprocess.Popen[bytes], str],
    tmp_path: Path,
    toy_tree: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    from mlflow.tracking import MlflowClient

    process, address = server
    config = write_config(tmp_path / "parts.yaml", TEXT.format(root=toy_tree))
    client = MlflowClient(tracking_uri=address)
    sweep = start(config, address)
    # The first run is in MLflow, and is perhaps not complete.
    while (experiment := client.get_experiment_by_name("parts")) is None or not client.search_runs(
        [experiment.experiment_id]
    ):
        assert sweep.poll() is None, "the sweep ended before it could be killed"
    sweep.send_signal(signal.SIGKILL)
    sweep.communicate()
    folder = ResultFolder(Path("results/parts"))
    assert 1 <= len(folder.records()) < 3
    sweep = start(config, address)
    output, _ = sweep.communicate()
    assert sweep.returncode == 0, output
    records = {record.run_id: record for record in folder.records()}
    logged = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.tags["harness.run_id"] for run in logged) == sorted(records)
    for run in logged:
        record = records[run.data.tags["harness.run_id"]]
        assert run.info.status == "FINISHED"
        assert run.data.metrics["image_AUROC"] == record.metrics["image_AUROC"]
        assert run.data.params["params.n_features"] == str(record.spec["params"]["n_features"])
        files = {file.path for file in client.list_artifacts(run.info.run_id)}
        kept = folder.model_file(record.run_id)
        assert files == {"record.json", "heatmaps", *([kept.name] if kept else [])}
    assert sum(folder.model_file(run_id) is not None for run_id in records) == 1

    # The server goes away, and the sweep goes on.
    _stop(process)
    sweep = start(config, address, "grid[0].n_features=[10,20,30,40]")
    output, _ = sweep.communicate()
    assert sweep.returncode == 0, output
    assert output.count("mlflow: runs can't be logged (") == 1
    assert len(folder.records()) == 4

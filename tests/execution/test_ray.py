"""A real Ray cluster of two nodes on this machine: the same records, nodes that die, and bad input."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from openpyxl import load_workbook

from harness.common.errors import DataError, StoreError
from harness.config.load import load_config
from harness.execution.jobs import Job
from harness.execution.launchers.node import home_of, run_job, work_folder
from harness.execution.launchers.shipping import files_of, pack, read_files, unpack
from harness.planning.prepare import prepare
from harness.results.record import RunRecord
from harness.results.store import ResultFolder
from tests.classified import CONFIG
from tests.conftest import Cli, write_config
from tests.execution.test_launch import GRID, LONG

pytest.importorskip("ray", reason="needs Ray: pip install 'harness[ray]'")

RAY = Path(sys.executable).with_name("ray")
# One thread a job, as Ray has it for one core, so that sums are the same to the last bit.
# And a folder of its own, with a short name: what other programs of this machine started is not looked at.
FOLDER = tempfile.mkdtemp(prefix="ray-")
ENVIRONMENT = {
    **os.environ,
    "RAY_TMPDIR": FOLDER,
    "RAY_AUTH_MODE": "disabled",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}


def free_port() -> int:
    # Below those that Ray hands out to its workers.
    for port in range(9100, 9990):
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port")


@dataclass
class Node:
    """One `ray start --block`."""

    process: subprocess.Popen[str]

    def kill(self) -> None:
        """Everything of it, at once."""
        with suppress(psutil.NoSuchProcess):
            family = psutil.Process(self.process.pid).children(recursive=True)
            for one in [psutil.Process(self.process.pid), *family]:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
        self.process.wait()


@dataclass
class TwoNodes:
    """A cluster."""

    address: str
    client: str
    head: Node
    other: Node


def start_node(*options: str) -> Node:
    command = [str(RAY), "start", "--block", "--num-cpus", "1", "--disable-usage-stats", *options]
    return Node(subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))


@pytest.fixture
def cluster() -> Iterator[TwoNodes]:
    port = free_port()
    address = f"127.0.0.1:{port}"
    with socket.socket() as held:
        held.bind(("127.0.0.1", port))
        client = free_port()
    head = start_node("--head", f"--port={port}", f"--ray-client-server-port={client}", "--include-dashboard=false")
    wait_for(port, head)
    other = start_node(f"--address={address}")
    wait_for(client, head)
    wait_for_nodes(address, 2)
    yield TwoNodes(address, f"ray://127.0.0.1:{client}", head, other)
    for node in (other, head):
        node.kill()


def wait_for(port: int, node: Node) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        assert node.process.poll() is None, "ray start ended"
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.1)
    raise AssertionError(f"nothing answers at {port}")


def wait_for_nodes(address: str, count: int) -> None:
    text = f"import ray; ray.init({address!r}, log_to_driver=False); print('nodes', len(ray.nodes()))"
    command = [sys.executable, "-c", text]
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        process = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False)
        if f"nodes {count}" in process.stdout:
            return
    raise AssertionError("the nodes did not come up")


def sweep(config: str, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "harness", "sweep", config, *options]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def sheet(folder: ResultFolder) -> dict[str, dict[str, Any]]:
    """Figures of the sheet Runs, by run: what does not depend on when and where."""
    rows = list(load_workbook(folder.workbook)["Runs"].iter_rows(values_only=True))
    header = next(i for i, row in enumerate(rows) if row[1] is not None)
    runs = [dict(zip(rows[header], row, strict=True)) for row in rows[header + 1 :]]
    names = [n for n in rows[header] if str(n).endswith(("F1", "accuracy", "AUROC", "F1Score", "F1Max"))]
    assert names
    return {run["run"]: {name: run[name] for name in (*names, "status")} for run in runs}


# Four trainings for two nodes: whenever one dies, it is in the middle of something.
FOUR = LONG.replace("[5.0e-3, 1.0e-3]", "[5.0e-3, 3.0e-3, 2.0e-3, 1.0e-3]")


def wait_for_trainings(process: subprocess.Popen[str], name: str) -> None:
    """Until two nodes are in the middle of one each."""
    reached = work_folder() / home_of(Path("results") / name) / ".unfinished"
    while len(list(reached.glob("*/fold0/last.ckpt"))) < 2:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_node_that_dies_costs_a_retry_and_nothing_else(cluster: TwoNodes) -> None:
    for name in ("there", "here"):
        Path(f"{name}.yaml").write_text(CONFIG.format(name=name))
    options = (FOUR, "trainer.max_epochs=16")
    process = sweep("there.yaml", *options, "--launcher", "ray", "--address", cluster.address)
    wait_for_trainings(process, "there")
    cluster.other.kill()
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "a task was lost with its worker or node" in output
    assert "1 of its runs are tried again" in output
    local = sweep("here.yaml", *options)
    output, _ = local.communicate()
    assert local.returncode == 0, output
    there, here = (ResultFolder(Path("results") / name) for name in ("there", "here"))
    assert sorted(r.run_id for r in there.records()) == sorted(r.run_id for r in here.records())
    assert len(there.records()) == 4
    assert sheet(there) == sheet(here)
    assert not list((there.root / ".work").iterdir())


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_sweep_killed_and_started_again_goes_on(cluster: TwoNodes) -> None:
    Path("cut.yaml").write_text(CONFIG.format(name="cut"))
    command = ("cut.yaml", FOUR, "trainer.max_epochs=16", "--launcher", "ray", "--address", cluster.address)
    process = sweep(*command)
    wait_for_trainings(process, "cut")
    process.kill()
    process.communicate()
    assert len(ResultFolder(Path("results/cut")).records()) < 4
    again = sweep(*command)
    output, _ = again.communicate()
    assert again.returncode == 0, output
    records = ResultFolder(Path("results/cut")).records()
    assert [record.status for record in records] == ["ok"] * 4
    assert any(record.folds[0]["resumed_after_epoch"] for record in records)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_images_are_shipped_through_rays_client(cluster: TwoNodes, toy_tree: Path) -> None:
    for name in ("there", "here"):
        write_config(Path(f"{name}.yaml"), GRID.format(name=name, root=toy_tree))
    process = sweep("there.yaml", "--launcher", "ray", "--address", cluster.client, "--ship-data")
    output, _ = process.communicate()
    assert process.returncode == 0, output
    shipped = list((work_folder() / "data").glob("*"))
    assert shipped
    output, _ = sweep("here.yaml").communicate()
    there, here = (ResultFolder(Path("results") / name) for name in ("there", "here"))
    assert sheet(there).keys() == sheet(here).keys()
    for run, figures in sheet(there).items():
        assert figures == pytest.approx(sheet(here)[run], abs=1e-3)
    # A sweep that asks for more than there is ends at once.
    process = sweep("there.yaml", "--fresh", "--launcher", "ray", "--address", cluster.address, "--cpus-per-job", "64")
    output, _ = process.communicate()
    assert process.returncode == 2
    assert "a job needs 64 CPUs, but the nodes have 1 CPUs" in output.replace("\n", " ")


@pytest.mark.slow
def test_without_an_address_a_cluster_of_this_machine_is_started(toy_tree: Path) -> None:
    write_config(Path("own.yaml"), GRID.format(name="own", root=toy_tree))
    process = sweep("own.yaml", "--launcher", "ray")
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert [record.status for record in ResultFolder(Path("results/own")).records()] == ["ok"] * 3


@pytest.mark.slow
def test_an_address_that_is_no_cluster_is_refused(cli: Cli, toy_tree: Path) -> None:
    config = write_config(Path("c.yaml"), GRID.format(name="x", root=toy_tree))
    result = cli("sweep", config, "--launcher", "ray", "--address", f"127.0.0.1:{free_port()}")
    assert result.exit_code == 2
    assert "no server answers at 127.0.0.1" in result.output
    result = cli("sweep", config, "--launcher", "ray", "--address", "somewhere")
    assert "expected auto, host:port or ray://host:port" in result.output
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        process = sweep("c.yaml", "--launcher", "ray", "--address", f"127.0.0.1:{deaf.getsockname()[1]}")
        output, _ = process.communicate()
        assert process.returncode == 2, output
        assert "could not be reached" in output
        process = sweep("c.yaml", "--launcher", "ray", "--address", f"ray://127.0.0.1:{deaf.getsockname()[1]}")
        output, _ = process.communicate()
    assert process.returncode == 2, output
    assert "could not be reached" in output
    assert not ResultFolder(Path("results/x")).records()


@pytest.mark.slow
def test_without_ray_it_is_said_how_to_install_it(toy_tree: Path) -> None:
    write_config(Path("c.yaml"), GRID.format(name="x", root=toy_tree))
    Path("s.yaml").write_text(Path("c.yaml").read_text().split("grid:", maxsplit=1)[0])
    space = "{backend: native, model: padim, n_features: {randint: [5, 9]}}"
    for missing, arguments, package in (
        ("ray", ("sweep", "c.yaml", "--launcher", "ray"), "Ray"),
        ("ray", ("tune", "s.yaml", f"search.space={space}"), "Ray"),
        ("optuna", ("tune", "s.yaml", f"search.space={space}"), "optuna"),
    ):
        text = f"import sys; sys.modules[{missing!r}] = None; from harness.cli.main import app; app()"
        process = subprocess.run([sys.executable, "-c", text, *arguments], capture_output=True, text=True, check=False)
        assert process.returncode == 2
        assert f"needs {package}, which is not installed; pip install 'harness[ray]'" in process.stderr


class Messages(list[Any]):
    """A queue that keeps what is put into it."""

    put = list.append


def test_a_job_names_what_a_node_can_not_read_and_takes_what_is_shipped(toy_tree: Path, tmp_path: Path) -> None:
    import shutil

    tree = Path(shutil.copytree(toy_tree, tmp_path / "data"))
    prepared = prepare(load_config(write_config(Path("c.yaml"), GRID.format(name="x", root=tree)), []))
    job = Job(prepared.config, prepared.runs[:1], "key")
    contents = read_files(files_of(job.runs[0].split))
    shutil.rmtree(tree)
    messages = Messages()
    with pytest.raises(DataError, match=rf"node {socket.gethostname()}: no file found at .*data.*or use --ship-data"):
        run_job(7, job, messages, "test-home", str(tmp_path))
    assert not messages
    run_job(7, job, messages, "test-home", str(tmp_path), contents)
    (record_message,) = [message for message in messages if message[0] == "record"]
    assert record_message[1] == 7
    record: RunRecord = record_message[2]
    assert record.status == "ok", record.error
    assert record.data["root"] == str(tree / "plate")
    unpack(record_message[3], tmp_path / "came")
    assert (tmp_path / "came" / "scores.csv").is_file()
    assert record.run_id == job.runs[0].run_id
    shutil.rmtree(work_folder() / "test-home")


def test_nothing_that_a_node_sends_lies_outside_its_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "heatmaps").mkdir(parents=True)
    (folder / "heatmaps" / "0.png").write_bytes(b"picture")
    (folder / "record.json").write_text("{}")
    unpack(pack(folder), tmp_path / "came")
    assert (tmp_path / "came" / "heatmaps" / "0.png").read_bytes() == b"picture"
    assert (tmp_path / "came" / "record.json").read_text() == "{}"
    for name in ("../elsewhere", "/elsewhere", "heatmaps/../../elsewhere"):
        with pytest.raises(StoreError, match="a node sent a file for"):
            unpack({name: b""}, tmp_path / "came")
    assert not (tmp_path / "elsewhere").exists()

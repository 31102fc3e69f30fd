"""Worker processes: the same records, and what happens when processes die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.common import threads
from harness.common.threads import VARIABLES
from harness.execution.launchers.options import LaunchOptions
from harness.execution.launchers.processes import VISIBLE, environment
from harness.execution.launchers.spread import spread
from harness.results.store import ResultFolder
from tests.classified import CONFIG
from tests.conftest import Cli, write_config

GRID = """
name: {name}
data: {{kind: mvtec, root: {root}, val: 0.25}}
weights: random
device: cpu
latency: false
save_models: best
grid:
  - {{backend: native, model: patchcore, backbone: resnet18, layers: layer2, image_size: 64, num_neighbors: [1, 3]}}
  - {{backend: native, model: padim, backbone: resnet18, layers: layer1, n_features: 20, image_size: 96}}
"""


@pytest.mark.slow
def test_workers_make_the_same_records_as_one_process(cli: Cli, toy_tree: Path) -> None:
    folders = {}
    for name, options in (("one", ()), ("two", ("--launcher", "local", "--jobs", 2))):
        result = cli("sweep", write_config(Path("c.yaml"), GRID.format(name=name, root=toy_tree)), *options)
        assert result.exit_code == 0, result.output
        folders[name] = ResultFolder(Path("results") / name)
    one, two = ({record.run_id: record for record in folder.records()} for folder in folders.values())
    assert set(one) == set(two)
    assert len(one) == 3
    assert {record.device for record in two.values()} == {f"cpu, {threads.shared(2)['OMP_NUM_THREADS']} threads"}
    for run_id, record in one.items():
        # Other numbers of threads sum up in another order.
        for name, value in record.metrics.items():
            assert two[run_id].metrics[name] == pytest.approx(value, abs=1e-3), (run_id, name)
        files = [
            sorted(p.name for p in folders[n].run_folder(run_id).rglob("*") if "model" not in p.name) for n in folders
        ]
        assert files[0] == files[1]
    kept = [[r for r in runs if folders[name].model_file(r)] for name, runs in (("one", one), ("two", two))]
    assert len(kept[0]) == len(kept[1]) == 1
    assert not list((folders["two"].root / ".work").iterdir())


def test_cores_are_divided_and_gpus_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 8)
    monkeypatch.setattr(threads, "count", lambda: 8)
    assert {environment(place, 3, [])[name] for place in range(3) for name in VARIABLES} == {"2"}
    assert environment(0, 20, [])["OMP_NUM_THREADS"] == "1"
    assert VISIBLE not in environment(0, 2, [])
    assert [environment(place, 3, ["4", "GPU-5f"])[VISIBLE] for place in range(3)] == ["4", "GPU-5f", "4"]
    for requested, share in ((3, "3"), (8, "4")):
        monkeypatch.setattr(threads, "count", lambda number=requested: number)
        # A worker never gets more than its share, and never more than the user asked for.
        assert {environment(0, 2, [])[name] for name in VARIABLES} == {share}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--jobs", 2), "--jobs: 2 found, but runs are made in this process; expected --launcher local"),
        (("--launcher", "locl"), "Did you mean 'local'"),
        (("--launcher", "local", "--jobs", 0), "'--jobs'"),
    ],
)
def test_options_that_make_no_sense_are_refused(cli: Cli, toy_tree: Path, options: tuple[Any, ...], words: str) -> None:
    result = cli("sweep", write_config(Path("c.yaml"), GRID.format(name="x", root=toy_tree)), *options)
    assert result.exit_code == 2
    assert words in result.output
    assert not Path("results").exists()


def test_groups_are_split_where_they_share_least_and_only_for_idle_workers() -> None:
    def levels(name: str) -> tuple[str, ...]:
        return tuple(name.split("/"))

    one = ["a/0", "a/1", "b/0", "b/1", "c/0", "d/0"]
    assert spread([one], 1, levels) == [one]
    # Members that share their first level stay together as long as there are others to part.
    assert spread([one], 2, levels) == [["a/0", "a/1", "c/0"], ["b/0", "b/1", "d/0"]]
    assert spread([one], 4, levels) == [["a/0", "a/1"], ["b/0", "b/1"], ["c/0"], ["d/0"]]
    assert len(spread([one], 6, levels)) == 6
    assert spread([["a/0"] * 3], 5, levels) == [["a/0"] * 3]
    assert spread([["x/0", "x/1"], one], 3, levels)[0] == ["x/0", "x/1"]


def test_this_process_is_the_default() -> None:
    assert LaunchOptions().launcher == "here"
    LaunchOptions().check()


# ---- processes that die

LONG = "grid=[{model: baseline, backbone: test_resnet, image_size: 32, lr: [5.0e-3, 1.0e-3]}]"


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a sweep of two long trainings in two workers."""
    processes: list[subprocess.Popen[str]] = []

    def start(name: str, *options: str) -> subprocess.Popen[str]:
        Path("c.yaml").write_text(CONFIG.format(name=name))
        command = [sys.executable, "-m", "harness", "sweep", "c.yaml", LONG, "trainer.max_epochs=40"]
        command += ["--launcher", "local", "--jobs", "2", *options]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        return processes[-1]

    yield start
    for process in processes:
        for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []:
            child.kill()
        process.kill()
        process.wait()


def under_way(name: str, process: subprocess.Popen[str], trainings: int = 2) -> list[psutil.Process]:
    """Waits until both workers are in the middle of a training; gives them."""
    while len(list(Path(f"results/{name}/.unfinished").glob("*/fold0/last.ckpt"))) < trainings:
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        time.sleep(0.02)
    return workers(process)


def workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    # The other child is Python's own tracker of what processes share.
    return [p for p in psutil.Process(process.pid).children() if "spawn_main" in " ".join(p.cmdline())]


@pytest.mark.slow
def test_a_worker_that_dies_costs_a_retry_and_nothing_else(started: Callable[..., subprocess.Popen[str]]) -> None:
    process = started("retried")
    victims = under_way("retried", process)
    assert len(victims) == 2
    victims[0].kill()
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "a worker process was killed by SIGKILL (out of memory, perhaps); 1 of its runs are tried again" in output
    records = ResultFolder(Path("results/retried")).records()
    assert [record.status for record in records] == ["ok", "ok"]
    assert sum(bool(fold["resumed_after_epoch"]) for record in records for fold in record.folds) == 1


@pytest.mark.slow
def test_runs_whose_workers_die_too_often_are_failures_that_say_so(
    started: Callable[..., subprocess.Popen[str]],
) -> None:
    process = started("lost", "--retries", "0")
    under_way("lost", process)[0].kill()
    output, _ = process.communicate()
    assert process.returncode == 1, output
    records = ResultFolder(Path("results/lost")).records()
    assert sorted(record.status for record in records) == ["failed", "ok"]
    (lost,) = [record for record in records if record.error]
    assert lost.error is not None
    assert lost.error["type"] == "WorkerLostError"
    assert "killed by SIGKILL (out of memory, perhaps); number of attempts: 1" in lost.error["message"]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_the_sweep_stopped_or_killed_leaves_no_worker_and_goes_on(
    started: Callable[..., subprocess.Popen[str]], how: signal.Signals
) -> None:
    process = started("stopped")
    there = under_way("stopped", process)
    os.kill(process.pid, how)
    output, _ = process.communicate()
    assert process.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL), output
    _, alive = psutil.wait_procs(there, timeout=20)
    assert not alive
    assert not ResultFolder(Path("results/stopped")).records()
    again = started("stopped")
    output, _ = again.communicate()
    assert again.returncode == 0, output
    records = ResultFolder(Path("results/stopped")).records()
    assert [record.status for record in records] == ["ok", "ok"]
    assert all(record.folds[0]["resumed_after_epoch"] for record in records)

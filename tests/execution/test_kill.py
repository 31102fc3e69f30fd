"""kill -9 at any moment loses at most the run under way. The real Engine, real processes, real signals."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from openpyxl import load_workbook

from harness.results.store import ResultFolder
from tests.conftest import write_config

TEXT = """
name: killed
data: {{kind: mvtec, root: {root}}}
weights: random
device: cpu
latency: false
grid:
  - {{backend: native, model: patchcore, backbone: resnet18, layers: [layer3], image_size: 64, bank: merge_reduce}}
  - {{model: patchcore, backbone: resnet18, layers: [[layer2], [layer3]], image_size: 64, num_neighbors: [1, 2]}}
  - {{model: padim, backbone: resnet18, layers: [layer1], n_features: [10, 20], image_size: 64}}
"""
TIMES = ("fit_seconds", "test_seconds", "alone_seconds", "spent_seconds", "total_seconds", "ms_per_image_p50",
         "ms_per_image_p95", "images_per_second", "peak_memory_MB")  # fmt: skip


def start(config: Path, output: str, **options: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "harness", "sweep", str(config), "--output", output]
    return subprocess.Popen(command, **options)  # type: ignore[call-overload,no-any-return]


def rows(output: str) -> list[tuple[object, ...]]:
    """The Runs sheet, times aside."""
    header, *values = load_workbook(f"{output}/killed/models_comparing.xlsx")["Runs"].iter_rows(values_only=True)
    keep = [index for index, name in enumerate(header) if name not in TIMES]
    return [tuple(row[index] for index in keep) for row in (header, *values)]


def wait_for(condition, process: subprocess.Popen[bytes]) -> None:
    while not condition():
        assert process.poll() is None, "the sweep ended before it could be killed"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, toy_tree: Path) -> list[tuple[object, ...]]:
    """The Runs sheet of a sweep that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    config = write_config(folder / "k.yaml", TEXT.format(root=toy_tree))
    assert start(config, str(folder), cwd=folder, env={**os.environ, "HF_HUB_OFFLINE": "1"}).wait() == 0
    return rows(str(folder))


@pytest.mark.slow
def test_a_resumed_sweep_equals_an_undisturbed_one(
    tmp_path: Path, toy_tree: Path, whole: list[tuple[object, ...]]
) -> None:
    config = write_config(tmp_path / "k.yaml", TEXT.format(root=toy_tree))
    runs = Path("cut/killed/runs")
    work = Path("cut/killed/.work")
    moments = {
        "while a run is fitted": lambda: work.is_dir() and any(work.glob("*/scratch")),
        "right after the first record": lambda: len(list(runs.glob("*/record.json"))) >= 1,
        "while files are gathered": lambda: len(list(runs.glob("*/record.json"))) >= 2 and any(work.glob("*/run/*")),
    }
    finished = 0
    for condition in moments.values():
        process = start(config, "cut")
        wait_for(condition, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        records = ResultFolder(Path("cut/killed")).records()
        assert len(records) >= finished
        assert all(record.status == "ok" for record in records)
        finished = len(records)
    assert finished < 7
    assert start(config, "cut").wait() == 0
    assert rows("cut") == whole
    assert not any(work.iterdir())


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_stops_cleanly(tmp_path: Path, toy_tree: Path) -> None:
    """In a real terminal: the bar is drawn, Ctrl-C leaves the workbook, the exit status is 130."""
    config = write_config(tmp_path / "k.yaml", TEXT.format(root=toy_tree))
    leader, follower = pty.openpty()
    process = start(config, "out", stdin=follower, stdout=follower, stderr=follower, start_new_session=True)
    os.close(follower)
    shown = b""
    while b"[2/7]" not in shown:
        shown += os.read(leader, 4096)
    process.send_signal(signal.SIGINT)
    while True:
        try:
            part = os.read(leader, 4096)
        except OSError:
            break
        if not part:
            break
        shown += part
    assert process.wait() == 130
    assert b"The same command continues from here" in shown
    assert "━".encode() in shown
    assert b"Traceback" not in shown
    assert 2 <= len(rows("out")) - 1 < 7


@pytest.mark.slow
def test_kills_at_many_moments(tmp_path: Path, toy_tree: Path, whole: list[tuple[object, ...]]) -> None:
    """Killed after some seconds, further on each time, until it is done."""
    config = write_config(tmp_path / "k.yaml", TEXT.format(root=toy_tree))
    for step in range(60):
        process = start(config, "cut")
        try:
            process.wait(timeout=4 + 3 * step)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            workbook = Path("cut/killed/models_comparing.xlsx")
            if workbook.exists():
                load_workbook(workbook)
            continue
        break
    assert process.returncode == 0
    assert rows("cut") == whole

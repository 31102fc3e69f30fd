"""What a run costs: measured alike on both backends, and told in the record."""

from __future__ import annotations

import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import numpy as np
import psutil
import pytest

from harness.backends import cost
from harness.backends.cost import (
    FOR_P95,
    IMAGES,
    LEAST,
    WARM_UP,
    PeakMemory,
    Timing,
    _OtherLoad,
    latency,
    some,
    times,
)
from harness.common.devices import Device
from harness.data.base import Sample
from harness.results.record import RunRecord
from harness.results.store import ResultFolder
from tests.conftest import Cli

CPU = Device("cpu", 0, "cpu")
CONFIG = """
data: {{kind: mvtec, root: {root}}}
weights: random
save_models: all
latency: {latency}
grid: {{backend: [anomalib, native], model: [patchcore, padim], backbone: resnet18, layers: [layer1, layer2],
       coreset_sampling_ratio: 0.1, n_features: 10, image_size: 64}}
"""


def swept(cli: Cli, tmp_path: Path, tree: Path, latency: str) -> list[RunRecord]:
    config = tmp_path / "cost.yaml"
    config.write_text(CONFIG.format(root=tree, latency=latency))
    found = cli("sweep", config)
    assert found.exit_code == 0, found.output
    return ResultFolder(Path("results/cost")).records()


def test_every_run_tells_its_cost(cli: Cli, tmp_path: Path, toy_tree: Path) -> None:
    records = swept(cli, tmp_path, toy_tree, "true")
    assert len(records) == 4
    for record in records:
        found = {name: value or 0 for name, value in record.cost.items()}
        assert 0 < found["seconds_p50"] < 10
        assert LEAST <= found["timed_images"] <= IMAGES
        # On a busy machine fewer are timed, and nothing is said of the slowest of them.
        assert (record.cost["seconds_p95"] is None) == (found["timed_images"] < FOR_P95)
        assert found["images_per_second"] > 0
        # A process with Torch in it, and less than any machine that runs these tests.
        assert 200e6 < found["peak_memory"] < 16e9
        model = ResultFolder(Path("results/cost")).model_file(record.run_id)
        assert model is not None
        # The file has names, shapes and hyperparameters beside the tensors.
        assert found["model_size"] <= model.stat().st_size <= 1.1 * found["model_size"] + 100_000


def test_single_images_are_not_timed_where_that_is_not_wanted(cli: Cli, tmp_path: Path, toy_tree: Path) -> None:
    for record in swept(cli, tmp_path, toy_tree, "false"):
        assert "seconds_p50" not in record.cost
        assert record.cost["images_per_second"]


def clock(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Every look at the clock is so much later than the one before."""
    ticks = count()
    monkeypatch.setattr(cost.time, "perf_counter", lambda: seconds * next(ticks))


def test_fast_work_is_timed_often_and_slow_work_at_least_some_times(monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds, expected in ((1e-6, IMAGES), (10.0, LEAST)):
        clock(monkeypatch, seconds)
        seen: list[int] = []
        found = times(seen.append, [1, 2], CPU)
        assert found.seconds == pytest.approx([seconds] * expected)
        assert len(seen) == expected + WARM_UP
        assert seen[:3] == [1, 2, 1]


def test_latency_is_median_and_95th_percentile() -> None:
    assert latency([0.1] * 19 + [0.3]) == pytest.approx({"seconds_p50": 0.1, "seconds_p95": 0.11, "timed_images": 20})
    assert latency([0.1] * (FOR_P95 - 1))["seconds_p95"] is None


def test_some_samples_are_spread_over_all() -> None:
    samples = [Sample(str(i), str(i), 0, "good") for i in range(100)]
    assert [one.name for one in some(samples, 3)] == ["0", "50", "99"]
    assert some(samples[:2], 20) == samples[:2]


@pytest.mark.skipif(not cost.RESET_PEAK.exists(), reason="needs Linux: /proc/self/clear_refs")
def test_peak_memory_is_that_since_it_was_asked_for() -> None:
    large = np.ones(300_000_000, dtype=np.uint8)
    del large
    peak = PeakMemory(CPU)
    before = peak.cost()["peak_memory"]
    held = np.ones(100_000_000, dtype=np.uint8)
    after = peak.cost()["peak_memory"]
    assert before is not None
    assert after is not None
    assert 90e6 < after - before < 200e6
    assert len(held) == 100_000_000


def test_a_busy_machine_is_said() -> None:
    assert Timing([0.1], 0.2).warnings() == []
    assert Timing([0.1], 0.45).warnings() == [
        "latency: other programs kept 45% of the machine busy while single images were timed; the times are too long"
    ]


def test_what_this_process_does_itself_keeps_nobody_busy() -> None:
    """Another process that computes is seen; one's own work is not."""
    cores = psutil.cpu_count() or 1
    others = _OtherLoad()
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        sum(range(1000))
    standalone_seconds = others.share()
    others = _OtherLoad()
    # Until it is told to end.
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        time.sleep(1.5)
        beside = others.share()
        busy.kill()
    assert 0 <= standalone_seconds <= 1
    assert beside >= 0.5 / cores

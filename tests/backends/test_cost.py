"""What a run costs: measured alike on both backends, and told in the record."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.backends import cost
from harness.backends.latency import BUSY, FOR_P95, IMAGES, LEAST, THREADS
from harness.results.record import RunRecord
from harness.results.store import ResultFolder
from tests.conftest import Cli

HOLDS_ONE = """
import numpy as np
from harness.backends.cost import PeakMemory
from harness.common.devices import Device

large = np.ones(300_000_000, dtype=np.uint8)
del large
peak = PeakMemory(Device("cpu", 0, "cpu"))
before = peak.cost()["peak_memory"]
held = np.ones(100_000_000, dtype=np.uint8)
print(peak.cost()["peak_memory"] - before)
"""
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
    result = cli("sweep", config)
    assert result.exit_code == 0, result.output
    return ResultFolder(Path("results/cost")).records()


@pytest.mark.slow
def test_every_run_tells_its_cost(cli: Cli, tmp_path: Path, toy_tree: Path) -> None:
    records = swept(cli, tmp_path, toy_tree, "true")
    assert len(records) == 4
    for record in records:
        cost = {name: value or 0 for name, value in record.cost.items()}
        assert 0 < cost["seconds_p50"] < 10
        assert cost[THREADS] >= 1
        assert record.cost[BUSY] in {True, False}
        assert LEAST <= cost["timed_images"] <= IMAGES
        # On a busy machine fewer are timed, and nothing is said of the slowest of them.
        assert (record.cost["seconds_p95"] is None) == (cost["timed_images"] < FOR_P95)
        assert cost["images_per_second"] > 0
        # A process with Torch in it, and less than any machine that runs these tests.
        assert 200e6 < cost["peak_memory"] < 16e9
        model = ResultFolder(Path("results/cost")).model_file(record.run_id)
        assert model is not None
        # The file has names, shapes and hyperparameters beside the tensors.
        assert cost["model_size"] <= model.stat().st_size <= 1.1 * cost["model_size"] + 100_000


@pytest.mark.slow
def test_single_images_are_not_timed_where_that_is_not_wanted(cli: Cli, tmp_path: Path, toy_tree: Path) -> None:
    for record in swept(cli, tmp_path, toy_tree, "false"):
        assert "seconds_p50" not in record.cost
        assert record.cost["images_per_second"]


@pytest.mark.skipif(not cost.RESET_PEAK.exists(), reason="needs Linux: /proc/self/clear_refs")
@pytest.mark.slow
def test_peak_memory_is_that_since_it_was_asked_for() -> None:
    # In a new process: what earlier tests left to the allocator would take the new array without a new peak.
    grown = subprocess.run([sys.executable, "-c", HOLDS_ONE], capture_output=True, text=True, check=True).stdout
    assert 90e6 < float(grown) < 200e6

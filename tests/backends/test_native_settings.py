"""Grids and settings of native runs: what a plan accepts, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.common.errors import ConfigError
from harness.config.load import load_config, one_run
from harness.planning.prepare import prepare
from harness.report.comparisons import backends_table
from harness.report.results import Results
from harness.results.record import RunRecord
from harness.results.store import ResultFolder
from tests.backends.native_runs import (
    COMMON,
    GRID,
    config_file,
)
from tests.conftest import ROOT, Cli


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        ("model: spdae", "grid.model: unknown native model 'spdae'. Did you mean 'spade'?"),
        ("model: spade, n_neighbors: 3", "spade has no such parameter. Did you mean 'num_neighbors'?"),
        ("model: patchcore, layers: [layer2], coreset_sampling_ratio: 0.00001", "leaves an empty coreset"),
        ("model: patchcore, layers: [layer2], coreset_sampling_ratio: 0.01, num_neighbors: 99", "found 99, expected"),
        ("model: padim, n_features: many", "n_features: found 'many', expected a whole number"),
        ("model: padim, n_features: 50.5", "n_features: found 50.5, expected a whole number"),
        ("model: padim, center_crop: 50.5", "center_crop: found 50.5, expected pixels"),
        ("model: padim, center_crop: true", "center_crop: found True, expected pixels"),
        ("model: cflow, lr: 0", "lr: found 0.0, expected a number above 0"),
        ("model: patchcore, layers: [layer22]", "has no layer 'layer22'. Did you mean 'layer2'?"),
        ("model: padim, layers: [layer1], n_features: 65", "found 65 of resnet18 layer1; expected 1 to 64"),
        ("model: padim, precision: int8", "precision: found 'int8', expected fp32, bf16, fp16"),
        ("model: padim, center_crop: 300", "center_crop: found (300, 300), expected at most"),
        ("model: padim, backbone: vit_tiny_patch16_224, layers: [blocks.1], image_size: 100, n_features: 5",
         "expected multiples of 16, the patch size of vit_tiny_patch16_224, such as 96"),
        ("model: cflow, max_epochs: 0", "max_epochs: found 0"),
        ("model: padim, coreset: exact", "padim has no such parameter"),
    ],
)  # fmt: skip
def test_bad_grids_are_refused_whole(grid: str, expected: str, tmp_path: Path, toy_tree: Path, cli: Cli) -> None:
    backbone = "" if "backbone" in grid else "backbone: resnet18, "
    path = config_file(tmp_path, toy_tree, f"{{backend: native, {backbone}{grid}}}")
    result = cli("sweep", path, "--output", tmp_path / "out")
    assert result.exit_code == 2
    assert expected in result.stderr, result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("cache_limit: much", "expected bytes, as a number or a text such as 20 GB; found 'much'"),
        ("memory_limit: -1", "memory_limit"),
        ("trainer: {gradient_clip_val: 1}", "trainer.gradient_clip_val: found, but no run is trained by"),
    ],
)
def test_bad_settings_are_refused(line: str, expected: str, tmp_path: Path, toy_tree: Path) -> None:
    grid = f"{{{COMMON}, model: padim, layers: [layer2], n_features: 5}}"
    with pytest.raises(ConfigError, match=expected.replace("(", r"\(")):
        prepare(load_config(config_file(tmp_path, toy_tree, grid, line)))


def test_a_crop_of_two_sides_and_a_precision_are_axes(tmp_path: Path, toy_tree: Path, cli: Cli) -> None:
    grid = (
        f"{{{COMMON}, model: padim, layers: [layer2], n_features: 5, center_crop: [[40, 48]], precision: [fp32, bf16]}}"
    )
    path = config_file(tmp_path, toy_tree, grid)
    result = cli("sweep", path, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "2/2" in result.output


def test_options_of_a_run_are_taken_as_they_are(tmp_path: Path) -> None:
    options = {"output": "runs #3", "weights": "a: b", "backbone": "resnet18"}
    config = one_run("spade", "native", tmp_path, options, [])
    assert (config.output, config.weights) == ("runs #3", "a: b")
    assert config.grid[0]["backbone"] == ["resnet18"]
    assert one_run("spade", "native", tmp_path, {"output": "2024"}, []).output == "2024"


def test_pairs_differ_in_their_backend_only() -> None:
    def record(backend: str, trainer: dict[str, Any], **params: Any) -> RunRecord:
        same = {"model": "cflow", "backbone": "r", "layers": ["a"], "image_size": None, "seed": 0, "data_kind": "toy"}
        spec = {**same, "backend": backend, "category": "", "threshold": {}, "params": params, "trainer": trainer}
        data = {"fingerprint": "f", "root": "x", "kind": "toy"}
        return RunRecord(backend + str(params), "ok", spec, list(params), data)

    theirs = record("anomalib", {"max_epochs": 2}, lr=1.0)
    ours = {"lr": 1.0, "max_epochs": 2, "precision": "fp32", "upsampling": "nearest"}

    def results(*records: RunRecord) -> Results:
        return Results(ResultFolder(Path("nowhere")), records)

    assert len(backends_table(results(theirs, record("native", {}, **ours)))) == 1
    others = {"max_epochs": 3, "precision": "bf16", "upsampling": "bilinear", "center_crop": 9, "lr": 2.0}
    for key, value in others.items():
        assert backends_table(results(theirs, record("native", {}, **{**ours, key: value}))).empty, key


def test_sizes_are_read_as_people_write_them(tmp_path: Path, toy_tree: Path) -> None:
    config = load_config(config_file(tmp_path, toy_tree, more="cache_limit: 1.5 GB\nmemory_limit: 2GiB"))
    assert (config.cache_limit, config.memory_limit) == (1_500_000_000, 2 * 2**30)


def test_epochs_come_from_the_trainer_block_unless_an_axis_says_otherwise(tmp_path: Path, toy_tree: Path) -> None:
    def epochs(more: str) -> list[Any]:
        grid = f"{{{COMMON}, model: cflow, layers: [layer3]{more}}}"
        runs = prepare(load_config(config_file(tmp_path, toy_tree, grid, "trainer: {max_epochs: 7}"))).runs
        assert all(run.spec.trainer == () for run in runs)
        return [run.spec.parameters["max_epochs"] for run in runs]

    assert epochs("") == [7]
    assert epochs(", max_epochs: [1, 2]") == [1, 2]
    grid = "{backend: native, model: dinomaly, backbone: test_vit, image_size: 64}"
    config = config_file(tmp_path, toy_tree, grid, "trainer: {max_epochs: 7, max_steps: 30}")
    (run,) = prepare(load_config(config)).runs
    assert (run.spec.parameters["max_epochs"], run.spec.parameters["max_steps"]) == (7, 30)


def test_one_run_tells_its_own_keys_from_the_models(tmp_path: Path) -> None:
    config = one_run("spade", "native", tmp_path, {"weights": "random"}, ["num_neighbors=5", "seed=3", "data.val=0"])
    assert config.grid == [{"backend": ["native"], "model": ["spade"], "num_neighbors": [5]}]
    assert (config.seeds, config.data.val, config.weights) == ([3], 0, "random")
    with pytest.raises(ConfigError, match="expected key=value"):
        one_run("spade", "native", tmp_path, {}, ["num_neighbors"])


def test_planning_imports_no_torch_where_timm_need_not_be_asked(tmp_path: Path, toy_tree: Path) -> None:
    path = config_file(tmp_path, toy_tree, GRID.replace(COMMON, f"{COMMON}, normalization: imagenet"))
    code = (
        "import sys; from harness.cli.main import app\n"
        f"try: app(['plan', {str(path)!r}, '--no-check'])\n"
        "except SystemExit as end: assert end.code in (0, None), end.code\n"
        "assert not {'torch', 'numba', 'anomalib', 'timm'} & set(sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    assert process.returncode == 0, process.stderr

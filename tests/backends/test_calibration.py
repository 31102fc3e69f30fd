"""The images that fix the threshold of a native run, from the config to the terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import registry
from harness.backends.native import NativeBackend
from harness.results.scores import read_calibration
from harness.results.store import ResultFolder
from tests.conftest import Cli
from tests.networks import in_yaml, network

SMALL = {"n_features": 10, "num_neighbors": 1}
OUT_OF_FOLD = [name for name in registry.DETECTORS if NativeBackend().parameters(name).folds is not None]


@pytest.mark.parametrize("name", OUT_OF_FOLD)
def test_out_of_fold_scores_fix_the_threshold(name: str, cli: Cli, tmp_path: Path) -> None:
    """Without a held-out image; more folds than images become as many folds as images, and the record says so."""
    config = tmp_path / "c.yaml"
    parameters = NativeBackend().parameters(name).parameters
    axes = "".join(f", {key}: {value}" for key, value in SMALL.items() if key in parameters)
    config.write_text(
        "data: {kind: toy, category: plate, size: 64, train: 4, good: 2, bad: 1}\nweights: random\nlatency: false\n"
        f"grid: {{backend: native, model: {name}, {in_yaml(network(name, layers=['layer2']))}, image_size: 32{axes}}}\n"
    )
    result = cli("sweep", config)
    assert result.exit_code == 0, result.output
    (record,) = ResultFolder(Path("results/c")).records()
    assert (record.data["train"], record.data["val"]) == (4, 0)
    assert record.thresholds["fixed_by"] == "4 training images in 4 folds"
    assert (record.thresholds["false_alarms"], record.thresholds["guarantee"]) == (0.2, "estimated")
    assert "threshold.folds: 5 expected, 4 used: there are no more training images" in record.warnings
    calibration = read_calibration(Path("results/c/runs") / record.run_id)
    assert calibration is not None
    assert record.thresholds["image"] == calibration.scores.max()
    assert "A rate of 0.01 needs 99 images." in " ".join(result.output.split())


def test_a_fold_that_leaves_too_few_images(cli: Cli, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(
        "data: {kind: toy, category: plate, size: 64, train: 2, good: 2, bad: 1}\nweights: random\n"
        "grid: {backend: native, model: padim, backbone: resnet18, layers: [layer2], n_features: 10, image_size: 32}\n"
    )
    result = cli("sweep", config)
    text = " ".join(result.output.split())
    assert result.exit_code == 2
    assert "threshold.method: cross_conformal found, with 2 normal training images; the largest fold leaves 1" in text
    assert "for training, and padim expects 2 or more. Add images, or set threshold.method to none." in text
    assert not Path("results/c").exists()


@pytest.mark.parametrize("method", ["none", "{method: fixed, image: 1.0}", "held_out", "normal_quantile"])
def test_a_run_without_images_for_the_threshold(method: str, cli: Cli, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(
        "data: {kind: toy, category: plate, size: 64, train: 4, good: 2, bad: 1, val: 0}\nweights: random\n"
        f"latency: false\nthreshold: {method}\n"
        "grid: {backend: native, model: padim, backbone: resnet18, layers: [layer2], n_features: 10, image_size: 32}\n"
    )
    result = cli("sweep", config)
    assert result.exit_code == 0, result.output
    (record,) = ResultFolder(Path("results/c")).records()
    assert record.metrics["image_AUROC"] is not None
    assert record.thresholds["image"] == (1.0 if "fixed" in method else None)
    assert read_calibration(Path("results/c/runs") / record.run_id) is None

"""`import`: configurations of anomalib become ours, and everything without a counterpart is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from harness.config.load import load_config
from harness.planning.from_anomalib import from_anomalib
from tests.conftest import Cli

TRAIN = """
model:
  class_path: anomalib.models.Patchcore
  init_args:
    backbone: resnet18
    layers: [layer1, layer2]
    coreset_sampling_ratio: {grid: [0.1, 0.05]}
    pre_trained: false
    visualizer: true
    warp: 3
    pre_processor:
      class_path: anomalib.pre_processing.PreProcessor
      init_args:
        transform: {class_path: torchvision.transforms.v2.Resize, init_args: {size: [64, 96]}}
data:
  class_path: anomalib.data.MVTecAD
  init_args: {root: ROOT, category: plate, train_batch_size: 4, num_workers: 8, val_split_mode: same_as_test}
trainer: {accelerator: cpu, devices: 1, max_epochs: 1}
seed_everything: 7
default_root_dir: results
"""
BENCHMARK = """
accelerator: [cuda, cpu]
benchmark:
  seed: {grid: [1, 2]}
  model:
    class_path: {grid: [Padim, ReverseDistillation]}
    init_args: {layers: {grid: [[layer1, layer2], [layer2, layer3]]}}
  data:
    class_path: MVTecAD
    init_args: {category: {grid: [bottle, cable]}}
"""


def imported(text: str) -> tuple[dict[str, object], str]:
    Path("theirs.yaml").write_text(text)
    result = from_anomalib(Path("theirs.yaml"))
    return yaml.safe_load(result.text), " ".join(result.left_out)


def test_a_training_becomes_a_grid(tmp_path: Path) -> None:
    config, left_out = imported(TRAIN.replace("ROOT", str(tmp_path)))
    assert config == {
        "seed": 7,
        "data": {"kind": "mvtec", "root": str(tmp_path), "category": "plate", "train_batch_size": 4},
        "weights": "random",
        "device": "cpu",
        "trainer": {"max_epochs": 1},
        "grid": {
            "backend": "anomalib", "model": "patchcore", "backbone": "resnet18", "layers": ["layer1", "layer2"],
            "coreset_sampling_ratio": [0.1, 0.05], "image_size": [[64, 96]],
        },
    }  # fmt: skip
    for key in ("model.visualizer", "model.warp", "model.pre_processor", "data.num_workers", "data.val_split_mode",
                "trainer.devices", "default_root_dir"):  # fmt: skip
        assert f"{key}: " in left_out


def test_a_benchmark_becomes_a_grid() -> None:
    config, left_out = imported(BENCHMARK)
    assert config["seeds"] == [1, 2]
    assert config["data"] == {"kind": "mvtec", "category": ["bottle", "cable"], "root": "./datasets/MVTecAD"}
    assert config["grid"] == {
        "backend": "anomalib", "model": ["padim", "reversedistillation"],
        "layers": [["layer1", "layer2"], ["layer2", "layer3"]],
    }  # fmt: skip
    assert "accelerator: ['cuda', 'cpu']" in left_out
    assert "data.root: nothing found" in left_out


def test_folders_and_other_data() -> None:
    text = TRAIN.partition("data:")[0] + "data: {class_path: Folder, init_args: {name: a, root: r, normal_dir: good}}"
    config, _ = imported(text)
    assert config["data"] == {"kind": "folder", "name": "a", "root": "r", "normal_dir": "good"}
    config, left_out = imported(text.replace("class_path: Folder", "class_path: anomalib.data.BTech"))
    assert config["data"] == {"kind": "BTech", "name": "a", "root": "r", "normal_dir": "good"}
    assert "data." not in left_out


def test_the_new_file_runs(toy_tree: Path, cli: Cli) -> None:
    Path("theirs.yaml").write_text(TRAIN.replace("ROOT", str(toy_tree)))
    result = cli("import", "theirs.yaml", "--out", "ours.yaml")
    assert result.exit_code == 0, result.output
    assert "left out: model.warp: no such argument of patchcore" in " ".join(result.output.split())
    assert load_config(Path("ours.yaml")).data.train_batch_size == 4
    result = cli("plan", "ours.yaml")
    assert result.exit_code == 0, result.output
    assert "2 runs" in result.output
    assert cli("import", "theirs.yaml", "--out", "ours.yaml").exit_code == 2  # the file stays


def test_a_sweep_of_such_a_file_names_the_command(cli: Cli) -> None:
    for text in (TRAIN, BENCHMARK):
        Path("theirs.yaml").write_text(text)
        result = cli("sweep", "theirs.yaml")
        assert result.exit_code == 2
        assert "theirs.yaml: a configuration of anomalib found" in result.output
        assert "python -m harness import theirs.yaml" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: {kind: toy}\ngrid: {model: padim}", "no configuration of anomalib found"),
        ("model: Padime\ndata: MVTecAD", "unknown anomalib model 'Padime'. Did you mean 'padim'"),
        ("model: Padim\ndata: {init_args: {}}", "data.class_path: nothing found"),
        ("model: {class_path: Padim, init_args: 3}\ndata: MVTecAD", "model.init_args: 3 found; expected a mapping"),
        ("model: Padim\ndata: MVTecAD\ntrainer: 3", "trainer: 3 found; expected a mapping"),
        ("benchmark: {model: Padim, data: {class_path: {grid: [A, B]}}}", "data.class_path: A, B found; expected one"),
        ("model: Padim\ndata: ${nowhere}", "theirs.yaml: "),
    ],
)
def test_bad_files(cli: Cli, text: str, message: str) -> None:
    Path("theirs.yaml").write_text(text)
    result = cli("import", "theirs.yaml")
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())

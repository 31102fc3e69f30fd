"""A first config for images as they lie: read back, and run; nothing is overwritten."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.common.errors import ConfigError
from harness.config.first import samples, write_config
from harness.config.load import load_config
from harness.data.folder import FolderData
from harness.planning.prepare import prepare
from harness.results.store import ResultFolder
from tests.conftest import ROOT, Cli


def images(folder: Path, number: int, source: Path) -> None:
    folder.mkdir(parents=True)
    for index, path in enumerate(sorted(source.rglob("*.png"))[:number]):
        shutil.copy(path, folder / f"{index}.png")


def test_one_category_in_mvtecs_layout(cli: Cli, toy_tree: Path) -> None:
    shutil.copytree(toy_tree / "plate", "bottle caps")
    result = cli("init", "bottle caps")
    assert result.exit_code == 0, result.output
    assert "bottle-caps.yaml written for the images in bottle caps" in result.output
    assert "python -m harness sweep bottle-caps.yaml" in result.output
    text = Path("bottle-caps.yaml").read_text()
    title = "# One category of kind mvtec: bottle caps"
    assert text.startswith(f"{title}\n#\n#   python -m harness sweep bottle-caps.yaml")
    prepared = prepare(load_config(Path("bottle-caps.yaml")))
    assert len(prepared.runs) == 10
    assert {run.spec.image_size for run in prepared.runs} == {(64, 64)}


@pytest.mark.slow
def test_a_written_config_sweeps_on_real_features(cli: Cli, toy_tree: Path) -> None:
    cli("init", toy_tree)
    file = f"{toy_tree.name}.yaml"
    result = cli("sweep", file, "latency=false", "device=cpu", "save_models=none")
    assert result.exit_code == 0, result.output
    records = ResultFolder(Path("results") / toy_tree.name).records()
    assert {record.weights["source"] for record in records} == {"package"}
    assert {record.status for record in records} == {"ok"}


def test_several_categories(toy_tree: Path) -> None:
    for name in ("one", "two"):
        shutil.copytree(toy_tree / "plate", f"parts/{name}")
    file = write_config(Path("parts"))
    assert "# category: [one, two]" in file.read_text()
    assert load_config(file).data.categories(Path()) == ["one", "two"]


@pytest.mark.parametrize(
    ("normal", "bad", "masks", "expected"),
    [
        ("good", ["bent", "cut"], ["bent_masks", "cut_masks"], ["bent_masks", "cut_masks"]),
        ("OK", ["KO"], ["ground_truth/KO"], ["ground_truth/KO"]),
        ("normal", ["no"], [], None),
        ("Normal", [], [], None),
    ],
)
def test_folders(toy_tree: Path, normal: str, bad: list[str], masks: list[str], expected: list[str] | None) -> None:
    """Also names that YAML reads as something else than a name."""
    source = toy_tree / "plate" / "train"
    images(Path("shots") / normal, 6, source)
    for name in (*bad, *masks):
        images(Path("shots") / name, 2, source)
    config = load_config(write_config(Path("shots")))
    assert isinstance(config.data, FolderData)
    assert config.data.normal_dir == normal
    assert (config.data.abnormal_dir or []) == sorted(bad)
    assert config.data.mask_dir == expected
    if bad:
        assert len(prepare(config).runs) == 10


def test_names_that_mean_something_to_yaml(toy_tree: Path) -> None:
    strange = Path("a: ${b} #'\"ü")
    images(strange / "good", 6, toy_tree / "plate" / "train")
    images(strange / "yes", 2, toy_tree / "plate" / "train")
    config = load_config(write_config(strange))
    assert isinstance(config.data, FolderData)
    assert config.data.root == str(strange)
    assert config.data.abnormal_dir == ["yes"]


def test_what_is_no_folder_of_images_is_said(cli: Cli, toy_tree: Path) -> None:
    Path("empty").mkdir()
    Path("file").write_text("x")
    images(Path("flat"), 3, toy_tree)
    for name, part in (
        ("nowhere", "nothing found"),
        ("file", "a file found"),
        ("empty", "no images found"),
        ("flat", "3 images found, in an unknown layout"),
    ):
        result = cli("init", name)
        assert result.exit_code == 2
        assert part in result.output
    assert not list(Path().glob("*.yaml"))


def test_nothing_is_overwritten(cli: Cli, toy_tree: Path) -> None:
    shutil.copytree(toy_tree / "plate", "plate")
    Path("plate.yaml").write_text("mine")
    result = cli("init", "plate")
    assert result.exit_code == 2
    assert "plate.yaml: exists already" in result.output
    assert Path("plate.yaml").read_text() == "mine"
    Path("configs").mkdir()
    Path("configs/padim.yaml").write_text("mine")
    result = cli("init")
    assert result.exit_code == 2
    assert sorted(path.name for path in Path("configs").iterdir()) == ["padim.yaml"]


def test_samples_are_the_configs_of_the_repository(cli: Cli) -> None:
    result = cli("init")
    assert result.exit_code == 0, result.output
    ours = sorted(path.relative_to(ROOT) for path in (ROOT / "configs").rglob("*.yaml"))
    assert sorted(path for path in Path("configs").rglob("*.yaml")) == ours
    assert Path("configs/patchcore.yaml").read_text() == (samples() / "patchcore.yaml").read_text()


@pytest.mark.parametrize("name", ["123", "true", "1e3", "null", ".5", "a\nx: 1", "2024-05-01"])
def test_folders_whose_names_yaml_reads_as_something_else(toy_tree: Path, name: str) -> None:
    images(Path(name) / "good", 6, toy_tree / "plate" / "train")
    images(Path(name) / "cut", 2, toy_tree / "plate" / "train")
    config = load_config(write_config(Path(name)))
    assert isinstance(config.data, FolderData)
    assert config.data.root == name


def test_normal_test_images_are_no_defect(toy_tree: Path) -> None:
    for folder in ("good", "good_test", "scratch", "cut", "scratch_mask", "val"):
        images(Path("shots") / folder, 3, toy_tree / "plate" / "train")
    file = write_config(Path("shots"))
    config = load_config(file)
    assert isinstance(config.data, FolderData)
    assert config.data.normal_test_dir == "good_test"
    assert config.data.abnormal_dir == ["cut", "scratch"]
    assert config.data.mask_dir is None
    assert "there are no masks for cut" in file.read_text()


def test_a_dangling_link_is_not_replaced(toy_tree: Path) -> None:
    shutil.copytree(toy_tree / "plate", "plate")
    Path("plate.yaml").symlink_to("elsewhere.yaml")
    with pytest.raises(ConfigError, match="exists already"):
        write_config(Path("plate"))
    assert Path("plate.yaml").is_symlink()

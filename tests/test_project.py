"""The repository keeps its own promises."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import timm
import yaml
from safetensors.torch import save_file

from benchmarks import tables
from harness.backends.supervised import SupervisedBackend
from harness.backends.supervised.checks import _trainer_problems
from harness.backends.supervised.settings import Settings
from harness.config.sweep import load_config
from harness.data.toy_images import write_toy
from harness.ensemble.recipe import load_recipe
from harness.planning.plan import make_plan
from harness.results.store import ResultFolder
from tests.conftest import ROOT, Cli

CONFIGS = sorted(path for path in (ROOT / "configs").glob("*.yaml") if path.stem != "blend")
CLASSIFY = sorted((ROOT / "configs" / "classify").glob("*.yaml"))
README = (ROOT / "README.md").read_text()


def pyproject() -> dict[str, object]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert isinstance(project, dict)
    return project


def test_env_yml_is_in_step_with_pyproject() -> None:
    env = yaml.safe_load((ROOT / "env.yml").read_text())
    assert env["name"] == pyproject()["name"]
    python, pip, extra = env["dependencies"]
    assert python == f"python{pyproject()['requires-python']}"
    assert (pip, extra) == ("pip", {"pip": ["-e ."]})


def test_every_dependency_has_bounds_on_both_sides() -> None:
    project = pyproject()
    optional = project["optional-dependencies"]
    assert isinstance(optional, dict)
    own = [r for extra in optional.values() for r in extra if r.startswith("harness[")]
    assert own == ["harness[demo,export,ray,tensorboard]"]  # the tests need what they test
    for requirement in {*project["dependencies"], *(r for extra in optional.values() for r in extra)} - {*own}:  # type: ignore[misc]
        assert re.search(r">=[\d.]+", requirement), requirement
        assert re.search(r",<[\d.]+", requirement), requirement
    assert any(r.startswith("anomalib>=2.7") for r in project["dependencies"])  # type: ignore[attr-defined]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_config_says_how_to_run_it_and_plans(cli: Cli, config: Path) -> None:
    lines = config.read_text().splitlines()
    verb = "tune" if load_config(config).search else "sweep"
    assert any(f"python -m harness {verb} configs/{config.name}" in line for line in lines[:8])
    assert any(line.startswith("# Cost:") for line in lines[:12])
    # Fewer images than the config's, which take seconds to make.
    result = cli("plan", config, "data.train=20", "data.good=2", "data.bad=1")
    assert result.exit_code == 0, result.output
    assert load_config(config).data.kind == "toy"


@pytest.mark.parametrize("config", CLASSIFY, ids=lambda path: path.stem)
def test_every_config_of_a_classification_plans(cli: Cli, config: Path) -> None:
    """On the toy data in place of what it names."""
    loaded = load_config(config, ["data.kind=toy", "data.size=32"])
    verb = "tune" if loaded.search else "sweep"
    assert f"python -m harness {verb} configs/classify/{config.name}" in config.read_text()
    result = cli("plan", config, "data.kind=toy", "data.size=32", "--no-check")
    assert result.exit_code == 0, result.output
    if loaded.search:
        assert "a search for the largest macro_F1, 12 trials, 0 known" in result.output
    signature = SupervisedBackend().parameters
    for spec in make_plan(loaded, [""], lambda _, model: signature(model), "supervised").specs:
        Settings.of(spec)
        assert not list(_trainer_problems(spec))


def test_the_configs_of_a_classification_cover_the_public_solutions() -> None:
    text = "".join(path.read_text() for path in CLASSIFY)
    for word in ("tf_efficientnet_b6", "tf_efficientnetv2_s", "resnext101_32x8d", "resnest50d", "arcface", "one_class"):
        assert word in text
    assert load_recipe(ROOT / "configs" / "blend.yaml").rules


def test_named_configs_are_there() -> None:
    assert {path.stem for path in CONFIGS} >= {"patchcore", "padim", "spade", "cflow", "compare", "smoke"}


def test_readme_names_only_commands_and_files_that_exist(cli: Cli) -> None:
    verbs = set(re.findall(r"python -m harness ([a-z-]+)", README))
    assert verbs
    for verb in verbs:
        assert cli(verb, "--help").exit_code == 0
    for file in set(re.findall(r"(?:configs|harness|tests|docs|benchmarks)/[\w/.-]+\.(?:yaml|py|md|png)", README)):
        assert (ROOT / file).is_file(), file


def test_readme_options_exist(cli: Cli) -> None:
    for verb, option in re.findall(r"python -m harness ([a-z-]+)[^\n`]* (--[a-z-]+)", README):
        assert option in cli(verb, "--help").output, (verb, option)


def test_readme_configs_are_valid(tmp_path: Path) -> None:
    blocks = [
        block
        for block in re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
        if "grid:" in block or "search:" in block
    ]
    assert blocks
    for number, block in enumerate(blocks):
        file = tmp_path / f"readme{number}.yaml"
        file.write_text(block)
        load_config(file)


def test_readme_python_runs(tmp_path: Path, trained: ResultFolder) -> None:
    """As it stands there, in a folder with such data and weights, without a network."""
    write_toy(tmp_path / "datasets", categories=["plate"], size=64, train=6, good=2, bad=1)
    (tmp_path / "datasets" / "plate").rename(tmp_path / "datasets" / "bottle")
    (tmp_path / "part.png").write_bytes(next((tmp_path / "datasets/bottle/test/good").iterdir()).read_bytes())
    (tmp_path / "weights").mkdir()
    save_file(timm.create_model("resnet18").state_dict(), tmp_path / "weights" / "resnet18.safetensors")
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 2
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "patchcore").symlink_to(trained.root)
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert (tmp_path / "bottle.safetensors").is_file()


def test_benchmark_tables_are_those_of_the_results() -> None:
    for file in (ROOT / "benchmarks").glob("*.md"):
        assert file.read_text() == tables.page(file)


def test_picture_in_readme_is_there() -> None:
    for file in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (ROOT / file).stat().st_size < 500_000

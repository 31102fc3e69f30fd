"""The repository keeps its own promises."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import pytest
import yaml

from benchmarks import tables
from harness.backends.supervised import SupervisedBackend
from harness.backends.supervised.checks import _trainer_problems
from harness.backends.supervised.probe.settings import ProbeSettings
from harness.backends.supervised.recipes import with_recipe
from harness.backends.supervised.settings import DEFAULTS, IMPLIED, Settings
from harness.config.load import load_config, load_configs
from harness.data.toy_images import write_toy
from harness.ensemble.recipe import Rule, load_recipe
from harness.planning.plan import make_plan
from harness.results.store import ResultFolder
from tests.conftest import ROOT, Cli
from tests.documentation import blocks, commands, pages, sentences, words
from tests.test_rooms import ROOMS

BLENDS = sorted((ROOT / "configs").glob("blend*.yaml"))
CONFIGS = sorted(set((ROOT / "configs").glob("*.yaml")) - set(BLENDS))
CLASSIFY = sorted((ROOT / "configs" / "classify").glob("*.yaml"))
README = ROOT / "README.md"
PAGES = pages()
LONGEST = 25  # words of a sentence
LINES = 150  # of the README: two screens


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
    assert own == ["harness[demo,export,faiss,mlflow,ray,tensorboard]"]  # the tests need what they test
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
    train = max([20, *load_config(config).numbers_of_images])
    result = cli("plan", config, f"data.train={train}", "data.good=2", "data.bad=1")
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
        ProbeSettings.of(spec) if spec.model == "probe" else Settings.of(with_recipe(spec, 100, 10)[0])
        assert not list(_trainer_problems(spec))


PUBLIC = [path for path in CLASSIFY if "_place_" in path.stem]


def test_the_configs_of_public_solutions_name_their_sources_and_differences() -> None:
    assert len(PUBLIC) == 7
    page = (ROOT / "docs" / "classification.md").read_text()
    for path in PUBLIC:
        text = path.read_text()
        assert "Dacon 235894" in text
        assert "github.com/" in text
        assert "# What differs from the source" in text
        assert path.name in page


# Labels and classes that the toy data has in place of those of MVTec AD.
TOY_NAMES = {
    "first_place_arcface": ["grid.arcface_labels=[gear-*, '!*-good']", "grid.eval_image_size=80"],
    "first_place_one_class": ["grid.only_classes=[gear]", "grid.repeats=2"],
    "third_place_one_class": ["grid.only_classes=[gear]", "grid.repeats=2"],
}
SMALL = (
    "data.kind=toy", "data.root=null", "data.train=40", "data.test=16", "data.size=32", "data.folds=2",
    "data.run_folds=[0]", "data.train_batch_size=16", "data.eval_batch_size=16", "data.num_workers=0",
    "trainer.max_epochs=1", "trainer.precision=32", "weights=random", "device=cpu", "latency=false", "save_models=none",
    "grid.image_size=64",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("config", PUBLIC, ids=lambda path: path.stem)
def test_the_configs_of_public_solutions_train_two_steps(cli: Cli, tmp_path: Path, config: Path) -> None:
    """With random weights and small images: this machine has neither their weights nor a GPU."""
    result = cli("sweep", config, *SMALL, *TOY_NAMES.get(config.stem, []), "--output", tmp_path)
    assert result.exit_code == 0, result.output
    (record,) = ResultFolder(tmp_path / load_config(config).name).records()
    assert record.status == "ok"
    assert record.weights["source"] == "random"
    assert 16 < record.folds[0]["learnt"] <= 32  # two batches
    replaced = {
        "model",
        "backbone",
        "image_size",
        "eval_image_size",
        "normalization",
        "arcface_labels",
        "only_classes",
        "repeats",
    }
    (point,) = load_config(config).grid
    settings = {**DEFAULTS, **IMPLIED, **record.spec["params"]}
    for name, (value,) in point.items():
        if name not in replaced:
            assert settings[name] == value


@pytest.mark.parametrize("config", BLENDS, ids=lambda path: path.stem)
def test_every_config_of_a_blend_says_how_to_run_it(config: Path) -> None:
    text = config.read_text()
    assert f"python -m harness blend configs/{config.name}" in text
    assert "# Cost:" in text
    assert load_recipe(config).rules


def test_the_blend_of_the_documentation_is_valid(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "classification.md").read_text()
    (block,) = re.findall(r"```yaml\n(runs:\n.*?)```", page, flags=re.DOTALL)
    (tmp_path / "blend.yaml").write_text(block)
    recipe = load_recipe(tmp_path / "blend.yaml")
    assert len(recipe.rules) == 4
    # The table has each key of a rule.
    assert all(f"`{key}" in page for key in Rule.model_fields)


def test_named_configs_are_there() -> None:
    assert {path.stem for path in CONFIGS} >= {"patchcore", "padim", "spade", "cflow", "compare", "smoke"}


def hooks() -> ModuleType:
    """docs/hooks.py, as MkDocs loads it."""
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def anchors(page: Path) -> set[str]:
    """Anchors of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


every_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


def test_the_readme_takes_two_screens() -> None:
    assert len(README.read_text().splitlines()) < LINES


@every_page
def test_sentences_are_short(page: Path) -> None:
    long = [one for one in sentences(page.read_text()) if words(one) > LONGEST]
    assert not long


def test_sentences_are_told_apart() -> None:
    text = """# A heading

One sentence, with [a link of four words](https://example.org/a.html). Another with `code. And more` in it!

- an item
- [ ] another (by Roth et al. of 2022)

| a | table. With a sentence |
| --- | --- |

```sh
code. Not prose.
```

::: harness.load_model
"""
    assert [(one, words(one)) for one in sentences(text)] == [
        ("A heading", 2),
        ("One sentence, with a link of four words.", 8),
        ("Another with `code` in it!", 5),
        ("an item", 2),
        ("another (by Roth et al. of 2022)", 7),
    ]


@every_page
def test_commands_and_files_exist(cli: Cli, page: Path) -> None:
    text = page.read_text()
    for verb, options in commands(text):
        shown = cli(verb, "--help")
        assert shown.exit_code == 0, verb
        for option in options:
            assert option in shown.output, (verb, option)
    for file in set(re.findall(r"\b(?:configs|harness|tests|docs|benchmarks)/[\w/.-]+\.(?:yaml|py|md|png|sh)", text)):
        assert (ROOT / file).is_file(), file


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    """What is included from benchmarks/ has the headings of its file."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"https?:", target):
            continue
        file, _, anchor = unquote(target).partition("#")
        linked_page = page.parent / file if file else page
        assert linked_page.is_file(), target
        included = re.search(r'--8<-- "([^"]+)"', linked_page.read_text()) if anchor else None
        if anchor:
            assert anchor in anchors(ROOT / included[1] if included else linked_page), target


@every_page
def test_yaml_blocks_are_valid(tmp_path: Path, page: Path) -> None:
    for number, block in enumerate(blocks(page.read_text(), "yaml")):
        if "grid:" in block or "search:" in block:
            file = tmp_path / f"block{number}.yaml"
            file.write_text(block)
            load_configs(file)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page.read_text(), "python")], ids=name_of)
@pytest.mark.slow
def test_python_blocks_run(tmp_path: Path, request: pytest.FixtureRequest, page: Path) -> None:
    """As they stand there, in a folder with such data and weights, without a network."""
    code_blocks = blocks(page.read_text(), "python")
    write_toy(tmp_path / "datasets", categories=["plate"], size=64, train=6, good=2, bad=1)
    (tmp_path / "datasets" / "plate").rename(tmp_path / "datasets" / "bottle")
    (tmp_path / "part.png").write_bytes(next((tmp_path / "datasets/bottle/test/good").iterdir()).read_bytes())
    (tmp_path / "results").mkdir()
    for name, fixture in (("patchcore", "trained"), ("classify-smoke", "classified")):
        if any(f"results/{name}" in block for block in code_blocks):
            sweep: ResultFolder = request.getfixturevalue(fixture)
            (tmp_path / "results" / name).symlink_to(sweep.root)
    for block in code_blocks:
        exec(compile(block, name_of(page), "exec"), {})
    if "bottle.safetensors" in "".join(code_blocks):
        assert (tmp_path / "bottle.safetensors").is_file()


def test_the_documentation_has_each_kind_of_block() -> None:
    text = "".join(page.read_text() for page in PAGES)
    assert len(list(commands(text))) > 30
    assert sum("grid:" in block or "search:" in block for block in blocks(text, "yaml")) >= 4
    assert {"load_model", "load_classifier", "SPADE", "Ranking"} <= set(
        re.findall(r"\w+", "".join(blocks(text, "python")))
    )


@every_page
def test_pictures_are_there_and_small(page: Path) -> None:
    for file in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text()):
        assert (page.parent / file).stat().st_size < 500_000


def test_every_key_of_the_configuration_has_a_description() -> None:
    module = hooks()
    for name in module.tables():
        table = module.table(name)  # raises KeyError for a key without one
        assert len(table.splitlines()) > 2, name
        assert "| any |" not in table, name


def test_the_reference_has_every_table() -> None:
    module = hooks()
    text = (ROOT / "docs" / "configuration.md").read_text()
    markers = set(module.MARKER.findall(text))
    assert markers == {*module.tables(), "threshold.methods"}
    page = module.expand(text)
    assert not module.MARKER.search(page)
    assert "| `val` | number, from 0, below 1 |  | the share of normal training images" in page
    assert "| `num_neighbors` | whole number | `9` |" in page
    metrics = module.expand((ROOT / "docs" / "metrics.md").read_text())
    assert "| `image_AUROC` | " in metrics
    assert "| `pixel_AUPRO` | " in metrics
    assert metrics.count("| `pixel_AUPIMO` | larger | ") == 1


def test_the_architecture_has_every_room() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    assert re.findall(r"^\| `harness/(\w+)/` \|", text, flags=re.MULTILINE) == list(ROOMS)
    drawn = set(re.findall(r"<text[^>]*>(\w+)</text>", (ROOT / "docs" / "rooms.svg").read_text()))
    mermaid = set(re.findall(r"\b\w+\b", text.partition("```mermaid")[2].partition("```")[0]))
    assert set(ROOMS) <= drawn
    assert set(ROOMS) <= mermaid


def test_measured_numbers_are_those_of_the_benchmarks() -> None:
    measured = json.loads((ROOT / "benchmarks" / "results" / "sweep.json").read_text())
    claims = [
        (page, claim)
        for page in PAGES
        for claim in re.findall(r"grid of (\d+)[\w ]* PatchCores takes ([\d.]+) times", page.read_text())
    ]
    assert {page for page, _ in claims} >= {README}
    for page, (points, times) in claims:
        assert float(times) == measured["grid_against_its_most_expensive_point"], page
        assert int(points) == measured["points"], page


def test_the_citation_is_of_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == pyproject()["version"]
    assert cited["license"] == pyproject()["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert f"## {cited['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_workflows_and_forms_are_yaml() -> None:
    for file in (*(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml"):
        assert yaml.safe_load(file.read_text()), file


@pytest.mark.slow
def test_the_site_builds(tmp_path: Path) -> None:
    """Without a network; every page of the navigation is there, and no page asks another server for anything."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    process = subprocess.run(
        [*command, "--config-file", str(ROOT / "mkdocs.yml")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    site_pages = {file.stem for file in (tmp_path / "site").glob("*.html")}
    assert site_pages >= {page.stem for page in (ROOT / "docs").glob("*.md")}
    for file in (tmp_path / "site").rglob("*.html"):
        addresses = re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"?(https?://[^\s\">]+)", file.read_text())
        assert not addresses, file
    text = (tmp_path / "site" / "configuration.html").read_text()
    assert "coreset_sampling_ratio" in text
    assert "reference:" not in text


def test_benchmark_tables_are_those_of_the_results() -> None:
    for file in (ROOT / "benchmarks").glob("*.md"):
        assert file.read_text() == tables.page(file)


# Verbs that say how a value came about. A name says what the value is: the noun of the thing.
VERBS = {"asked", "came", "found", "given", "got", "made", "said", "saw", "seen", "told", "wanted", "what"}
# Its fields are the keys of stored files, which keep their names.
STORED_KEYS = Path("harness/results/schemas.py")


def bound_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of every variable, argument, attribute, function and class that a module binds."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield node.lineno, name
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.ExceptHandler(name=str(name)):
                yield node.lineno, name
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
                yield node.lineno, name


CODE = """def a(b, *c, d=1, **e):
    f = self.g = 1
    for h, (i, *j) in k: pass
    with l as m: lambda n: [o for o in n]
class p:
    q: int = 0
    try: pass
    except r as s: pass
    match t:
        case [u, *v] | {**w}: pass
    if (x := y).z: pass
"""


def test_the_names_of_a_module_are_listed_by_line() -> None:
    by_line = ("abcde", "fg", "hij", "mno", "p", "q", "", "s", "", "uvw", "x")
    expected = {(line, name) for line, names in enumerate(by_line, start=1) for name in names}
    assert set(bound_names(ast.parse(CODE))) == expected


@pytest.mark.parametrize("folder", ["harness", "benchmarks", "tests"])
def test_names_are_nouns(folder: str) -> None:
    verbs = [
        f"{file.relative_to(ROOT)}:{line}: {name}"
        for file in sorted((ROOT / folder).rglob("*.py"))
        if file != ROOT / STORED_KEYS
        for line, name in bound_names(ast.parse(file.read_text()))
        if name in VERBS
    ]
    assert not verbs, "expected the noun of the thing in place of\n" + "\n".join(verbs)

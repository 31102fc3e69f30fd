"""The recommended configuration is the one whose models are kept, and which every command takes."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
from openpyxl import load_workbook

from harness import load_model
from harness.demo.use import choices
from harness.inference.find import find_run
from harness.report.answer_card import answer_cards
from harness.report.recommend import answers
from harness.report.recommended import recommended_runs
from harness.report.results import Results
from harness.results.best_models import is_best
from harness.results.record import RunRecord
from harness.results.store import ResultFolder
from tests.conftest import Cli, write_config

# With more power the scores differ little and the time grows, so the best run is not the recommended one everywhere.
CONFIG = """
name: kept
data: {kind: toy, category: [plate, fabric], size: 64, train: 6, good: 12, bad: 6}
weights: random
save_models: best
grid: {backend: dummy, model: mean, power: [1.0, 1.5, 2.0, 2.5, 3.0]}
"""
REAL = """
name: real
data: {kind: toy, category: plate, size: 64, train: 8, good: 12, bad: 6, val: 0.25}
weights: random
save_models: all
latency: false
grid:
  - {backend: native, model: patchcore, backbone: resnet18, layers: [layer2], image_size: 64}
  - {backend: native, model: padim, n_features: 2, backbone: resnet18, layers: [layer1], image_size: 64}
"""


@pytest.fixture
def config(tmp_path: Path, dummy: type) -> Path:
    del dummy
    return write_config(tmp_path / "kept.yaml", CONFIG)


def kept(folder: ResultFolder) -> set[str]:
    return {record.run_id for record in folder.records() if folder.model_file(record.run_id)}


def test_the_models_of_the_recommended_configuration_are_kept(cli: Cli, config: Path, dummy: type) -> None:
    result = cli("sweep", config)
    assert result.exit_code == 0, result.output
    folder = ResultFolder(Path("results/kept"))
    recommended = recommended_runs(Results.of(folder))
    assert {record.spec["category"] for record in recommended} == {"plate", "fabric"}
    assert len({record.spec["params"]["power"] for record in recommended}) == 1
    assert kept(folder) == {record.run_id for record in recommended}
    # The best run of some category was another one, so this sweep made a model again.
    best = {name: max((r for r in folder.records() if r.spec["category"] == name), key=RunRecord.rank)
            for name in ("plate", "fabric")}  # fmt: skip
    assert {record.run_id for record in best.values()} != kept(folder)
    assert "runs made again for it: 1" in " ".join(result.output.split())
    assert all(record.model for record in folder.records() if record.run_id in kept(folder))
    # A second call has nothing to do.
    runs = len(dummy.runs)  # type: ignore[attr-defined]
    assert cli("sweep", config).exit_code == 0
    assert len(dummy.runs) == runs  # type: ignore[attr-defined]


def test_there_is_a_workbook_before_a_model_is_made_again(
    cli: Cli, config: Path, dummy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    run = dummy.run

    def watched(self: Any, *arguments: Any, **options: Any) -> Any:
        workbook = Path("results/kept/models_comparing.xlsx")
        rows.append(load_workbook(workbook)["Runs"].max_row - 1 if workbook.exists() else 0)
        yield from run(self, *arguments, **options)

    monkeypatch.setattr(dummy, "run", watched)
    assert cli("sweep", config).exit_code == 0
    assert rows[0] == 0
    # The runs of the first category at least: the writing takes a tenth of the time at most.
    assert rows[-1] >= 5


@pytest.mark.slow
def test_another_budget_keeps_another_model_and_no_run_is_lost(cli: Cli, config: Path) -> None:
    cli("sweep", config)
    folder = ResultFolder(Path("results/kept"))
    before, first = {record.run_id: record.metrics for record in folder.records()}, kept(folder)
    slowest = max(record.cost["seconds_p50"] for record in folder.records() if record.run_id in first)
    result = cli("sweep", config, f"recommend.max_ms={slowest * 1000 - 0.1}")
    if slowest > 0.001:
        assert result.exit_code == 0, result.output
        assert kept(folder).isdisjoint(first)
        assert "recommend:" in folder.read_config()
    assert {record.run_id: record.metrics for record in folder.records()} == before


@pytest.mark.slow
def test_one_answer_everywhere(cli: Cli, config: Path) -> None:
    result = cli("sweep", config)
    folder = ResultFolder(Path("results/kept"))
    results = Results.of(folder)
    (answer,) = answers(results)
    assert answer.configuration is not None
    name = answer.configuration.name
    runs = {record.run_id for record in recommended_runs(results)}
    # The terminal, the command, the page and the sheet.
    assert f": {name}. report.html says why." in result.output
    assert f": {name}." in cli("recommend", folder.root).output
    (on_page,) = answer_cards(results)
    assert (on_page["chosen"], on_page["run"] in runs) == (name, True)
    lines = list(load_workbook(folder.workbook)["Summary"].iter_rows(values_only=True))
    rows = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
    assert rows[0]["recommended"]
    (row,) = [row for row in rows if row["recommended"]]
    assert row["best_run"] in runs
    # The kept models.
    assert kept(folder) == runs
    assert {find_run(folder.root, category).record.run_id for category in ("plate", "fabric")} == runs
    assert "recommended configuration" in find_run(folder.root, "plate").note


@pytest.mark.slow
def test_every_command_takes_the_model_of_the_recommended_configuration(cli: Cli, tmp_path: Path) -> None:
    """Real models, and an answer that changes with its limits."""
    config = write_config(tmp_path / "real.yaml", REAL)
    result = cli("sweep", config)
    assert result.exit_code == 0, result.output
    folder = ResultFolder(Path("results/real"))
    before = run_of_all_commands(cli, folder)
    sizes = {record.run_id: record.cost["model_size"] or 0 for record in folder.records()}
    smallest = min(sizes, key=sizes.__getitem__)
    assert smallest != before
    other = cli("recommend", folder.root, "--max-model", sizes[smallest]).output
    assert "These limits hold for this answer only." in other
    assert run_of_all_commands(cli, folder) == before
    words = other.split("To store the limits: python -m harness ")[1].split()
    assert cli(*words).exit_code == 0
    assert run_of_all_commands(cli, folder) == smallest
    assert "These limits hold" not in cli("recommend", folder.root).output


def run_of_all_commands(cli: Cli, folder: ResultFolder) -> str:
    """The run that the answer names, and that all commands take."""
    (record,) = recommended_runs(Results.of(folder))
    assert f"{folder.runs.name}/{record.run_id}/" in cli("recommend", folder.root).output.replace("\n", "")
    image = next(Path("results/_toy").rglob("test/good/*.png"))
    assert cli("predict", folder.root, image, "--csv", "out.csv", "--device", "cpu").exit_code == 0
    with Path("out.csv").open() as file:
        score = float(next(csv.DictReader(file))["score"])
    models = {run.run_id: load_model(folder.run_folder(run.run_id), device="cpu") for run in folder.records()}
    assert {run_id for run_id, model in models.items() if model.predict(image).score == pytest.approx(score)} == {
        record.run_id
    }
    assert load_model(folder.root, device="cpu").predict(image).score == pytest.approx(score)
    assert cli("export", folder.root, "--format", "torchscript").exit_code == 0
    (exported,) = folder.runs.glob("*/exported")
    assert exported.parent.name == record.run_id
    shutil.rmtree(exported)
    offered, _ = choices(folder.root.parent)
    assert (offered[0].record.run_id, offered[0].title.endswith("(recommended)")) == (record.run_id, True)
    return record.run_id


@pytest.mark.slow
def test_where_its_model_is_not_kept_that_is_told(cli: Cli, config: Path) -> None:
    cli("sweep", config, "save_models=all")
    folder = ResultFolder(Path("results/kept"))
    recommended = next(r for r in recommended_runs(Results.of(folder)) if r.spec["category"] == "plate")
    file = folder.model_file(recommended.run_id)
    assert file is not None
    file.unlink()
    run = find_run(folder.root, "plate")
    assert run.record.run_id != recommended.run_id
    assert f"configuration ({recommended.run_id}) was not: make it with" in run.note
    rivals = {run.record.data["fingerprint"]: run.record}
    assert not any(is_best(r, rivals) for r in folder.records()
                   if r.spec["category"] == "plate"
                   and r.run_id not in (run.record.run_id, recommended.run_id))  # fmt: skip


def test_all_makes_a_missing_model_and_deletes_none(cli: Cli, config: Path) -> None:
    cli("sweep", config, "save_models=none")
    folder = ResultFolder(Path("results/kept"))
    assert not kept(folder)
    recommended = {record.run_id for record in recommended_runs(Results.of(folder))}
    result = cli("sweep", config, "save_models=all")
    assert result.exit_code == 0, result.output
    assert kept(folder) == recommended
    cli("sweep", config, "save_models=all", "--fresh", "--limit", "3")
    assert kept(folder) > recommended
    before = kept(folder)
    cli("sweep", config, "save_models=all")
    assert kept(folder) == before

"""Results that version 0.1 stored: later versions open them, go on with them, and predict with their models.

tests/stored/ was written by version 0.1: three configs, their data, and what `sweep` and `tune` made of them, without
the files that a report writes anew.
"""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from openpyxl import load_workbook

from harness import load_classifier, load_model
from harness.results.store import ResultFolder
from tests.conftest import ROOT, Cli

STORED = ROOT / "tests/stored"


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A copy that may be written to; it is also the working directory."""
    shutil.copytree(STORED, tmp_path, dirs_exist_ok=True)
    return tmp_path / "results"


def files_of(results: Path) -> dict[str, bytes]:
    return {path.as_posix(): path.read_bytes() for path in results.glob("*/runs/**/*") if path.is_file()}


@pytest.mark.parametrize("name", ["stored", "named"])
def test_a_sweep_goes_on_and_makes_nothing_again(stored: Path, name: str, cli: Cli) -> None:
    before = files_of(stored)
    result = cli("sweep", f"{name}.yaml")
    assert result.exit_code == 0, result.output
    assert files_of(stored) == before
    book = load_workbook(stored / name / "models_comparing.xlsx")
    records = ResultFolder(stored / name).records()
    rows = list(book["Runs"].iter_rows(values_only=True))
    assert len(rows) == 1 + len(records)
    assert all(record.status == "ok" for record in records)


def test_a_missing_run_is_made_as_it_was(stored: Path, cli: Cli) -> None:
    folder = ResultFolder(stored / "stored")
    before = {record.run_id: record for record in folder.records()}
    chosen = next(run_id for run_id in before if run_id.startswith("plate-native-padim"))
    shutil.rmtree(folder.run_folder(chosen))
    result = cli("sweep", "stored.yaml")
    assert result.exit_code == 0, result.output
    after = {record.run_id: record for record in folder.records()}
    assert after.keys() == before.keys()
    # Later versions may have more metrics.
    metrics = {name: after[chosen].metrics[name] for name in before[chosen].metrics}
    assert metrics == pytest.approx(before[chosen].metrics, abs=1e-3)
    assert after[chosen].spec == before[chosen].spec


def test_a_search_knows_its_trials(stored: Path, cli: Cli) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'harness[ray]'")
    before = files_of(stored)
    trials = json.loads((stored / "searched/search.json").read_text())
    result = cli("plan", "searched.yaml")
    assert result.exit_code == 0, result.output
    assert "3 known" in result.output
    report = cli("report", stored / "searched")
    assert report.exit_code == 0, report.output
    rows = list(load_workbook(stored / "searched/models_comparing.xlsx")["Search"].iter_rows(values_only=True))
    assert sum(row[0] in {trial["number"] for trial in trials["trials"]} for row in rows) == 3
    assert json.loads((stored / "searched/search.json").read_text()) == trials
    assert files_of(stored) == before


@pytest.mark.parametrize("name", ["stored", "named", "searched"])
def test_reports_open(stored: Path, name: str, cli: Cli) -> None:
    before = files_of(stored)
    result = cli("report", stored / name)
    assert result.exit_code == 0, result.output
    assert "left out" not in result.output
    for run_id in [record.run_id for record in ResultFolder(stored / name).records()]:
        assert run_id in (stored / name / "report.html").read_text()
    assert files_of(stored) == before
    if name == "named":  # of a classification, runs are not compared in pairs
        return
    first, second = [record.run_id for record in ResultFolder(stored / name).records()][:2]
    compared = cli("compare", stored / name / "runs" / first, stored / name / "runs" / second)
    assert compared.exit_code == 0, compared.output


def test_sweeps_are_shown_together(stored: Path, cli: Cli) -> None:
    result = cli("report", stored / "stored", stored / "searched", "--output", "both")
    assert result.exit_code == 0, result.output
    assert len(ResultFolder(Path("both")).records()) == 7


def test_models_say_what_they_said(stored: Path) -> None:
    folder = ResultFolder(stored / "stored")
    for record in folder.records():
        with (folder.run_folder(record.run_id) / "scores.csv").open() as stream:
            rows = [row for row in csv.DictReader(stream) if row["role"] == "test"]
        model = load_model(folder.run_folder(record.run_id), device="cpu", trust=True)
        results = model.predict([Path("parts/plate") / row["path"] for row in rows])
        assert [float(result.score) for result in results] == pytest.approx(
            [float(row["score"]) for row in rows], rel=1e-3
        )


def test_a_classifier_names_what_it_named(stored: Path) -> None:
    run = next((stored / "named/runs").glob("*focal*"))
    with (run / "names.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["role"] == "test"]
    predictions: Any = load_classifier(run, device="cpu").predict([Path("labels") / row["path"] for row in rows])
    assert [one.label for one in predictions] == [row["predicted_label"] for row in rows]


@pytest.mark.parametrize("arguments", [("--format", "torchscript")])
def test_a_model_is_exported(stored: Path, arguments: tuple[str, ...], cli: Cli) -> None:
    run = next((stored / "stored/runs").glob("plate-native-padim*"))
    result = cli("export", run, *arguments, "--check", "parts/plate/test/good")
    assert result.exit_code == 0, result.output
    assert (run / "exported/model.pt.json").is_file()

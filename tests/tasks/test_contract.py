"""What every registered task promises: metrics, fields, sheets, a page, and a table in the terminal."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from harness import registry
from harness.backends.base import Signature
from harness.config.load import load_config
from harness.config.spec import RunSpec
from harness.config.sweep import SweepConfig
from harness.report.parts import task_report
from harness.report.results import Results
from harness.report.sheets import Sheet
from harness.results.schemas import DATA_OF_TASK
from harness.results.store import ResultFolder
from harness.tasks.base import Task
from tests.conftest import ROOT

# Results of each task, and the config that made them.
STORED = {"detection": "stored", "classification": "named"}
NAMES = list(registry.TASKS)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "tests" / "stored", tmp_path, dirs_exist_ok=True)
    return tmp_path


def task(name: str) -> Task:
    loaded: Task = registry.load(registry.TASKS[name])()
    return loaded


def test_every_task_has_all_parts() -> None:
    for table in (registry.TASK_REPORTS, registry.HEADLINES, DATA_OF_TASK, STORED):
        assert set(table) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_names_metrics_and_keys(name: str, stored: Path) -> None:
    kind = task(name)
    assert kind.name == name
    keys = [metric.key for metric in kind.metrics()]
    assert len(set(keys)) == len(keys)
    assert set(registry.HEADLINES[name]) <= set(keys)
    assert all(registry.metric(key) in kind.metrics() for key in keys)
    assert kind.config_keys <= set(SweepConfig.model_fields)
    assert kind.backend in registry.BACKENDS
    config = load_config(stored / f"{STORED[name]}.yaml")
    assert set(kind.spec_fields(config, Signature("model", {}))) <= {
        field.name for field in dataclasses.fields(RunSpec)
    }
    for option in kind.kinds()[:-1]:
        assert kind.options(option).model_fields["kind"]


@pytest.mark.parametrize("name", NAMES)
def test_results_are_shown(name: str, stored: Path, tmp_path: Path) -> None:
    folder = ResultFolder(stored / "results" / STORED[name])
    results = Results.of(folder)
    assert results.task == name
    for record in results.ok():
        assert set(registry.HEADLINES[name]) <= set(record.metrics)
        assert DATA_OF_TASK[name] <= set(record.data)
    report = task_report(results)
    titles = [part.title for part in report.sheets(results) if isinstance(part, Sheet)]
    assert titles[0] == "Summary"
    assert "Runs" in titles
    assert len(set(titles)) == len(titles)
    page = report.page(results)
    for file in (page.template, *page.scripts):
        assert (ROOT / "harness/report/page" / file).is_file()
    answer = report.answer(results)
    assert answer.table is not None
    assert answer.table.row_count == len(results.ok())
    assert answer.sentences
    report.write_details(results, tmp_path)

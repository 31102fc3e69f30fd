"""A parameter that earlier versions had no name for: old runs keep their identity, and reports know its value."""

from __future__ import annotations

from pathlib import Path

from openpyxl import load_workbook

from harness.backends.implied import implied_values
from harness.config.spec import differing
from harness.report.comparisons import backends_table
from harness.report.results import Results
from harness.results.store import ResultFolder
from tests.backends.native_runs import planned
from tests.conftest import Cli, write_config

RUN = "backend: native, model: patchcore, backbone: resnet18, layers: [layer3], image_size: 64"
CONFIG = """
name: implied
data: {{kind: mvtec, root: {root}}}
weights: random
device: cpu
latency: false
save_models: none
seeds: {seeds}
grid: {{{run}}}
"""


def test_the_value_that_earlier_versions_had_leaves_the_run_as_it_was(tmp_path: Path, toy_tree: Path) -> None:
    (plain,), _ = planned(tmp_path, toy_tree, f"{{{RUN}}}")
    (named, other), _ = planned(tmp_path, toy_tree, f"{{{RUN}, bank: [exact, merge_reduce]}}")
    assert named == plain
    assert other.params != plain.params
    labels = [spec.label(differing([named, other])) for spec in (named, other)]
    assert [("merge_reduce" in label) for label in labels] == [False, True]


def test_a_model_that_is_not_installed_implies_nothing() -> None:
    assert implied_values("native", "patchcore")["bank"] == "exact"
    assert implied_values("native", "no such model") == implied_values("no such backend", "patchcore") == {}


def test_runs_from_before_the_parameter_are_one_configuration_with_later_ones(
    cli: Cli, tmp_path: Path, toy_tree: Path
) -> None:
    for seeds, run in (("[0]", RUN), ("[0, 1]", f"{RUN}, bank: [exact, merge_reduce]")):
        config = write_config(tmp_path / "implied.yaml", CONFIG.format(root=toy_tree, seeds=seeds, run=run))
        assert cli("sweep", str(config)).exit_code == 0
    results = Results.of(ResultFolder(tmp_path / "results" / "implied"))
    assert [len(one.records) for group in results.configurations.values() for one in group] == [2, 2]
    assert {record.spec["params"]["bank"] for record in results.records} == {"exact", "merge_reduce"}
    header, *rows = load_workbook(results.folder.workbook)["Runs"].iter_rows(values_only=True)
    assert [row[header.index("bank")] for row in rows].count("exact") == 2
    runs = [str(results.folder.run_folder(record.run_id)) for record in results.records if record.spec["seed"] == 0]
    compared = cli("compare", *runs)
    assert any({"bank", "exact", "merge_reduce"} <= set(line.split()) for line in compared.output.splitlines())
    assert backends_table(results).empty

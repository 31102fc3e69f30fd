"""`table`: values by hand, the best of each row, seeds, several configurations, formats and bad input."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path

import numpy as np
import pytest

from harness.analysis.formats import as_csv, as_html, as_latex, as_markdown
from harness.analysis.table import Entry, MetricTable, metric_table
from harness.report.results import Results
from harness.results.store import ResultFolder
from tests.conftest import Cli
from tests.fake_results import fake_run

LABELS = [0, 0, 0, 0, 1, 1, 1, 1]
PERFECT, GOOD, POOR = [1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 5, 4, 6, 7, 8], [8, 7, 6, 5, 4, 3, 2, 1]  # 1, 15/16, 0


@pytest.fixture
def folder(tmp_path: Path) -> ResultFolder:
    """Two models and two seeds on two categories; the second model with two backbones."""
    results = ResultFolder(tmp_path / "made-up")
    results.create()
    for category in ("bottle", "cable"):
        for seed, scores in enumerate((PERFECT, GOOD)):
            spec = {"category": category, "seed": seed}
            fake_run(results, f"{category}-a{seed}", scores, LABELS, spec=spec)
            for backbone, others in (("resnet18", POOR), ("resnet34", GOOD if category == "bottle" else PERFECT)):
                changed = {**spec, "model": "padim", "backbone": backbone}
                fake_run(results, f"{category}-b{seed}-{backbone}", others, LABELS, spec=changed)
    return results


def by_row(table: MetricTable) -> dict[tuple[str, ...], dict[str, Entry]]:
    return {
        key: dict(zip(table.columns, entries, strict=True))
        for key, entries in zip(table.rows, table.entries, strict=True)
    }


def test_mean_and_deviation_over_seeds_of_the_best_configuration(folder: ResultFolder) -> None:
    table = metric_table(Results.of(folder), "image_AUROC")
    sd = float(np.std([1, 15 / 16], ddof=1))
    assert by_row(table) == {
        ("bottle",): {"patchcore": Entry(31 / 32, pytest.approx(sd), True), "padim": Entry(15 / 16, 0.0, False)},
        ("cable",): {"patchcore": Entry(31 / 32, pytest.approx(sd), False), "padim": Entry(1.0, 0.0, True)},
        # Equal averages are both the best.
        ("average",): {"patchcore": Entry(31 / 32, pytest.approx(sd), True), "padim": Entry(31 / 32, 0.0, True)},
    }
    notes = " ".join(table.notes)
    assert "best of up to 2 configurations" in notes
    assert "over 2 seeds" in notes


def test_rows_and_columns_are_any_axes(folder: ResultFolder) -> None:
    table = metric_table(Results.of(folder), "image_AUROC", ["backbone"], ["model"])
    rows = by_row(table)
    assert rows["resnet18",]["padim"].mean == 0
    assert rows["resnet34",]["padim"].mean == 31 / 32
    assert rows["resnet34",]["patchcore"] == Entry(None, None, False)
    assert "configurations, chosen" not in " ".join(table.notes)
    table = metric_table(Results.of(folder), "image_AUROC", ["category"], ["configuration"])
    assert len(table.columns) == 3


def test_an_error_rate_is_best_where_it_is_small(folder: ResultFolder) -> None:
    table = metric_table(Results.of(folder), "image_FPR95", columns=["model", "backbone"])
    for entries in table.entries:
        means = [entry.mean for entry in entries if entry.mean is not None]
        assert [entry.mean for entry in entries if entry.best] == [min(means)] * sum(e.best for e in entries)
        assert max(means) > min(means)
    assert "Smaller values are better." in " ".join(table.notes)


def test_formats() -> None:
    rows = [("a|b_1 & <c>",), ("plain",)]
    entries = [[Entry(0.98765, 0.0123, True), Entry(None)], [Entry(0.5, 0.1), Entry(0.75, None, True)]]
    table = MetricTable("image_AUROC", 3, ("category",), rows, ["m_1", "=evil()"], entries, ["image_AUROC."])
    lines = as_markdown(table).splitlines()
    assert lines[2] == "| a\\|b_1 & <c> | **0.988** ± 0.012 |  |"
    assert lines[3] == "| plain | 0.500 ± 0.100 | **0.750** |"
    latex = as_latex(table)
    assert r"a|b\_1 \& <c> & \textbf{0.988} $\pm$ 0.012 &  \\" in latex
    assert r"m\_1" in latex
    assert latex.count(r"\toprule") == 1
    assert "<th>a|b_1 &amp; &lt;c&gt;</th><td><b>0.988</b> ± 0.012</td><td></td>" in as_html(table)
    header, first, second = csv.reader(io.StringIO(as_csv(table)))
    assert header == ["category", "m_1", "m_1 sd", "'=evil()"]
    assert first[1:] == ["0.98765", "0.0123", ""]
    assert second[3] == "0.75"


def test_the_command(folder: ResultFolder, cli: Cli, tmp_path: Path) -> None:
    result = cli("table", folder.root)
    assert result.exit_code == 0, result.output
    assert "| bottle | **0.969** ± 0.044 | 0.938 ± 0.000 |" in result.output
    out = tmp_path / "new" / "table.tex"
    assert cli("table", folder.root, "--format", "latex", "--out", out).exit_code == 0
    assert out.read_text().count(r"\\") == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metric", "image_AUROK"], "unknown metric of these runs 'image_AUROK'. Did you mean 'image_AUROC'"),
        (["--rows", "backbon"], "unknown axis 'backbon'. Did you mean 'backbone'"),
        (["--columns", "model,,backbone"], "--columns: 'model,,backbone' found; expected names of axes"),
        (["--columns", "category"], "an axis found twice"),
        (["--rows", "category,backbone"], "'category' beside other axes found"),
        (["--format", "word"], "unknown --format 'word'"),
        (["--out", "/dev/null/table.md"], "--out: can't write to /dev/null"),
    ],
)
def test_bad_options(folder: ResultFolder, cli: Cli, options: list[str], message: str) -> None:
    result = cli("table", folder.root, *options)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_results_without_a_finished_run(sweep_folder: ResultFolder, tmp_path: Path, cli: Cli) -> None:
    failed = next(record for record in sweep_folder.records() if record.status == "failed")
    folder = ResultFolder(tmp_path / "failed")
    folder.create()
    shutil.copytree(sweep_folder.run_folder(failed.run_id), folder.run_folder(failed.run_id))
    result = cli("table", folder.root)
    assert result.exit_code == 2
    assert "no finished runs" in result.output

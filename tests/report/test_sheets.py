"""The workbook of a real sweep: intervals, ties, pivots, defects, seeds, pictures, links; opened by LibreOffice."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openpyxl import load_workbook
from openpyxl.workbook import Workbook

from harness.metrics.best import LEVEL, compare_with_best
from harness.metrics.delong import difference
from harness.report.comparisons import AVERAGE, pivot_table, seeds_table
from harness.report.excel import build_workbook
from harness.report.results import Results
from harness.report.standings import AS_GOOD, BEST, SIMILAR, WORSE, difference_interval, interval, of_configurations
from harness.results.store import ResultFolder
from tests.conftest import Cli, read_me

OFFICE = shutil.which("soffice")
SHEETS = ["Summary", "Read me", "Pivot image", "Pivot pixel", "Ranks", "Runs", "Misses", "Defects", "Seeds",
          "Environment", "Config", "Failures"]  # fmt: skip


@pytest.fixture(scope="module")
def book(sweep_folder: ResultFolder) -> Iterator[Workbook]:
    workbook = load_workbook(sweep_folder.workbook)
    yield workbook
    workbook.close()


def rows(book: Workbook, sheet: str) -> list[dict[str, Any]]:
    """Rows below the header, which is the first row with a value in its second column."""
    lines = list(book[sheet].iter_rows(values_only=True))
    top = next(index for index, line in enumerate(lines) if line[1] is not None)
    return [dict(zip(map(str, lines[top]), line, strict=True)) for line in lines[top + 1 :]]


def test_sheets(book: Workbook) -> None:
    assert book.sheetnames == SHEETS


def test_every_run_has_its_interval_and_stands_somewhere(sweep_folder: ResultFolder, book: Workbook) -> None:
    records = {record.run_id: record for record in sweep_folder.records()}
    finished = [row for row in rows(book, "Runs") if row["status"] == "ok"]
    assert len(finished) == 16
    for row in finished:
        assert row["image_AUROC_low"] <= row["image_AUROC"] <= row["image_AUROC_high"]
        ends = [row["image_AUROC_low"], row["image_AUROC_high"]]
        assert ends == pytest.approx(records[row["run"]].intervals["image_AUROC"])
        assert row["vs_best"] in {BEST, AS_GOOD, SIMILAR, WORSE}
        assert (row["p_vs_best"] is None) == (row["may_be_lower_by"] is None) == (row["vs_best"] == BEST)
        if row["p_vs_best"] is not None:
            assert (row["vs_best"] == AS_GOOD) == (row["may_be_lower_by"] < 0.01)
            assert (row["vs_best"] == WORSE) <= (row["p_vs_best"] < LEVEL)
            assert (row["vs_best"] == SIMILAR) <= (row["p_vs_best"] >= LEVEL)
    for category in ("plate", "fabric"):
        of_category = [row for row in finished if row["category"] == category]
        (best,) = [row for row in of_category if row["vs_best"] == "best"]
        assert best["image_AUROC"] == max(row["image_AUROC"] for row in of_category)


def test_costs_are_in_the_sheet_in_people_s_units(book: Workbook) -> None:
    row = next(row for row in rows(book, "Runs") if row["power"] == 3 and row["status"] == "ok")
    assert (row["ms_per_image_p50"], row["ms_per_image_p95"]) == (pytest.approx(3), pytest.approx(6))
    assert row["model_MB"] == pytest.approx(4e-6)
    assert (row["fit_seconds"], row["spent_seconds"]) == (0, 0)


def test_pivots_average_categories_and_mark_the_best(sweep_folder: ResultFolder, book: Workbook) -> None:
    table = pivot_table(Results.of(sweep_folder), ["pixel_AUROC", "pixel_AUPRO"])
    assert table["category"].tolist() == ["fabric", "plate", AVERAGE] * 2
    for block in (table.iloc[:3], table.iloc[3:]):
        values = block.iloc[:, 2:].to_numpy(dtype=float)
        assert values[2] == pytest.approx(values[:2].mean(axis=0))
    sheet = book["Pivot pixel"]
    for row in sheet.iter_rows(min_row=2):
        values = [round(cell.value, 3) for cell in row[2:]]
        assert [cell.font.b for cell in row[2:]] == [value == max(values) for value in values]
    # A seed's own figures are those of its run.
    records = [
        r for r in sweep_folder.records() if r.status == "ok" and r.spec["category"] == "plate" and not r.spec["params"]
    ]
    mean = np.mean([record.metrics["pixel_AUROC"] for record in records])
    assert table.loc[1, next(name for name in table if str(name).startswith("plain"))] == pytest.approx(mean)


def test_a_setting_without_all_categories_has_no_average(sweep_folder: ResultFolder) -> None:
    records = sweep_folder.records()
    gone = next(r for r in records if r.status == "ok" and r.spec["params"].get("power") == 3)
    same = [
        r for r in records if r.spec["params"] == gone.spec["params"] and r.spec["category"] == gone.spec["category"]
    ]
    table = pivot_table(Results(sweep_folder, [r for r in records if r not in same]), ["image_AUROC"])
    column = next(name for name in table if "power 3" in str(name))
    blank = table[column].isna()
    assert table.loc[blank, "category"].tolist() in ([AVERAGE, gone.spec["category"]], [gone.spec["category"], AVERAGE])


def test_seeds_have_mean_and_deviation_rows(sweep_folder: ResultFolder, book: Workbook) -> None:
    table = seeds_table(Results.of(sweep_folder))
    assert table["seed"].tolist() == [0, 1, "mean", "sd"] * 8
    values = table["pixel_AUROC"].tolist()[:4]
    assert values[2] == pytest.approx(np.mean(values[:2]))
    assert values[3] == pytest.approx(np.std(values[:2], ddof=1))
    assert [row["seed"] for row in rows(book, "Seeds")][:4] == [0, 1, "mean", "sd"]


def test_defects_are_measured_against_all_normal_images(sweep_folder: ResultFolder, book: Workbook) -> None:
    defect_rows = rows(book, "Defects")
    assert {(row["category"], row["defect_type"]) for row in defect_rows} >= {("plate", "dent"), ("plate", "scratch")}
    row = defect_rows[0]
    scores = Results.of(sweep_folder).scores(row["run"])
    assert scores is not None
    good = scores.scores[~scores.labels]
    bad = scores.scores[[kind == row["defect_type"] for kind in scores.defects]]
    assert row["images"] == len(bad)
    assert row["image_AUROC"] == pytest.approx(np.mean(bad[:, None] > good) + np.mean(bad[:, None] == good) / 2)


def test_runs_link_to_their_folders(sweep_folder: ResultFolder, book: Workbook) -> None:
    sheet = book["Runs"]
    column = [cell.value for cell in sheet[1]].index("run") + 1
    for row in range(2, sheet.max_row + 1):
        cell = sheet.cell(row, column)
        assert cell.hyperlink is not None
        assert (sweep_folder.root / str(cell.hyperlink.target) / "record.json").is_file()
        assert cell.value in str(cell.hyperlink.target)


def test_metric_columns_have_a_colour_scale_and_counts_have_none(book: Workbook) -> None:
    sheet = book["Runs"]
    header = [cell.value for cell in sheet[1]]
    scaled = {str(area.sqref).rstrip("0123456789").partition(":")[0].rstrip("0123456789")
              for area in sheet.conditional_formatting}  # fmt: skip
    letters = {name: sheet.cell(1, index).column_letter for index, name in enumerate(header, 1)}
    assert letters["image_AUROC"] in scaled
    assert letters["pixel_AUPRO"] in scaled
    assert letters["image_FalsePositives"] not in scaled
    assert letters["ms_per_image_p50"] not in scaled


def test_the_worst_misses_are_pictured(book: Workbook) -> None:
    sheet = book["Misses"]
    captions = [str(cell.value) for row in sheet.iter_rows(min_row=2, min_col=3) for cell in row if cell.value]
    assert len(sheet._images) == len(captions) > 0  # type: ignore[attr-defined]
    # Found defects are no misses.
    assert {text.split(":")[0] for text in captions} <= {"missed", "false-alarm"}
    for picture in sheet._images:  # type: ignore[attr-defined]
        assert picture.height >= 128
    for row in range(2, sheet.max_row + 1):
        height = sheet.row_dimensions[row].height
        assert height is not None
        # 0.75 points of a pixel, and at least one line below the picture.
        assert height >= 128 * 0.75 + 18
        assert all(sheet.cell(row, column).alignment.wrap_text for column in range(3, sheet.max_column + 1))


def test_environment_and_config_are_told(sweep_folder: ResultFolder, book: Workbook) -> None:
    facts = {row["fact"]: row for row in rows(book, "Environment")}
    assert {"harness", "python", "torch", "numpy", "cpu", "data plate", "data fabric"} <= set(facts)
    assert facts["numpy"]["value"] == np.__version__
    assert facts["data plate"]["runs"] == 10
    lines = [row[0] for row in book["Config"].iter_rows(min_row=2, values_only=True)]
    assert "\n".join(str(line) for line in lines) == sweep_folder.config.read_text().rstrip()


def test_the_summary_is_of_all_categories_and_seeds(sweep_folder: ResultFolder) -> None:
    """The interval is that of the mean, narrower than a single category's; the test is DeLong's over both."""
    results = Results.of(sweep_folder)
    (configurations,) = results.configurations.values()
    best, other = configurations[0], configurations[-1]
    ends = interval(results, best)
    assert ends is not None
    assert ends[0] <= (best.metric("image_AUROC") or -1) <= ends[1]
    widths = [r.intervals["image_AUROC"][1] - r.intervals["image_AUROC"][0] for r in best.records]
    assert ends[1] - ends[0] < max(widths)
    first, second = of_configurations(results, [best, other])
    assert (first.mark, first.p) == ("best", None)
    parts = []
    for configuration in (best, other):
        one = {name: [results.components(r.run_id) for r in runs] for name, runs in configuration.by_category.items()}
        parts.append([type(c[0]).mean(c) for c in one.values() if c[0] is not None])  # type: ignore[arg-type]
    comparison = compare_with_best(parts)
    assert comparison is not None
    assert (second.p, second.upper) == (comparison.p[1], comparison.upper[1])
    ends, expected = difference_interval(results, best, other), difference(parts[0], parts[1])
    assert ends is not None and expected is not None
    assert ends[0] == pytest.approx((best.metric("image_AUROC") or 0) - (other.metric("image_AUROC") or 0))
    assert ends[2] - ends[1] == pytest.approx(2 * 1.959964 * expected[1])


def test_validation_on_test_images_is_marked(cli: Cli, dummy: type, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(
        "data: {kind: toy, category: plate, size: 64, train: 4, good: 2, bad: 1, val: 0}\nweights: random\n"
        "grid: {backend: dummy, model: plain}\n"
    )
    assert cli("sweep", config).exit_code == 0
    book = load_workbook("results/c/models_comparing.xlsx")
    assert any("VALIDATED ON TEST IMAGES in 1 of 1 runs" in sentence for sentence in read_me(book))
    (row,) = rows(book, "Runs")
    assert (row["backend_validates_on"], row["threshold_from"]) == ("test images", "none: data.val is 0")
    cell = next(cell for cell in book["Runs"][2] if cell.value == "test images")
    assert cell.fill.fgColor.rgb == "00FFE699"


def test_f1_on_val_takes_labelled_images_out_of_the_test_set(cli: Cli, dummy: type, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(
        "data: {kind: toy, category: plate, size: 64, train: 4, good: 6, bad: 4}\nweights: random\n"
        "threshold: {method: f1_on_val, share: 0.5}\ngrid: {backend: dummy, model: plain}\n"
    )
    assert cli("sweep", config).exit_code == 0
    (record,) = ResultFolder(Path("results/c")).records()
    assert (record.data["test"], record.data["test_anomalous"], record.data["taken"]) == (9, 6, 9)
    assert record.thresholds["fixed_by"] == "best F1 on 3 normal and 6 anomalous images taken out of the test set"
    scores = Results.of(ResultFolder(Path("results/c"))).scores(record.run_id)
    assert scores is not None
    assert len(scores.names) == 9
    lines = (Path("results/c/runs") / record.run_id / "scores.csv").read_text().splitlines()[1:]
    roles = [line.rsplit(",", 1)[1] for line in lines]
    assert {role: roles.count(role) for role in roles} == {"test": 9, "validation": 9}


def test_f1_on_val_with_too_few_images_is_refused_before_any_work(cli: Cli, dummy: type, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(
        "data: {kind: toy, category: plate, size: 64, train: 4, good: 1, bad: 4}\nweights: random\n"
        "threshold: f1_on_val\ngrid: {backend: dummy, model: plain}\n"
    )
    result = cli("sweep", config)
    assert result.exit_code == 2
    assert "1 normal test images found, too few for a validation set" in result.output
    assert not Path("results/c").exists()


def test_records_of_the_first_format_are_still_read(sweep_folder: ResultFolder, tmp_path: Path) -> None:
    copy = ResultFolder(tmp_path / "old")
    shutil.copytree(sweep_folder.root, copy.root)
    for file in copy.runs.glob("*/record.json"):
        record = json.loads(file.read_text())
        record["schema"] = 1
        for key in ("intervals", "defects", "cost"):
            del record[key]
        del record["spec"]["aupro_limit"]
        record["data"].pop("validation", None)
        file.write_text(json.dumps(record))
        scores = file.with_name("scores.csv")
        if scores.is_file():
            # No role.
            lines = scores.read_text().splitlines()
            scores.write_text("\n".join(line.rsplit(",", 1)[0] for line in lines) + "\n")
            file.with_name("details.json").unlink()
    results = Results.of(copy)
    assert len(results.ok()) == 16
    assert all(results.components(record.run_id) for record in results.ok())
    assert load_workbook(BytesIO(build_workbook(results))).sheetnames[0] == "Summary"


@pytest.mark.skipif(OFFICE is None, reason="needs LibreOffice: Debian's libreoffice-calc")
@pytest.mark.slow
def test_libreoffice_opens_it_as_it_is(sweep_folder: ResultFolder, book: Workbook, tmp_path: Path) -> None:
    """A damaged file is repaired or refused; here every sheet comes out with the same cells."""
    shutil.copy(sweep_folder.workbook, tmp_path / "sheet.xlsx")
    convert = [str(OFFICE), "--headless", f"-env:UserInstallation=file://{tmp_path}/profile", "--convert-to",
               "ods", "--outdir", str(tmp_path / "out"), str(tmp_path / "sheet.xlsx")]  # fmt: skip
    process = subprocess.run(convert, capture_output=True, text=True, timeout=120, check=False)
    assert process.returncode == 0, process.stderr
    back = [*convert[:4], "xlsx", "--outdir", str(tmp_path / "back"), str(tmp_path / "out/sheet.ods")]
    subprocess.run(back, capture_output=True, timeout=120, check=True)
    again = load_workbook(tmp_path / "back/sheet.xlsx")
    assert again.sheetnames == SHEETS
    for name in ("Summary", "Pivot pixel", "Ranks", "Runs", "Defects", "Seeds", "Environment"):
        ours = [[cell for cell in row if cell is not None] for row in book[name].iter_rows(values_only=True)]
        theirs = [[cell for cell in row if cell is not None] for row in again[name].iter_rows(values_only=True)]
        assert [len(row) for row in theirs] == [len(row) for row in ours], name
        texts = [[cell for row in part for cell in row if isinstance(cell, str)] for part in (ours, theirs)]
        numbers = [[cell for row in part for cell in row if isinstance(cell, int | float)] for part in (ours, theirs)]
        assert texts[0] == texts[1], name
        assert numbers[0] == pytest.approx(numbers[1]), name
    assert again["Runs"].auto_filter.ref == book["Runs"].auto_filter.ref


def test_a_pivot_shows_the_best_settings_where_there_are_too_many(sweep_folder: ResultFolder) -> None:
    one = next(record for record in sweep_folder.records() if record.status == "ok")
    records = [
        replace(
            one, run_id=f"run-{i}", spec={**one.spec, "params": {"power": float(i)}}, metrics={"image_AUROC": i / 300}
        )
        for i in range(300)
    ]
    book = load_workbook(BytesIO(build_workbook(Results(ResultFolder(Path("nowhere")), records))))
    assert book["Runs"].max_row == 301
    assert book["Pivot image"].max_column == 2 + 200
    assert "The 200 best of 300 configurations (all axes but category and seed); Runs has all." in read_me(book)
    assert str(book["Pivot image"].cell(1, 3).value).endswith("power 299.0")

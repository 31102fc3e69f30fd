"""The sheet that people open."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from openpyxl import load_workbook
from openpyxl.workbook import Workbook

from harness import registry
from harness.report.comparisons import summary_table
from harness.report.detection_page import _data
from harness.report.excel import build_workbook
from harness.report.facts import HEADLINE
from harness.report.results import Results
from harness.report.sheets import Sheet, add_sheet
from harness.report.tables import runs_table
from harness.results.record import RunRecord
from harness.results.store import ResultFolder
from tests.report.conftest import FAIR, GOOD, Run


def cells(content: bytes) -> dict[str, list[tuple[object, ...]]]:
    """The values of all cells of a workbook's file, by sheet."""
    return {sheet.title: list(sheet.iter_rows(values_only=True)) for sheet in load_workbook(io.BytesIO(content))}


def record(number: int, **changes: Any) -> RunRecord:
    """A finished run; `metrics`, `spec`, `data` ... are merged into the defaults."""
    values: dict[str, Any] = {
        "run_id": f"run-{number}",
        "status": "ok",
        "spec": {
            "backend": "anomalib",
            "model": "patchcore",
            "backbone": "resnet18",
            "layers": ["layer2", "layer3"],
            "image_size": [64, 64],
            "params": {"coreset_sampling_ratio": 0.1, "num_neighbors": 9},
            "seed": 0,
            "data_kind": "mvtec",
            "category": "plate",
            "weights": "auto",
            "trainer": {},
            "train_batch_size": 32,
            "eval_batch_size": 32,
            "threshold": {"method": "none"},
        },
        "axes": ["coreset_sampling_ratio"],
        "data": {"kind": "mvtec", "category": "plate", "root": "/d/plate", "fingerprint": "f", "train": 1, "val": 1,
                 "test": 2, "test_anomalous": 1, "masks": True},
        "weights": {"policy": "auto", "source": "file", "sha256": "a" * 64},
        "metrics": {"image_AUROC": 0.5 + number / 100, "image_F1Score": 0.4, "pixel_AUROC": None},
        "thresholds": {"image": 1.23456, "pixel": None, "fixed_by": "3 held-out normal images"},
        "seconds": {"fit": 1.0, "test": 2.0, "total": 3.0},
        "device": "cpu",
        "provenance": {"began": "2026-01-01T00:00:00"},
    }  # fmt: skip
    for key, change in changes.items():
        values[key] = {**values[key], **change} if isinstance(values.get(key), dict) else change
    return RunRecord(**values)


def failure(number: int, message: str = "boom") -> RunRecord:
    return record(number, status="failed", metrics={}, error={"type": "E", "message": message, "traceback": "T\n" * 9})


def results(records: list[RunRecord]) -> Results:
    return Results(ResultFolder(Path("nowhere")), records)


def workbook(records: list[RunRecord]) -> Workbook:
    return load_workbook(io.BytesIO(build_workbook(results(records))))


def test_sheets_header_filters_and_format() -> None:
    book = workbook([record(1), record(2, **spec(params={"coreset_sampling_ratio": 0.2}))])
    assert book.sheetnames == ["Summary", "Read me", "Pivot image", "Runs", "Environment", "Config", "Failures"]
    for name in ("Summary", "Runs"):
        sheet = book[name]
        assert sheet.freeze_panes is not None
        assert sheet.freeze_panes.endswith("2")
        assert sheet.auto_filter.ref.startswith("A1:")
    header = [cell.value for cell in book["Summary"][1]]
    assert header[:6] == ["configuration", "recommended", *HEADLINE]
    assert header[6:9] == ["image_AUROC 95%", "vs_best", "ms_per_image_p50"]
    runs = {cell.value: index for index, cell in enumerate(book["Runs"][1], 1)}
    assert book["Runs"].cell(2, runs["image_AUROC"]).number_format == "0.000"
    assert book["Runs"].cell(2, runs["coreset_sampling_ratio"]).value == 0.2
    assert "num_neighbors" not in runs  # not an axis of the grid


def test_best_is_bold_in_each_category_and_blank_is_blank() -> None:
    other = {"spec": {**record(0).spec, "category": "flange"}}
    sheet = workbook([record(1), record(2), record(3, **other), record(4, **other)])["Runs"]
    column = {cell.value: index for index, cell in enumerate(sheet[1], 1)}
    bold = [sheet.cell(row, column["image_AUROC"]).font.b for row in range(2, 6)]
    assert bold == [True, False, True, False]
    assert all(sheet.cell(row, column["pixel_AUROC"]).value is None for row in range(2, 6))


def test_of_an_error_rate_the_smallest_is_bold_and_coloured() -> None:
    rates = {"image_FPR95": 0.4}, {"image_FPR95": 0.1}, {"image_FPR95": 0.2}
    sheet = workbook([record(number, metrics=one) for number, one in enumerate(rates)])["Runs"]
    column = {cell.value: index for index, cell in enumerate(sheet[1], 1)}
    shown = {sheet.cell(row, column["image_FPR95"]).value: sheet.cell(row, column["image_FPR95"]) for row in (2, 3, 4)}
    assert [value for value, cell in shown.items() if cell.font.b] == [0.1]
    ends = {}
    for area in sheet.conditional_formatting:
        scale = area.rules[0].colorScale
        ends[next(iter(area.sqref.ranges)).min_col] = [colour.rgb[-6:] for colour in scale.color]
    assert ends[column["image_FPR95"]] == ["7FB2DD", "FFFFFF"]
    assert ends[column["image_AUROC"]] == ["FFFFFF", "7FB2DD"]


def test_no_text_is_cut() -> None:
    sheet = workbook([record(1), record(2)])["Runs"]
    for cells in sheet.columns:
        width = sheet.column_dimensions[cells[0].column_letter].width
        for cell in cells:
            shown = f"{cell.value:.3f}" if isinstance(cell.value, float) else str(cell.value or "")
            assert len(shown) <= width or cell.alignment.wrap_text


def test_failures_show_the_end_of_their_traceback_in_rows_tall_enough() -> None:
    text = "\n".join(f"line {number}" for number in range(100))
    error = {"type": "E", "message": "boom", "traceback": text}
    sheet = workbook([record(1, status="failed", metrics={}, error=error)])["Failures"]
    shown = str(sheet.cell(2, sheet.max_column).value).split("\n")
    assert (shown[0], shown[-1]) == ("... (84 more lines in record.json)", "line 99")
    height = sheet.row_dimensions[2].height
    assert height is not None
    assert len(shown) * 13 <= height <= 409


def test_nothing_starts_a_formula_and_odd_characters_survive() -> None:
    messages = ["=1+1", "@SUM(A1)", "+cmd|' /C calc'!A0", "-2", "bell\x07 and \x00"]
    sheet = workbook([failure(i, message) for i, message in enumerate(messages)])["Failures"]
    column = {cell.value: index for index, cell in enumerate(sheet[1], 1)}["message"]
    cells = [sheet.cell(row, column) for row in range(2, 7)]
    assert [cell.value for cell in cells[:4]] == messages[:4]
    assert all(cell.data_type == "s" for cell in cells)
    assert "bell\N{REPLACEMENT CHARACTER} and" in str(cells[4].value)


def test_a_very_long_text_still_opens() -> None:
    sheet = workbook([failure(1, "x" * 100_000)])["Failures"]
    assert max(len(str(cell.value or "")) for row in sheet.rows for cell in row) < 32_767


def test_random_fallback_and_failures_are_said_at_the_head() -> None:
    fallen = record(1, weights={"source": "random", "fallback": True, "sha256": None})
    book = workbook([fallen, failure(2)])
    notices = [row[1] for row in book["Read me"].iter_rows(values_only=True) if row[0] == "notice"]
    assert notices[0].startswith("RANDOM WEIGHTS in 1 of 1 runs")
    assert "1 of 2 runs failed" in notices[1]
    first = book["Summary"]["A1"]
    assert first.value == "configuration"
    assert first.comment is not None
    assert all(notice in first.comment.text for notice in notices)
    assert first.fill.fgColor.rgb[-6:] == "FFE699"
    assert book["Runs"]["A1"].value == "category"
    assert "random (fallback)" in [cell.value for cell in book["Runs"][2]]


def test_the_summary_begins_with_the_recommended_configuration_and_folds_the_rest() -> None:
    book = workbook([record(1), record(2, metrics={"image_AUROC": 0.7}, **spec(params={"k": 3}))])
    frame = pd.read_excel(io.BytesIO(build_workbook(results([record(1)]))))
    assert frame["recommended"].iloc[0] == "leading"
    sheet = book["Summary"]
    columns = {cell.value: cell.column_letter for cell in sheet[1]}
    folded = {name for name, letter in columns.items() if sheet.column_dimensions[letter].hidden}
    assert {"model", "best_run", "image_AP", "p_vs_best"} <= folded
    assert not {"configuration", "recommended", *HEADLINE, "vs_best", "ms_per_image_p50"} & folded
    assert sheet["A2"].font.b
    assert sheet["A2"].fill.fgColor.rgb[-6:] == "E2EFDA"


def test_a_printed_page_has_few_columns_and_repeats_the_header() -> None:
    book = workbook([record(1), record(2)])
    assert book["Summary"].page_setup.fitToWidth == 1
    # The name of a real configuration is long: it takes two lines, and not the width of the page.
    long = {"model": "patchcore", "backbone": "tf_efficientnet_lite2", "layers": ["blocks.1", "blocks.2", "blocks.4"]}
    named = workbook([record(1), record(2, **spec(**long)), record(3, **spec(**{**long, "params": {"k": 1}}))])[
        "Summary"
    ]
    assert named.page_setup.fitToWidth == 1
    assert named.column_dimensions["A"].width <= 42
    runs = book["Runs"]
    shown = sum(runs.column_dimensions[cell.column_letter].width for cell in runs[1])
    assert runs.page_setup.fitToWidth >= shown / 210 > 1
    for sheet in (book["Summary"], runs):
        assert sheet.page_setup.orientation == "landscape"
        assert sheet.print_title_rows == "$1:$1"
        assert sheet.print_title_cols == "$A:$A"


def test_small_differences_have_nearly_the_same_colour() -> None:
    sheet = workbook([record(1, metrics={"image_AUROC": 0.998}), record(2, metrics={"image_AUROC": 0.999})])["Runs"]
    column = {cell.value: cell.column_letter for cell in sheet[1]}["image_AUROC"]
    (scale,) = [area.rules[0].colorScale for area in sheet.conditional_formatting if str(area.sqref).startswith(column)]
    low, high = (float(end.val) for end in scale.cfvo)
    assert (low, high) == (pytest.approx(0.899), 0.999)


def ends_of_scale(values: list[float], marks: list[str | None]) -> tuple[float, float] | None:
    """The values with the first and the last colour of image AUROC; None without colours."""
    book = Workbook()
    frame = pd.DataFrame({"image_AUROC": values, "vs_best": marks})
    sheet = add_sheet(book, Sheet("Summary", frame, scaled=["image_AUROC"]))
    scales = [area.rules[0].colorScale for area in sheet.conditional_formatting]
    return (float(scales[0].cfvo[0].val), float(scales[0].cfvo[1].val)) if scales else None


def test_values_without_a_significant_difference_have_similar_colours() -> None:
    alike = "no significant difference"
    # 0.5 is in the middle of the colours, although it is the lowest value.
    assert ends_of_scale([0.9, 0.7, 0.5], ["best", alike, alike]) == (pytest.approx(0.1), 0.9)
    # A value that is significantly worse may have the last colour.
    assert ends_of_scale([0.9, 0.8, 0.5], ["best", alike, "worse"]) == (0.5, 0.9)
    assert ends_of_scale([0.9, 0.8, 0.2], ["best", None, "worse"]) == (0.2, 0.9)


def test_equal_values_have_no_colours() -> None:
    assert ends_of_scale([0.0, 0.0], [None, None]) is None


def test_empty_results_make_a_valid_workbook() -> None:
    book = workbook([])
    assert book["Summary"]["A1"].value == "no finished runs yet"
    assert book["Failures"]["A1"].value == "no failures"


def spec(**changes: Any) -> dict[str, Any]:
    return {"spec": {**record(0).spec, **changes}}


def test_summary_takes_the_best_mean_setting_of_each_model() -> None:
    def run(number: int, category: str, ratio: float, auroc: float) -> RunRecord:
        return record(
            number,
            metrics={"image_AUROC": auroc},
            data={"category": category, "root": f"/d/{category}", "fingerprint": category},
            **spec(category=category, params={"coreset_sampling_ratio": ratio}),
        )

    records = [
        run(1, "a", 0.1, 1.0),
        run(2, "b", 0.1, 0.5),
        run(3, "a", 0.2, 0.9),
        run(4, "b", 0.2, 0.9),
        run(5, "a", 0.3, 0.99),  # not run on b: an incomplete configuration does not win
        record(6, metrics={"image_AUROC": 0.7}, **spec(model="padim", params={}, category="a")),
    ]
    table = summary_table(results(records))
    assert table["model"].tolist() == ["patchcore", "padim"]
    first = table.iloc[0]
    assert first["image_AUROC"] == 0.9
    assert first["coreset_sampling_ratio"] == 0.2
    assert (first["runs"], first["configurations_tried"], first["categories"]) == (2, 3, "a, b")


def test_summary_forgets_runs_on_data_that_was_changed_since() -> None:
    old = record(1, metrics={"image_AUROC": 1.0}, data={"fingerprint": "old"})
    new = record(2, metrics={"image_AUROC": 0.6}, data={"fingerprint": "new"}, provenance={"began": "2026-02-01"})
    assert summary_table(results([old, new]))["image_AUROC"].tolist() == [0.6]
    assert len(runs_table(results([old, new]))) == 2


def test_summary_does_not_mix_random_and_real_weights() -> None:
    fallen = record(1, metrics={"image_AUROC": 0.4}, weights={"source": "random", "fallback": True, "sha256": None})
    table = summary_table(results([fallen, record(2, metrics={"image_AUROC": 0.6})]))
    assert table["image_AUROC"].tolist() == [0.6]
    assert table["runs"].tolist() == [1]


def test_summary_keeps_categories_that_share_a_root() -> None:
    records = [
        record(n, metrics={"image_AUROC": 0.6}, data={"root": "/d", "fingerprint": c}, **spec(category=c))
        for n, c in enumerate("ab")
    ]
    assert summary_table(results(records))["categories"].tolist() == ["a, b"]


def test_whole_numbers_stay_whole_beside_runs_without_the_parameter() -> None:
    records = [
        record(1, axes=["num_neighbors"]),
        record(2, **spec(model="padim", params={"n_features": 50}), axes=["n_features"]),
    ]
    sheet = workbook(records)["Runs"]
    column = {cell.value: index for index, cell in enumerate(sheet[1], 1)}
    values = [sheet.cell(row, column["num_neighbors"]).value for row in (2, 3)]
    assert sorted(map(str, values)) == ["9", "None"]


def test_an_optional_metric_has_a_column_only_where_some_run_has_a_value(
    folder: ResultFolder, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(GOOD)
    before = [list(table(Results.of(folder))) for table in (runs_table, summary_table)]
    sheets = cells(build_workbook(Results.of(folder)))
    optional = registry.Metric("Optional", "pixel", higher_is_better=False, optional=True)
    monkeypatch.setattr(registry, "METRICS", (*registry.METRICS, optional))
    assert [list(table(Results.of(folder))) for table in (runs_table, summary_table)] == before
    assert cells(build_workbook(Results.of(folder))) == sheets
    assert "pixel_Optional" not in _data(Results.of(folder))["metrics"]
    run(FAIR, spec={"seed": 1}, metrics={"pixel_Optional": 0.25})
    results = Results.of(folder)
    assert runs_table(results)["pixel_Optional"].dropna().tolist() == [0.25]
    assert "pixel_Optional" in summary_table(results)
    data = _data(results)
    assert "pixel_Optional" in data["metrics"]
    assert "pixel_Optional" in data["falling"]

"""What is compared with what: configurations, ties and the recommendation, on made-up runs of every awkward kind."""

from __future__ import annotations

from io import BytesIO

import pandas as pd
import pytest
from openpyxl import load_workbook
from rich.console import Console

from harness.report.comparisons import pivot_table, summary_table
from harness.report.configurations import facts, key_without
from harness.report.detection import best_table
from harness.report.detection_page import _data
from harness.report.excel import build_workbook
from harness.report.notices import notices
from harness.report.recommend import Recommendation, answers
from harness.report.results import Results
from harness.report.tables import busy_cells, runs_table
from harness.results.store import ResultFolder
from tests.conftest import Cli
from tests.report.conftest import FAIR, GOOD, NOISE, POOR, Run


def answer(folder: ResultFolder) -> Recommendation:
    (recommendation,) = answers(Results.of(folder))
    return recommendation


def names(folder: ResultFolder) -> list[str]:
    return [
        configuration.name for of_dataset in Results.of(folder).configurations.values() for configuration in of_dataset
    ]


def test_another_share_of_held_out_images_is_another_setting_on_the_same_test_images(
    folder: ResultFolder, run: Run, cli: Cli
) -> None:
    run(GOOD)
    run(FAIR, data={"fingerprint": "other roles", "held_out": [0.0, 0]}, provenance={"began": "2026-02-01"})
    assert names(folder) == ["patchcore val 0.1", "patchcore val 0.0"]
    assert notices(Results.of(folder)) == []
    assert runs_table(Results.of(folder))["vs_best"].tolist()[0] == "best"
    compared = cli("compare", folder.run_folder("run-0"), folder.run_folder("run-1"))
    assert compared.exit_code == 0, compared.output


def test_runs_on_changed_test_images_are_left_out_and_that_is_said(folder: ResultFolder, run: Run) -> None:
    run(GOOD, data={"test_fingerprint": "old"}, params={"k": 1})
    run(FAIR, provenance={"began": "2026-02-01"}, params={"k": 2})
    assert len(names(folder)) == 1
    (notice,) = notices(Results.of(folder))
    assert notice.startswith("1 of 2 runs are shown in Runs only: their test images were changed since")


def test_of_the_same_setting_run_again_the_later_counts(folder: ResultFolder, run: Run) -> None:
    run(GOOD)
    run(FAIR, data={"fingerprint": "more training images"}, provenance={"began": "2026-02-01"})
    ((configuration,),) = Results.of(folder).configurations.values()
    assert [record.run_id for record in configuration.records] == ["run-1"]
    assert len(notices(Results.of(folder))) == 1


def test_what_tells_settings_apart_is_named_whatever_it_is(folder: ResultFolder, run: Run) -> None:
    for size in (8, 16):
        run(GOOD, spec={"eval_batch_size": size})
    run(GOOD, spec={"threshold": {"method": "fixed", "image": 3.5}})
    assert sorted(names(folder)) == [
        "patchcore eval_batch_size 16 threshold.method none",
        "patchcore eval_batch_size 32 threshold.method fixed",
        "patchcore eval_batch_size 8 threshold.method none",
    ]


def test_a_parameter_with_one_value_is_named_only_where_nothing_else_tells(folder: ResultFolder, run: Run) -> None:
    run(GOOD, params={"coreset_sampling_ratio": 0.1})
    run(GOOD, spec={"model": "padim"})
    assert sorted(names(folder)) == ["padim", "patchcore"]
    run(GOOD)
    assert "patchcore coreset_sampling_ratio 0.1" in names(folder)


def test_lines_join_what_differs_in_the_axis_only(folder: ResultFolder, run: Run) -> None:
    one = facts(run(GOOD, params={"ratio": 0.1}, spec={"trainer": {"max_epochs": 1}}))
    same = facts(run(GOOD, params={"ratio": 0.2}, spec={"trainer": {"max_epochs": 1}}))
    other = facts(run(GOOD, params={"ratio": 0.2}, spec={"trainer": {"max_epochs": 2}}))
    assert key_without(one, "ratio") == key_without(same, "ratio")
    assert key_without(one, "ratio") != key_without(other, "ratio")


def test_the_answer_warns_of_choosing_on_the_test_images(folder: ResultFolder, run: Run) -> None:
    run(GOOD, params={"k": 1})
    assert answer(folder).reasons[1] == "It is the only configuration."
    run(POOR, params={"k": 2})
    assert answer(folder).reasons[1] == (
        "It has the highest mean image AUROC of 2 configurations. "
        "Compared with the best: 1 worse (significantly, at 5%). "
        "The best of 2 is chosen by these very images: expect an image AUROC of about 1.000 on new ones "
        "(bootstrap bias corrected)."
    )


def test_what_could_not_be_tested_is_not_called_worse(folder: ResultFolder, run: Run) -> None:
    run(GOOD, params={"k": 1})
    run(FAIR, params={"k": 2})
    (folder.run_folder("run-1") / "scores.csv").unlink()
    why = answer(folder).reasons[1]
    assert "1 not tested: too few images of a class, or no scores.csv." in why
    assert "worse" not in why


def test_nobody_is_marked_where_the_best_can_not_be_tested(folder: ResultFolder, run: Run) -> None:
    for number, values in enumerate((GOOD, FAIR, POOR)):
        run(values, params={"k": number})
    (folder.run_folder("run-0") / "scores.csv").unlink()
    assert runs_table(Results.of(folder))["vs_best"].isna().all()


def test_a_model_without_maps_is_not_as_good_in_pixels(folder: ResultFolder, run: Run) -> None:
    run(GOOD, metrics={"pixel_AUROC": 0.9, "pixel_AUPRO": 0.9})
    run(GOOD, spec={"model": "dfkde"}, cost={"seconds_p50": 0.001})
    chosen = answer(folder).configuration
    assert chosen is not None
    assert chosen.name == "patchcore"


def test_a_faster_setting_is_taken_only_on_the_same_machine(folder: ResultFolder, run: Run) -> None:
    run(GOOD, params={"k": 1}, metrics={"image_AUROC": 0.999})
    run(GOOD, params={"k": 2}, metrics={"image_AUROC": 0.998}, cost={"seconds_p50": 0.001}, device="cuda:0, H100")
    chosen = answer(folder).configuration
    assert chosen is not None
    assert chosen.name == "patchcore k 1"
    run(GOOD, params={"k": 3}, metrics={"image_AUROC": 0.998}, cost={"seconds_p50": 0.005})
    chosen = answer(folder).configuration
    assert chosen is not None
    assert chosen.name == "patchcore k 3"
    assert "instead of 10.0" in answer(folder).reasons[1]


def test_a_category_of_one_class_does_not_take_the_answer_away(folder: ResultFolder, run: Run) -> None:
    for model in ("patchcore", "padim"):
        run(GOOD if model == "padim" else FAIR, spec={"model": model})
        run(NOISE.tolist(), [0] * 40, spec={"model": model, "category": "cable"})
    recommendation = answer(folder)
    assert recommendation.configuration is not None
    assert recommendation.configuration.name == "padim"
    assert "Image AUROC is undefined on cable (one class only): left out of the mean." in recommendation.reasons
    assert recommendation.others or "worse at 5%" in recommendation.reasons[1]


def test_settings_without_all_categories_are_left_out_by_name(folder: ResultFolder, run: Run) -> None:
    for category in ("bottle", "cable"):
        run(FAIR, spec={"category": category}, params={"k": 1})
    run(GOOD, params={"k": 2})
    recommendation = answer(folder)
    assert recommendation.configuration is not None
    assert recommendation.configuration.name == "patchcore k 1"
    assert recommendation.reasons[1] == "It is the only configuration."
    assert "1 configurations lack runs on some categories and are left out." in recommendation.reasons


def two_datasets(run: Run) -> None:
    for root, backbone in (("/one", "resnet18"), ("/two", "wide_resnet50_2")):
        for ratio in (0.1, 0.2):
            data = {"root": f"{root}/bottle", "fingerprint": root, "test_fingerprint": root}
            run(GOOD, data=data, spec={"backbone": backbone}, params={"ratio": ratio})


def test_two_data_sets_are_two_comparisons(folder: ResultFolder, run: Run) -> None:
    two_datasets(run)
    results = Results.of(folder)
    assert [one.dataset for one in answers(results)] == ["mvtec /one", "mvtec /two"]
    table = pivot_table(results, ["image_AUROC"])
    assert table["data"].tolist() == ["mvtec one", "mvtec two"]
    # Nobody's figure stands in the column of another configuration.
    assert table.iloc[0, 3:].notna().tolist() == [True, True, False, False]
    assert table.iloc[1, 3:].notna().tolist() == [False, False, True, True]
    data = _data(results)
    assert data["datasets"] == ["mvtec one", "mvtec two"]
    assert [one["dataset"] for one in data["settings"]] == [0, 0, 1, 1]
    assert summary_table(results)["recommended"].tolist() == ["yes", "yes"]


def test_the_recommended_setting_is_in_the_summary(folder: ResultFolder, run: Run) -> None:
    run(GOOD, params={"k": 1}, metrics={"image_AUROC": 0.999})
    run(GOOD, params={"k": 2}, metrics={"image_AUROC": 0.998}, cost={"seconds_p50": 0.005})
    table = summary_table(Results.of(folder))
    assert table["k"].tolist() == [2, 1]
    assert table["vs_best"].tolist() == ["no significant difference", "best"]
    assert table["recommended"].fillna("").tolist() == ["yes", ""]


def test_a_leader_that_nothing_speaks_for_is_not_recommended(folder: ResultFolder, run: Run) -> None:
    run(POOR)
    assert "not significantly better than guessing" in answer(folder).doubts[0]


def test_doubts_of_few_images_and_random_weights_are_told(folder: ResultFolder, run: Run) -> None:
    run([0.0, 1.0, 2.0, 3.0], [0, 0, 1, 1], weights={"source": "random", "sha256": None})
    assert answer(folder).doubts[-2:] == [
        "A category has only 2 test images of a class: too few for a reliable choice.",
        "Its weights are random.",
    ]
    (notice,) = notices(Results.of(folder))
    assert notice.startswith("RANDOM WEIGHTS in 1 of 1 runs: as the config asks.")


def test_a_sure_answer_has_no_doubts(folder: ResultFolder, run: Run) -> None:
    run(GOOD)
    assert answer(folder).doubts == []


def test_images_that_fixed_a_threshold_make_another_test_set(folder: ResultFolder, run: Run) -> None:
    run(GOOD)
    run(FAIR, spec={"threshold": {"method": "f1_on_val", "share": 0.3, "seed": 0}}, provenance={"began": "2026-02-01"})
    recommendations = answers(Results.of(folder))
    assert [one.dataset for one in recommendations] == [
        "mvtec /data",
        "mvtec /data, without the 30% that fixed the threshold (seed 0)",
    ]
    assert notices(Results.of(folder)) == []
    # Nor do two such sets of equal size mix.
    run(FAIR, spec={"threshold": {"method": "f1_on_val", "share": 0.3, "seed": 1}}, provenance={"began": "2026-02-02"})
    assert runs_table(Results.of(folder))["vs_best"].tolist() == ["best"] * 3


@pytest.mark.parametrize(
    ("val", "part"), [(0, "NO THRESHOLD in 1 of 1 runs"), (3, "are the highest of 3 held-out normal"), (200, "")]
)
def test_thresholds_that_rest_on_little_are_told(folder: ResultFolder, run: Run, val: int, part: str) -> None:
    run(GOOD, data={"val": val}, spec={"threshold": {"method": "normal_quantile", "quantile": 0.99}})
    sentences = notices(Results.of(folder))
    assert len(sentences) == (1 if part else 0)
    assert part in " ".join(sentences)


@pytest.mark.parametrize(("expected", "part"), [(1 / 101, "in 1 of 1 runs: 100 normal images"), (0.0099, "")])
def test_fewer_images_than_the_rate_needs_are_told(folder: ResultFolder, run: Run, expected: float, part: str) -> None:
    thresholds = {"image": 1.0, "false_alarms": expected, "false_alarms_asked": 0.0099, "guarantee": "estimated"}
    run(GOOD, thresholds=thresholds, metrics={"image_FalsePositives": 1})
    text = " ".join(notices(Results.of(folder)))
    assert part in text
    assert ("A rate of 0.0099 needs 101 images." in text) == bool(part)
    (row,) = runs_table(Results.of(folder)).to_dict("records")
    (summary,) = summary_table(Results.of(folder)).to_dict("records")
    (answer,) = answers(Results.of(folder))
    assert "On new normal images at most 0.99% false alarms are estimated." in " ".join(answer.reasons)
    (record,) = folder.records()
    normal = record.data["test"] - record.data["test_anomalous"]
    for table in (row, summary):
        assert table["false_alarms_expected"] == pytest.approx(expected)
        assert table["false_alarms_guarantee"] == "estimated"
        assert table["false_alarms_on_test"] == pytest.approx(1 / normal)


def test_old_records_have_no_expected_rate(folder: ResultFolder, run: Run) -> None:
    run(GOOD, thresholds={"image": 1.0, "pixel": None, "fixed_by": "1 held-out normal image"})
    (row,) = runs_table(Results.of(folder)).to_dict("records")
    assert pd.isna(row["false_alarms_expected"])
    assert pd.isna(row["false_alarms_guarantee"])


def test_a_note_on_every_run_is_of_the_sweep(folder: ResultFolder, run: Run) -> None:
    run(GOOD, data={"notes": ["One method."]}, spec={"category": "a"})
    run(FAIR, data={"notes": ["One method.", "A copy."]}, spec={"category": "b"})
    assert notices(Results.of(folder)) == ["One method.", "b: A copy."]


BUSY_TIME = {"seconds_p50": 0.5, "seconds_p95": 0.9, "latency_busy": True}


def test_times_of_a_busy_machine_count_only_where_there_are_no_others(folder: ResultFolder, run: Run) -> None:
    run(GOOD, cost=BUSY_TIME)
    run(FAIR, spec={"seed": 1}, cost={"seconds_p50": 0.02, "latency_busy": False})
    run(POOR, params={"num_neighbors": 9}, cost=BUSY_TIME)
    (mixed, busy) = next(iter(Results.of(folder).configurations.values()))
    assert (mixed.busy, busy.busy) == (False, True)
    assert (mixed.latency, busy.latency) == (20, 500)
    assert mixed.cost("images_per_second") == 50
    assert notices(Results.of(folder)) == [
        "BUSY MACHINE in 2 of 3 runs: other programs ran while single images were timed. These times are marked and "
        "too long. Use --fresh on a quiet machine for better ones."
    ]


def test_tables_mark_the_times_of_a_busy_machine(folder: ResultFolder, run: Run, cli: Cli) -> None:
    run(GOOD)
    run(FAIR, params={"num_neighbors": 9}, cost=BUSY_TIME)
    results = Results.of(folder)
    for frame in (runs_table(results), summary_table(results)):
        (row,) = frame.index[frame["ms_per_image_p50"] == 500] if "run" in frame else [None]
        cells = busy_cells(frame)
        assert cells == (set() if row is None else {(row, "ms_per_image_p50"), (row, "ms_per_image_p95")})
    assert [one["latency_busy"] for one in _data(results)["settings"]] == [None, "yes"]
    assert [one["latency_busy"] for one in _data(results)["runs"]] == [None, "yes"]
    console = Console(width=200, record=True)
    console.print(best_table(results))
    assert "500.0 (busy)" in console.export_text()
    assert "10.0 (busy)" not in console.export_text()
    compared = cli("compare", folder.run_folder("run-0"), folder.run_folder("run-1"))
    assert "500.0 (busy)" in compared.output
    book = load_workbook(BytesIO(build_workbook(results)))
    sheet = book["Runs"]
    header = [cell.value for cell in next(r for r in sheet.iter_rows() if r[0].value == "category")]
    column = header.index("ms_per_image_p50")
    colours = {row[column].value: row[column].fill.fgColor.rgb for row in sheet.iter_rows() if row[0].value == "bottle"}
    assert colours[500] != colours[10]


def test_the_terminal_shows_the_best_run_of_every_model(folder: ResultFolder, run: Run) -> None:
    for k in range(12):
        run(GOOD, params={"k": k}, metrics={"image_AUROC": 0.99 - k / 1000})
    run(POOR, spec={"model": "padim"})
    run(POOR, spec={"backend": "native", "model": "padim"})
    console = Console(width=200, record=True)
    console.print(best_table(Results.of(folder)))
    lines = console.export_text().splitlines()
    assert sum("patchcore" in line for line in lines) == 7
    assert sum("padim" in line for line in lines) == 2


def test_without_busy_times_no_table_has_a_column_for_them(folder: ResultFolder, run: Run) -> None:
    run(GOOD)
    results = Results.of(folder)
    assert not {"latency_busy"} & {*runs_table(results), *summary_table(results)}
    assert not busy_cells(runs_table(results))


def test_of_equal_runs_the_one_that_others_are_compared_with_is_the_first(folder: ResultFolder, run: Run) -> None:
    for power in range(3):
        run(GOOD, params={"power": power})
    table = runs_table(Results.of(folder))
    assert table["vs_best"].tolist()[0] == "best"
    assert table["vs_best"].tolist().count("best") == 1

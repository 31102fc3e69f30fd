"""Runs that differ in `n_train`: no rivals, and a learning curve."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from openpyxl import load_workbook
from scipy.stats import t

from harness.metrics.learning import over_seeds, paired_interval
from harness.report.detection import DetectionReport, best_table
from harness.report.detection_page import page_part
from harness.report.excel import build_workbook
from harness.report.learning_curve import OF_IMAGES, OF_SEEDS, curve_table, curves
from harness.report.more_images import last_step, more_images
from harness.report.notices import notices
from harness.report.recommend import answers
from harness.report.results import Results
from harness.report.tables import runs_table
from harness.results.best_models import data_of, is_best
from harness.results.store import ResultFolder
from tests.report.conftest import FAIR, GOOD, POOR, Run, scores


def test_fewer_images_are_never_rivals(folder: ResultFolder, run: Run) -> None:
    few = run(GOOD, spec={"n_train": 4}, axes=["n_train"])
    best, other = run(FAIR, params={"k": 1}), run(POOR, params={"k": 2})
    results = Results.of(folder)
    (group,) = results.configurations.values()
    assert [one.best_run for one in group] == [best.run_id, other.run_id]
    (answer,) = answers(results)
    assert answer.configuration is group[0]
    rows = runs_table(results).set_index("run")
    assert list(rows.index) == [best.run_id, other.run_id, few.run_id]
    assert rows["vs_best"].dropna().to_dict() == {best.run_id: "best", other.run_id: "worse"}
    assert rows["n_train"].to_dict() == {best.run_id: "all", other.run_id: "all", few.run_id: 4}
    # The comparison of the others is that without the run.
    assert rows["p_vs_best"][other.run_id] == runs_table(_without(results, few.run_id))["p_vs_best"][1]
    assert best_table(results).row_count == 2
    summary = DetectionReport().summary(results)
    assert set(summary["best_run"]) == {best.run_id}
    (sentence,) = (text for text in notices(results) if "fewer normal images" in text)
    assert sentence.startswith("1 of 3 runs use fewer normal images than the others (n_train).")


def _without(results: Results, run_id: str) -> Results:
    return Results(results.folder, [record for record in results.records if record.run_id != run_id])


def test_without_all_images_the_largest_number_counts(folder: ResultFolder, run: Run) -> None:
    run(GOOD, spec={"n_train": 4})
    largest = run(FAIR, spec={"n_train": 16})
    (group,) = Results.of(folder).configurations.values()
    assert [one.best_run for one in group] == [largest.run_id]


def test_the_kept_model_is_that_of_the_most_images(run: Run) -> None:
    few, more, whole = run(GOOD, spec={"n_train": 4}), run(FAIR, spec={"n_train": 8}), run(POOR)
    assert is_best(more, {data_of(few): few})
    assert is_best(whole, {data_of(more): more})
    assert not is_best(few, {data_of(whole): whole})


def curve_of(run: Run, shifts: dict[int | None, list[float]], **changes: Any) -> None:
    """Runs with one list of shifts for each number of images: one shift for each seed."""
    for number, of_seeds in shifts.items():
        for seed, shift in enumerate(of_seeds):
            spec = {"seed": seed} | ({"n_train": number} if number else {})
            images = {"train": (number or 80) - 1, "val": 1}
            run(scores(shift), spec=spec | changes.get("spec", {}), data=images, params=changes.get("params", {}))


def test_each_configuration_has_a_curve_with_intervals(folder: ResultFolder, run: Run) -> None:
    curve_of(run, {20: [0.5, 0.9, 0.7], 40: [1.4, 1.8, 1.6], None: [2.1, 2.3, 2.2]}, params={"k": 1})
    curve_of(run, {20: [0.1], None: [0.2]}, params={"k": 2})
    results = Results.of(folder)
    first, second = curves(results)
    assert (first.name, second.name) == ("patchcore k 1", "patchcore k 2")
    assert [point.n_train for point in first.points] == [20, 40, "all"]
    assert [point.images for point in first.points] == [20, 40, 80]
    values = [point.value for point in first.points]
    assert values == sorted(values)
    for point in (*first.points, *second.points):
        assert point.low is not None
        assert point.high is not None
        assert point.value is not None
        assert point.low < point.value < point.high
    assert {point.covers for point in first.points} == {OF_SEEDS}
    assert {point.covers for point in second.points} == {OF_IMAGES}
    table = curve_table(results)
    assert table["n_train"].tolist() == ["20", "40", "all", "20", "all"]
    assert table["seeds"].tolist() == [3, 3, 3, 1, 1]
    book = load_workbook(BytesIO(build_workbook(results)))
    numbers = [row[1] for row in book["Learning curve"].iter_rows(values_only=True)]
    assert numbers == ["n_train", "20", "40", "all", "20", "all"]


@pytest.mark.parametrize(
    ("half", "whole", "expected"),
    [
        ([0.2, 0.3, 0.25], [1.2, 1.3, 1.25], "Twice as many images would raise it by "),
        ([2.5, 2.5, 2.5], [2.5, 2.5, 2.5], "no more images are needed"),
        ([0.2, 1.9, 0.9], [1.9, 0.3, 1.2], "It is not clear whether twice as many images would raise it"),
    ],
)
def test_the_last_doubling_says_whether_more_images_would_help(
    folder: ResultFolder, run: Run, half: list[float], whole: list[float], expected: str
) -> None:
    curve_of(run, {10: [0.0, 0.0, 0.0], 40: half, None: whole})
    (name,) = Results.of(folder).configurations
    label, measured, sentence = more_images(Results.of(folder))[name]
    assert label == "patchcore:"
    assert measured.startswith("From 40 to 80 images, image AUROC changed by ")
    assert measured.endswith("; 3 seeds).")
    assert expected in sentence
    step = last_step(Results.of(folder), curves(Results.of(folder))[0])
    assert step is not None
    assert step.low <= step.rise <= step.high
    assert f"{step.rise:+.3f}" in measured


def test_no_point_near_half_the_images_gives_no_answer(folder: ResultFolder, run: Run) -> None:
    curve_of(run, {4: [0.5], None: [2.0]})
    (sentences,) = more_images(Results.of(folder)).values()
    assert "no runs on about half of 80 images" in sentences[1]


def test_one_seed_is_not_enough(folder: ResultFolder, run: Run) -> None:
    curve_of(run, {40: [0.5], None: [2.0]})
    (sentences,) = more_images(Results.of(folder)).values()
    assert sentences[-1].startswith("With fewer than 3 seeds")


def test_without_several_numbers_there_is_no_curve(folder: ResultFolder, run: Run) -> None:
    curve_of(run, {None: [0.5, 0.6]})
    results = Results.of(folder)
    assert curves(results) == []
    assert more_images(results) == {}
    assert page_part(results).data["curves"] == []
    assert "Learning curve" not in load_workbook(BytesIO(build_workbook(results))).sheetnames


def test_the_page_has_the_lines_of_each_data_set(folder: ResultFolder, run: Run) -> None:
    curve_of(run, {40: [0.5], None: [2.0]})
    (figure,) = page_part(Results.of(folder)).data["curves"]
    assert [point["n_train"] for point in figure["lines"][0]["points"]] == ["40", "all"]
    assert figure["sentences"][1].startswith("From 40 to 80 images")


def test_the_interval_of_a_rise_has_the_parts_of_images_and_of_seeds() -> None:
    # By hand: variance 0.01**2 + 0.02**2 / 4, with freedom by Welch and Satterthwaite.
    values = [0.1 + 0.02 * step for step in (-1, 1, -1, 1)]
    of_seeds = np.var(values, ddof=1) / 4
    variance = 0.01**2 + of_seeds
    freedom = variance**2 / (0.01**4 / 19 + of_seeds**2 / 3)
    low, high = paired_interval(0.1, 0.01, 20, values)
    assert high - 0.1 == pytest.approx(t.ppf(0.975, freedom) * np.sqrt(variance))
    assert low == pytest.approx(0.2 - high)
    assert paired_interval(0.1, 0.01, 20, [0.1]) == pytest.approx(
        (0.1 - t.ppf(0.975, 19) * 0.01, 0.1 + t.ppf(0.975, 19) * 0.01)
    )
    assert paired_interval(0.0, 0.0, 20, [0.0, 0.0]) == (0.0, 0.0)


def test_the_interval_over_seeds_is_student_s_and_ends_at_1() -> None:
    values = [0.90, 0.92, 0.97]
    half = t.ppf(0.975, 2) * np.std(values, ddof=1) / np.sqrt(3)
    assert over_seeds(values) == pytest.approx((0.93 - half, 1.0))
    assert over_seeds([0.2, 0.2, 0.2]) == pytest.approx((0.2, 0.2))
    assert over_seeds([0.9, 0.8]) is None

"""Runs that differ in `n_train`: no rivals, and a learning curve."""

from __future__ import annotations

from harness.report.detection import DetectionReport, best_table
from harness.report.notices import notices
from harness.report.recommend import answers
from harness.report.results import Results
from harness.report.tables import runs_table
from harness.results.best_models import data_of, is_best
from harness.results.store import ResultFolder
from tests.report.conftest import FAIR, GOOD, POOR, Run


def test_fewer_images_are_never_rivals(folder: ResultFolder, run: Run) -> None:
    few = run(GOOD, spec={"n_train": 4})
    best, other = run(FAIR, params={"k": 1}), run(POOR, params={"k": 2})
    results = Results.of(folder)
    (group,) = results.configurations.values()
    assert [one.best_run for one in group] == [best.run_id, other.run_id]
    (answer,) = answers(results)
    assert answer.configuration is group[0]
    rows = runs_table(results).set_index("run")
    assert list(rows.index) == [best.run_id, other.run_id, few.run_id]
    assert rows["vs_best"].dropna().to_dict() == {best.run_id: "best", other.run_id: "worse"}
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

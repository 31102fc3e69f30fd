"""load_results: typed tables of real and of made-up result folders, and the CSV files beside the workbook."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness import load_model, load_results
from harness.common.errors import ConfigError, StoreError, UnknownNameError
from harness.metrics.classification import macro_f1
from harness.metrics.ranking import Ranking, measure
from harness.results.store import ResultFolder
from tests.conftest import ROOT, Cli

STORED = ROOT / "tests/stored/results"


def test_runs_have_types_and_the_values_of_the_records(sweep_folder: ResultFolder) -> None:
    runs = load_results(sweep_folder.root).runs
    records = {record.run_id: record for record in sweep_folder.records()}
    assert set(runs["run"]) == set(records)
    assert isinstance(runs["seed"].dtype, pd.Int64Dtype)
    assert isinstance(runs["image_AUROC"].dtype, pd.Float64Dtype)
    assert runs["run"].dtype == "string"
    finished = runs[runs["status"] == "ok"]
    assert len(finished) == sum(record.status == "ok" for record in records.values()) < len(runs)
    for _, row in finished.iterrows():
        assert row["image_AUROC"] == records[row["run"]].metrics["image_AUROC"]
        assert row["seed"] == records[row["run"]].spec["seed"]


def test_the_summary_names_the_recommended_run(sweep_folder: ResultFolder) -> None:
    results = load_results(sweep_folder.root)
    summary = results.summary()
    assert set(summary["best_run"]) <= set(results.runs["run"])
    assert summary["image_AUROC"].is_monotonic_decreasing


def test_scores_give_the_metrics_of_the_run(trained: ResultFolder) -> None:
    results = load_results(trained.root)
    for record in trained.records():
        scores = results.scores(record.run_id)
        counted = scores[scores["role"] == "test"]
        labels = counted["label"].to_numpy(dtype=bool)
        auroc = measure("image", Ranking.of(counted["score"].to_numpy(), labels))["image_AUROC"]
        assert auroc == pytest.approx(record.metrics["image_AUROC"])
        assert counted.loc[labels, "defect_type"].nunique() > 1


def test_scores_of_a_classification_give_its_macro_f1(classified: ResultFolder) -> None:
    results = load_results(classified.root)
    assert results.task == "classification"
    for record in classified.records():
        scores = results.scores(record.run_id)
        out_of_fold = scores[scores["role"] == "out of fold"]
        names = sorted(column.removeprefix("p ") for column in scores if str(column).startswith("p "))
        truth, predicted = ([names.index(label) for label in out_of_fold[c]] for c in ("label", "predicted_label"))
        assert macro_f1(np.array(truth), np.array(predicted), len(names)) == pytest.approx(record.metrics["macro_F1"])
        assert np.allclose(out_of_fold[[f"p {name}" for name in names]].sum(axis=1), 1, atol=1e-3)
    with pytest.raises(ConfigError, match="'classification' found; expected a detection"):
        next(results.maps(classified.records()[0].run_id))


def test_maps_come_from_the_saved_model(trained: ResultFolder) -> None:
    results = load_results(trained.root)
    record = next(one for one in trained.records() if one.spec["backend"] == "native")
    maps = dict(results.maps(record.run_id, device="cpu"))
    assert list(maps) == list(results.scores(record.run_id)["path"])
    name, anomaly_map = next(iter(maps.items()))
    expected = load_model(trained.run_folder(record.run_id), device="cpu").predict(Path(record.data["root"]) / name)
    assert expected.anomaly_map is not None
    np.testing.assert_array_equal(anomaly_map, expected.anomaly_map)


def test_bad_input(sweep_folder: ResultFolder, tmp_path: Path) -> None:
    results = load_results(sweep_folder.root)
    with pytest.raises(UnknownNameError, match=r"unknown run 'other'\. .*Known: "):
        results.scores("other")
    failed = results.runs.loc[results.runs["status"] == "failed", "run"].iloc[0]
    with pytest.raises(StoreError, match="no scores found"):
        results.scores(failed)
    with pytest.raises(StoreError, match="no finished runs found"):
        load_results(tmp_path)
    without_model = results.runs.loc[results.runs["status"] == "ok", "run"].iloc[-1]
    with pytest.raises(StoreError, match="model of this run was not kept"):
        next(results.maps(without_model))


@pytest.mark.parametrize("name", ["stored", "named", "searched"])
def test_results_of_earlier_versions_open(name: str) -> None:
    results = load_results(STORED / name)
    assert not results.damaged
    for run in results.runs["run"]:
        assert len(results.scores(run))


def test_a_damaged_file_is_named_and_the_rest_is_there(sweep_folder: ResultFolder, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(sweep_folder.root, copy)
    first, second = [record.run_id for record in sweep_folder.records() if record.status == "ok"][:2]
    (copy / "runs" / first / "scores.csv").write_text("path,label,defect_type,score\na.png,maybe,,1\n")
    results = load_results(copy)
    assert [first in sentence for sentence in results.damaged] == [True]
    with pytest.raises(StoreError, match=r"damaged \(row 2"):
        results.scores(first)
    assert len(results.scores(second))


def test_csv_files_have_the_rows_of_the_sheets(sweep_folder: ResultFolder, tmp_path: Path, cli: Cli) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(sweep_folder.root, copy)
    for file in ("results.csv", "summary.csv"):
        assert (copy / file).is_file()  # the sweep wrote it
        (copy / file).unlink()
    assert cli("report", copy).exit_code == 0
    results = load_results(copy)
    for file, frame in (("results.csv", results.runs), ("summary.csv", results.summary())):
        rows = list(csv.DictReader((copy / file).read_text().splitlines()))
        assert len(rows) == len(frame)
        for row, (_, expected) in zip(rows, frame.iterrows(), strict=True):
            missing = pd.isna(expected["image_AUROC"])
            assert row["image_AUROC"] == ("" if missing else str(float(expected["image_AUROC"])))
            assert row["model"] == expected["model"]

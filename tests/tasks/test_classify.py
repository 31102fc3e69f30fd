"""task: classification from the command line: sweep, records, sheets, predict, submit, blend, kills, refusals."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from openpyxl import load_workbook
from PIL import Image

from harness import load_classifier, load_model
from harness.common.errors import PredictionsError, StoreError, WeightsError
from harness.ensemble.fit import fit_weights
from harness.ensemble.runs import ClassRun
from harness.inference.class_result import DONT_KNOW, ClassResult
from harness.metrics.classification import macro_f1
from harness.metrics.conformal import Calibration, SetQuality
from harness.metrics.reliability import Reliability
from harness.metrics.temperature import Temperature, cross_calibrated
from harness.predictions.classification import ClassPredictions
from harness.report.classification import ClassificationReport
from harness.report.results import Results
from harness.results.record import RunRecord
from harness.results.store import ResultFolder
from tests.classified import CONFIG
from tests.conftest import ROOT, Cli, read_me


def record_of(folder: ResultFolder, model: str, **params: Any) -> RunRecord:
    (record,) = [r for r in folder.records() if r.spec["model"] == model and params.items() <= r.spec["params"].items()]
    return record


def read_csv(file: Path | str) -> list[list[str]]:
    with Path(file).open(newline="") as stream:
        return list(csv.reader(stream))


def read_dicts(file: Path | str) -> list[dict[str, str]]:
    header, *lines = read_csv(file)
    return [dict(zip(header, line, strict=True)) for line in lines]


def rows(folder: ResultFolder, title: str) -> list[dict[str, Any]]:
    header, *lines = load_workbook(folder.workbook)[title].iter_rows(values_only=True)
    return [dict(zip(header, row, strict=True)) for row in lines]


def test_every_image_is_judged_by_networks_that_never_saw_it(classified: ResultFolder) -> None:
    record = record_of(classified, "baseline", balance="none")
    predictions = ClassPredictions.load(classified.run_folder(record.run_id))
    assert len(predictions.names) == record.data["judged"] == len(set(predictions.names))
    assert sorted(np.unique(predictions.folds)) == [0, 1]
    assert predictions.test_by_fold.shape == (2, record.data["test"], 16)
    assert record.metrics["macro_F1"] == pytest.approx(macro_f1(predictions.truth, predictions.predicted, 16))
    low, high = record.intervals["macro_F1"]
    assert low < record.metrics["macro_F1"] < high  # type: ignore[operator]
    # Test labels are not known: there is no figure of them.
    assert record.metrics["test_macro_F1"] is None
    assert [fold["fold"] for fold in record.folds] == [0, 1]
    assert all(fold["epochs"] == 2 for fold in record.folds)
    assert record.task == "classification"
    # Without views there is another answer, and both are told.
    assert predictions.plain is not None
    assert record.metrics["plain_macro_F1"] == pytest.approx(
        macro_f1(predictions.truth, predictions.plain.argmax(axis=1), 16)
    )
    names = read_dicts(classified.run_folder(record.run_id) / "predictions.csv")
    assert [row["role"] for row in names].count("test") == record.data["test"]
    assert names[0]["predicted_label"] == predictions.labels[predictions.predicted[0]]


def test_the_workbook_shows_settings_runs_labels_and_confusions(classified: ResultFolder) -> None:
    book = load_workbook(classified.workbook)
    assert book.sheetnames == ["Summary", "Read me", "Runs", "Labels", "Classes and conditions", "Confusion",
                               "Coverage", "Risk", "Calibration", "Confused", "Folds", "Distribution",
                               "Environment", "Config", "Failures"]  # fmt: skip
    summary = rows(classified, "Summary")
    assert len(summary) == 3
    figures = [row["macro_F1"] for row in summary]
    assert figures == sorted(figures, reverse=True)
    assert summary[0]["vs_best"] == "best"
    assert {row["vs_best"] for row in summary[1:]} <= {"as good", "no significant difference", "worse"}
    assert any("RANDOM WEIGHTS in 3 of 3 runs" in sentence for sentence in read_me(book))
    for title in ("Labels", "Classes and conditions"):
        header = [cell.value for cell in book[title][1]]
        formats = [cell.number_format for cell in book[title][2]]
        assert formats[header.index("images")] == "0"
        assert set(formats[header.index("images") + 1 :]) == {"0.000"}
    labels = rows(classified, "Labels")
    assert len(labels) == 16
    assert [row["images"] for row in labels] == sorted(row["images"] for row in labels)
    assert len(rows(classified, "Folds")) == 6
    images = rows(classified, "Distribution")
    assert [row["train"] for row in images] == sorted(row["train"] for row in images)
    record = next(one for one in classified.records() if one.run_id == summary[0]["best_run"])
    assert sum(row["train"] for row in images) == record.data["train"]
    assert sum(row["fold 0"] + row["fold 1"] for row in images) == record.data["judged"]
    assert {row["test"] for row in images} == {0}
    best = classified.run_folder(summary[0]["best_run"])
    confusion = json.loads((best / "details.json").read_text())["confusion"]
    for row, counts in zip(rows(classified, "Confusion"), confusion, strict=True):
        assert [
            row[label["label"]] or 0 for label in json.loads((best / "details.json").read_text())["labels"]
        ] == counts


def test_nothing_is_run_twice_and_the_report_is_rebuilt_from_records(classified: ResultFolder, cli: Cli) -> None:
    copy = Path(shutil.copytree(classified.root.parent, "results")) / "named"
    Path("c.yaml").write_text(CONFIG.format(name="named"))
    result = cli("sweep", "c.yaml", "--output", "results")
    assert "3 done, 0 to run now" in result.output
    (copy / "report.html").unlink()
    (copy / "models_comparing.xlsx").unlink()
    script = f"""import sys
from harness.cli.main import main
sys.argv = ["harness", "report", {str(copy)!r}]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    assert (copy / "report.html").is_file()
    assert len(rows(ResultFolder(copy), "Runs")) == 3


def test_predict_names_as_the_sweep_did(classified: ResultFolder, cli: Cli, tmp_path: Path) -> None:
    for model, params in (("baseline", {"balance": "none"}), ("one_class", {})):
        record = record_of(classified, model, **params)
        folder = classified.run_folder(record.run_id)
        predictions = ClassPredictions.load(folder)
        images = [str(Path(record.data["root"]) / name) for name in predictions.test_names]
        result = cli("predict", folder, *images, "--csv", tmp_path / "rows.csv", "--batch", 3)
        assert result.exit_code == 0, result.output
        named = read_dicts(tmp_path / "rows.csv")
        assert [row["predicted_label"] for row in named] == [predictions.labels[i] for i in predictions.test_predicted]
        largest = predictions.test_probabilities.max(axis=1)
        assert [float(row["raw_probability"]) for row in named] == pytest.approx(largest, rel=1e-4)
        calibrated = Temperature.from_dict(record.temperature).apply(predictions.test_probabilities).max(axis=1)
        assert [float(row["probability"]) for row in named] == pytest.approx(calibrated, rel=1e-3)
        written = [row for row in read_dicts(folder / "predictions.csv") if row["role"] == "test"]
        assert [row["raw_probability"] for row in written] == [f"{value:.6f}" for value in largest]
        assert [float(row["probability"]) for row in written] == pytest.approx(calibrated, abs=1e-6)


def test_a_run_has_a_temperature_and_an_earlier_run_gets_one(classified: ResultFolder, cli: Cli) -> None:
    record = record_of(classified, "baseline", balance="none")
    predictions = ClassPredictions.load(classified.run_folder(record.run_id))
    assert Temperature.from_dict(record.temperature) == Temperature.of(predictions)
    run = Path(shutil.copytree(classified.run_folder(record.run_id), "earlier"))
    image = str(Path(record.data["root"]) / predictions.test_names[0])
    values = json.loads((run / "record.json").read_text())
    del values["temperature"]
    (run / "record.json").write_text(json.dumps(values))
    new, old = (load_classifier(folder, device="cpu") for folder in (classified.run_folder(record.run_id), run))
    one, other = new.predict(image), old.predict(image)
    assert isinstance(one, ClassResult)
    assert isinstance(other, ClassResult)
    assert np.array_equal(one.probabilities, other.probabilities)
    note = f"temperature {record.temperature['value']:.3g}, from {len(predictions.names)} out-of-fold images"
    assert any(note in text for text in new.notes)
    # Without its probabilities, the earlier run has no temperature, and says so.
    (run / "probabilities.npz").unlink()
    raw = load_classifier(run, device="cpu")
    alone = raw.predict(image)
    assert isinstance(alone, ClassResult)
    assert np.array_equal(alone.probabilities, one.raw_probabilities)
    assert any(text.startswith("probabilities are not calibrated: ") for text in raw.notes)
    values["temperature"] = {"value": 0.0}
    (run / "record.json").write_text(json.dumps(values))
    result = cli("predict", run, image)
    assert result.exit_code == 2
    assert "temperature.value: found 0.0, expected greater than 0" in " ".join(result.output.split())


def test_the_sheet_shows_the_calibration_error_before_and_after(classified: ResultFolder) -> None:
    first = rows(classified, "Calibration")[0]
    run = rows(classified, "Summary")[0]["best_run"]
    record = next(one for one in classified.records() if one.run_id == run)
    predictions = ClassPredictions.load(classified.run_folder(run))
    assert first["temperature"] == pytest.approx(record.temperature["value"])
    for column, probabilities in (
        ("ECE_raw", predictions.probabilities),
        ("ECE_calibrated", cross_calibrated(predictions.probabilities, predictions.truth)),
    ):
        assert first[column] == pytest.approx(
            Reliability.of(probabilities, predictions.predicted, predictions.truth).error
        )
    # The test has no labels.
    assert "test_ECE_raw" not in first


def test_answers_have_the_promised_coverage_of_the_sweep(classified: ResultFolder, cli: Cli, tmp_path: Path) -> None:
    record = record_of(classified, "baseline", balance="none")
    folder = classified.run_folder(record.run_id)
    predictions = ClassPredictions.load(folder)
    images = [str(Path(record.data["root"]) / name) for name in predictions.test_names]
    options: list[Any]
    for options, coverage in (([], 0.9), (["--coverage", 0.5], 0.5)):
        result = cli("predict", folder, *images, "--csv", tmp_path / "rows.csv", *options)
        assert result.exit_code == 0, result.output
        note = f"promised coverage of {coverage}, from {len(predictions.names)} out-of-fold images"
        assert note in " ".join(result.output.split())
        sets = Calibration.of(predictions).sets(predictions.test_by_fold, coverage)
        named = read_dicts(tmp_path / "rows.csv")
        for row, inside in zip(named, sets, strict=True):
            labels = {label for label, member in zip(predictions.labels, inside, strict=True) if member}
            assert set(filter(None, row["label_set"].split("; "))) == labels
            assert row["answer"] == (row["predicted_label"] if len(labels) == 1 else DONT_KNOW)
        assert f"{sum(row['answer'] == DONT_KNOW for row in named)} don't know" in result.output


def test_a_promise_that_is_too_high_or_without_its_file_is_told(classified: ResultFolder, cli: Cli) -> None:
    Image.new("RGB", (40, 30)).save("part.png")
    run = Path(shutil.copytree(classified.run_folder(record_of(classified, "one_class").run_id), "alone"))
    images = len(ClassPredictions.load(run).names)
    result = cli("predict", run, "part.png", "--csv", "rows.csv", "--coverage", 0.999)
    assert f"0.999 promised, but {images} out-of-fold images allow at most 0.99" in " ".join(result.output.split())
    (row,) = read_dicts("rows.csv")
    assert (len(row["label_set"].split("; ")), row["answer"]) == (16, DONT_KNOW)
    result = cli("predict", run, "part.png")
    assert "the default, since the run lies in no result folder" in " ".join(result.output.split())
    (run / "probabilities.npz").unlink()
    result = cli("predict", run, "part.png", "--csv", "rows.csv")
    assert "no label sets and no answers" in " ".join(result.output.split())
    (row,) = read_dicts("rows.csv")
    assert row["label_set"] == row["answer"] == ""
    assert row["predicted_label"]
    # A promise that was asked for can't be left out.
    result = cli("predict", run, "part.png", "--coverage", 0.8)
    assert result.exit_code == 2
    assert "probabilities.npz: missing" in " ".join(result.output.split())


def test_a_wrong_coverage_is_refused(classified: ResultFolder, trained: ResultFolder, cli: Cli) -> None:
    Image.new("RGB", (40, 30)).save("part.png")
    result = cli("predict", classified.root, "part.png", "--coverage", 1.5)
    assert result.exit_code == 2
    assert "--coverage: 1.5 found; expected a number between 0 and 1" in " ".join(result.output.split())
    run = trained.run_folder(trained.records()[0].run_id)
    for option, value in (("--coverage", 0.8), ("--image-size", 48)):
        result = cli("predict", run, "part.png", option, value)
        assert result.exit_code == 2
        assert f"{option}: {value} found; expected a classification" in " ".join(result.output.split())


def test_the_report_shows_promised_and_realised_coverage(classified: ResultFolder, cli: Cli) -> None:
    copy = ResultFolder(Path(shutil.copytree(classified.root, "labelled")))
    for record in copy.records():
        predictions = ClassPredictions.load(copy.run_folder(record.run_id))
        replace(predictions, test_truth=np.arange(len(predictions.test_names)) % 16).save(
            copy.run_folder(record.run_id)
        )
    copy.config.write_text(copy.config.read_text().replace("coverage: 0.9", "coverage: 0.8"))
    assert cli("report", copy.root).exit_code == 0
    best = rows(copy, "Summary")[0]["best_run"]
    predictions = ClassPredictions.load(copy.run_folder(best))
    quality = SetQuality.of(Calibration.of(predictions).sets(predictions.test_by_fold, 0.8), predictions.test_truth)
    assert quality is not None
    first = rows(copy, "Coverage")[0]
    assert (first["promised_coverage"], first["calibration_images"]) == (0.8, len(predictions.names))
    assert first["realised_coverage"] == pytest.approx(quality.realised)
    assert first["answers"] == pytest.approx(quality.single)
    calibration = rows(copy, "Calibration")[0]
    assert calibration["labelled_test_images"] == len(predictions.test_names)
    tested = Reliability.of(predictions.test_probabilities, predictions.test_predicted, predictions.test_truth)
    assert calibration["test_ECE_raw"] == pytest.approx(tested.error)
    assert (
        f"The realised coverage is {quality.realised:.3f} on {len(predictions.test_names)} labelled images"
        in copy.report.read_text()
    )
    risk = rows(copy, "Risk")
    assert risk[-1]["answered"] == 1
    assert list(risk[-1].values())[1] == pytest.approx(1 - np.mean(predictions.predicted == predictions.truth))
    copy.config.write_text("coverage: 2")
    assert cli("report", copy.root).exit_code == 0
    assert "coverage: 2 found; expected a number between 0 and 1" in copy.report.read_text()


def test_many_labels_with_one_image_make_no_comparison(classified: ResultFolder, cli: Cli) -> None:
    copy = ResultFolder(Path(shutil.copytree(classified.root, "single")))
    for record in copy.records():
        predictions = ClassPredictions.load(copy.run_folder(record.run_id))
        first = np.unique(predictions.truth, return_index=True)[1]
        few = replace(
            predictions,
            names=tuple(predictions.names[i] for i in first),
            truth=predictions.truth[first],
            folds=predictions.folds[first],
            probabilities=predictions.probabilities[first],
            plain=None,
        )
        few.save(copy.run_folder(record.run_id))
    assert cli("report", copy.root).exit_code == 0
    assert "16 of 16 labels have one image. So the interval of macro F1 is unreliable" in copy.report.read_text()
    assert "vs_best" not in rows(copy, "Summary")[0]
    answer = ClassificationReport().answer(Results.of(copy))
    assert answer.table is not None
    assert "as good" not in " ".join(answer.sentences)


def test_an_image_that_can_not_be_read_is_a_row(classified: ResultFolder, cli: Cli) -> None:
    Path("bad.png").write_text("no image")
    Image.new("L", (40, 30), 99).save("grey.png")
    result = cli("predict", classified.root, "bad.png", "grey.png", "--csv", "rows.csv")
    assert result.exit_code == 1
    bad, grey = read_dicts("rows.csv")
    assert "no PNG, JPEG, BMP, TIFF or WebP" in bad["error"]
    assert (bad["predicted_label"], grey["error"]) == ("", "")
    assert grey["reading"] == "grey repeated"
    assert "2 images: 1 " in result.output


def test_the_python_face(classified: ResultFolder) -> None:
    model = load_classifier(classified.root, device="cpu")
    one = model.predict(np.full((50, 40, 3), 90, np.uint8))
    assert not isinstance(one, list)
    assert one.label in model.labels
    assert one.label == f"{one.part}-{one.state}"
    assert one.probabilities.sum() == pytest.approx(1)
    several = model.predict([np.full((50, 40, 3), v, np.uint8) for v in (90, 200)], batch_size=1)
    assert isinstance(several, list)
    assert several[0].probabilities == pytest.approx(one.probabilities, abs=1e-6)


def test_a_changed_model_is_refused(classified: ResultFolder, tmp_path: Path) -> None:
    record = record_of(classified, "one_class")
    run = Path(shutil.copytree(classified.run_folder(record.run_id), tmp_path / "run"))
    file = run / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(WeightsError, match="not the file that the run wrote"):
        load_classifier(run)


def test_verbs_of_detection_say_that_they_are(classified: ResultFolder, trained: ResultFolder, cli: Cli) -> None:
    with pytest.raises(StoreError, match="a run of task classification found; expected a detection"):
        load_model(classified.run_folder(classified.records()[0].run_id))
    with pytest.raises(StoreError, match="expected a classification"):
        load_classifier(trained.run_folder(trained.records()[0].run_id))
    result = cli("submit", trained.root)
    assert result.exit_code == 2
    assert "expected a finished run of task classification" in result.output
    for path in (classified.root, classified.run_folder(classified.records()[0].run_id)):
        result = cli("submit", path, "--format", "mvtec_ad2")
        assert result.exit_code == 2
        assert "--format: mvtec_ad2 found, but" in result.output
        assert "is a classification; expected a detection. Remove --format" in result.output
    result = cli("report", classified.root, trained.root)
    assert result.exit_code == 2
    assert "runs of several tasks found" in result.output


# ---- submit


def test_a_submission_is_the_average_in_the_samples_form(classified: ResultFolder, cli: Cli) -> None:
    one, two = (record_of(classified, "baseline", balance=name) for name in ("none", "sampler"))
    folders = [classified.run_folder(record.run_id) for record in (one, two)]
    result = cli("submit", *folders, "--out", "sub.csv")
    assert result.exit_code == 0, result.output
    sample = read_csv(Path(one.data["root"]) / "sample_submission.csv")
    written = read_csv("sub.csv")
    assert written[0] == sample[0] == ["index", "label"]
    assert [row[0] for row in written] == [row[0] for row in sample]
    mean = np.mean([ClassPredictions.load(folder).test_probabilities for folder in folders], axis=0)
    labels = ClassPredictions.load(folders[0]).labels
    assert [row[1] for row in written[1:]] == [labels[i] for i in mean.argmax(axis=1)]


def test_a_sample_that_asks_for_other_images_is_refused(classified: ResultFolder, cli: Cli, tmp_path: Path) -> None:
    record = record_of(classified, "one_class")
    run = Path(shutil.copytree(classified.run_folder(record.run_id), tmp_path / "run"))
    (tmp_path / "sample.csv").write_text("index,label\n0,x\n999,x\n")
    about = json.loads((run / "record.json").read_text())
    about["data"]["sample_submission"] = str(tmp_path / "sample.csv")
    (run / "record.json").write_text(json.dumps(about))
    result = cli("submit", run, "--out", "sub.csv")
    assert result.exit_code == 2
    assert "1 without a prediction (999)" in result.output
    assert not Path("sub.csv").exists()


# ---- blend


def predictions(truth: list[int], rows: list[list[float]], test: list[list[float]]) -> ClassPredictions:
    labels = ("a-bad", "a-good", "b-good")
    return ClassPredictions(
        labels=labels,
        label_specs=(("a", "bad"), ("a", "good"), ("b", "good")),
        names=tuple(f"{i}.png" for i in range(len(truth))),
        truth=np.array(truth),
        folds=np.zeros(len(truth), dtype=np.int64),
        probabilities=np.array(rows, dtype=np.float32),
        plain=None,
        test_names=tuple(f"t{i}.png" for i in range(len(test))),
        test_keys=tuple(f"t{i}.png" for i in range(len(test))),
        test_truth=np.full(len(test), -1),
        test_by_fold=np.array(test, dtype=np.float32).reshape(1, len(test), len(labels)),
    )


def put(folder: Path, predictions: ClassPredictions, template: RunRecord, **data: Any) -> Path:
    folder.mkdir(parents=True)
    predictions.save(folder)
    values = template.as_dict() | {"run_id": folder.name}
    values["data"] = {**values["data"], "sample_submission": None, "root": str(folder)} | data
    (folder / "record.json").write_text(json.dumps(values))
    return folder


def test_a_blend_by_hand(classified: ResultFolder, cli: Cli) -> None:
    template = record_of(classified, "one_class")
    truth = [0, 1, 2, 1]
    # One calls the first image good; two is sure of it, and wrong on the last.
    one = predictions(truth, [[0.4, 0.6, 0], [0.1, 0.9, 0], [0, 0.4, 0.6], [0, 1, 0]], [[0.2, 0.8, 0], [0, 0.5, 0.5]])
    two = predictions(truth, [[0.9, 0.1, 0], [0.2, 0.8, 0], [0, 0.7, 0.3], [0.6, 0.4, 0]], [[0.9, 0.1, 0], [0, 1, 0]])
    put(Path("one"), one, template)
    put(Path("two"), two, template)
    recipe = {
        "runs": {"A": "one", "B": "two"},
        "soft": {"A": 3, "B": 1},
        "rules": [{"take": "B", "where_state_not": "good"}, {"take": "A", "where_state": "good", "classes": ["a"],
                                                             "unless": {"run": "B", "label": "a-bad"}}],
    }  # fmt: skip
    Path("mix.yaml").write_text(yaml.safe_dump(recipe))
    result = cli("blend", "mix.yaml", "--out", "sub.csv")
    assert result.exit_code == 0, result.output
    blended = ClassPredictions.load(next(Path("results/mix/runs").iterdir()))
    # Averaged 3 to 1: 0.525 to 0.475 for the first label.
    average = macro_f1(one.truth, np.array([0, 1, 2, 1]), 3)
    assert average == 1
    assert "average of 0.75 A, 0.25 B: macro F1" in result.output
    assert "-> 1.0000" in result.output
    # The first rule takes B's a-bad for the first and the last image; the last was right before.
    assert [blended.labels[i] for i in blended.predicted] == ["a-bad", "a-good", "b-good", "a-bad"]
    assert "take B where its state is not good: macro F1 1.0000 ->" in result.output
    assert "1 labels changed: 0 corrected, 1 made wrong" in result.output
    assert [row[1] for row in read_csv("sub.csv")][1:] == ["a-bad", "a-good"]
    (record,) = ResultFolder(Path("results/mix")).records()
    assert record.spec["model"] == "blend"
    # Its own temperature, and no network for a map.
    assert Temperature.from_dict(record.temperature) == Temperature.of(blended)
    details = json.loads((ResultFolder(Path("results/mix")).run_folder(record.run_id) / "details.json").read_text())
    assert details["cam_note"] == "the run has no network of its own"
    assert load_workbook("results/mix/models_comparing.xlsx")["Summary"] is not None
    assert cli("submit", "results/mix", "--out", "again.csv").exit_code == 0
    assert Path("again.csv").read_text() == Path("sub.csv").read_text()


def test_a_blend_submits_itself_and_not_a_better_one(classified: ResultFolder, cli: Cli) -> None:
    template = record_of(classified, "one_class")
    good, bad = ([[1, 0, 0], [0, 1, 0]], [[0, 1, 0], [1, 0, 0]])
    put(Path("good"), predictions([0, 1], good, [[1, 0, 0]]), template)
    put(Path("bad"), predictions([0, 1], bad, [[0, 0, 1]]), template)
    for name, label in (("good", "a-bad"), ("bad", "b-good")):
        Path("mix.yaml").write_text(yaml.safe_dump({"runs": {"A": name}}))
        assert cli("blend", "mix.yaml", "--out", "sub.csv").exit_code == 0
        assert [row[1] for row in read_csv("sub.csv")] == ["label", label]
    records = ResultFolder(Path("results/mix")).records()
    assert len(records) == 2
    # The same run whose folds count otherwise is another blend.
    Path("mix.yaml").write_text(yaml.safe_dump({"runs": {"A": {"average_weights": ["bad"]}}}))
    result = cli("blend", "mix.yaml", "--out", "nowhere/sub.csv")
    assert result.exit_code == 2
    assert "--out: no folder found" in result.output
    assert len(ResultFolder(Path("results/mix")).records()) == 2


def test_runs_with_other_labels_or_contents_do_not_blend(classified: ResultFolder, cli: Cli) -> None:
    template = record_of(classified, "one_class")
    rows = [[1, 0, 0], [0, 1, 0]]
    put(Path("one"), predictions([0, 1], rows, [[1, 0, 0]]), template)
    put(Path("corrected"), predictions([0, 2], rows, [[1, 0, 0]]), template)
    put(Path("retaken"), predictions([0, 1], rows, [[1, 0, 0]]), template, test_fingerprint="other")
    for other in ("corrected", "retaken"):
        Path("mix.yaml").write_text(yaml.safe_dump({"runs": {"A": "one", "B": other}}))
        result = cli("blend", "mix.yaml")
        assert result.exit_code == 2
        assert "with other labels or contents; expected runs on the same data" in result.output


def test_warnings_of_runs_are_those_of_their_blend(classified: ResultFolder, cli: Cli) -> None:
    template = record_of(classified, "one_class")
    folder = put(Path("one"), predictions([0, 1], [[1, 0, 0], [0, 1, 0]], [[1, 0, 0]]), template)
    values = json.loads((folder / "record.json").read_text())
    values["warnings"] = ["keep best: flatters them", *values["data"]["notes"]]
    (folder / "record.json").write_text(json.dumps(values))
    Path("mix.yaml").write_text(yaml.safe_dump({"runs": {"A": "one"}, "soft": "fit"}))
    result = cli("blend", "mix.yaml")
    (record,) = ResultFolder(Path("results/mix")).records()
    assert [text for text in record.warnings if text.startswith("A: ")] == ["A: keep best: flatters them"]
    # A blend itself chooses no epochs.
    assert "chose epochs" not in result.output
    assert "chose epochs" not in Path("results/mix/report.html").read_text()


def test_a_submission_without_a_sample_says_what_images_are_called_by(classified: ResultFolder, cli: Cli) -> None:
    template = record_of(classified, "one_class")
    own_predictions = predictions([0, 1], [[1, 0, 0], [0, 1, 0]], [[1, 0, 0]])
    put(Path("files"), own_predictions, template)
    put(Path("numbers"), replace(own_predictions, test_keys=("17",)), template)
    for name, head in (("files", "file_name"), ("numbers", "index")):
        result = cli("submit", name, "--out", "sub.csv")
        assert f"Columns: {head} and label" in result.output
        assert read_csv("sub.csv")[0] == [head, "label"]


def test_fitted_weights_are_never_worse_than_the_best_run() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(4, size=120)
    runs = []
    for noise in (1.2, 1.4, 3.0):
        logits = rng.normal(0, noise, (120, 4)) + 2 * np.eye(4)[truth]
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        runs.append(probabilities.astype(np.float32))
    shares = fit_weights(runs, truth)
    assert shares.sum() == pytest.approx(1)
    blended = macro_f1(truth, np.tensordot(shares, np.stack(runs), axes=1).argmax(axis=1), 4)
    assert blended > max(macro_f1(truth, run.argmax(axis=1), 4) for run in runs)
    assert shares[2] < shares[0]


def test_averaged_networks_have_statistics_of_training_images(classified: ResultFolder) -> None:
    from harness.ensemble.average import predict_soup
    from harness.ensemble.runs import class_run

    folders = [
        classified.run_folder(record_of(classified, "baseline", balance=name).run_id) for name in ("none", "sampler")
    ]
    runs = [class_run(folder) for folder in folders]
    soup, own, notes = predict_soup(runs, "cpu", str)
    assert own
    assert notes == []
    assert np.isfinite(soup.probabilities).all()
    assert not np.allclose(soup.probabilities, runs[0].predictions.probabilities, atol=1e-3)
    again, _, _ = predict_soup(runs, "cpu", str)
    np.testing.assert_array_equal(soup.probabilities, again.probabilities)
    # With the predictions of one fold only, no image of its training is known.
    first = [_first_fold(run) for run in runs]
    _, _, notes = predict_soup(first, "cpu", str)
    assert any("0 images of their training found, expected at least 8" in note for note in notes)


def _first_fold(run: ClassRun) -> ClassRun:
    """A run with the predictions of its first fold only."""
    predictions = run.predictions
    kept = predictions.folds == predictions.folds[0]
    cut = replace(
        predictions,
        names=tuple(name for name, keep in zip(predictions.names, kept, strict=True) if keep),
        truth=predictions.truth[kept],
        folds=predictions.folds[kept],
        probabilities=predictions.probabilities[kept],
        plain=None,
    )
    part = ClassRun(run.folder, run.record)
    part.__dict__["predictions"] = cut
    return part


def test_weights_of_networks_are_averaged_fold_by_fold(classified: ResultFolder, cli: Cli) -> None:
    run = classified.run_folder(record_of(classified, "baseline", balance="none").run_id)
    other = classified.run_folder(record_of(classified, "baseline", balance="sampler").run_id)
    # The average of a run with itself is the run.
    soups = {"own": [run, run], "soup": [run, other], "one": [run]}
    runs = {name: {"average_weights": [str(path) for path in paths]} for name, paths in soups.items()}
    recipe = {"runs": runs, "soft": {"own": 1}}
    Path("soup.yaml").write_text(yaml.safe_dump(recipe))
    result = cli("blend", "soup.yaml", "--device", "cpu")
    assert result.exit_code == 0, result.output
    blended = ClassPredictions.load(next(Path("results/soup/runs").iterdir()))
    before = ClassPredictions.load(run)
    np.testing.assert_allclose(blended.probabilities, before.probabilities, atol=1e-4)
    np.testing.assert_allclose(blended.test_probabilities, before.test_probabilities, atol=1e-4)
    assert "one: networks averaged over folds saw every image" in result.output
    assert "batch normalisation of the averaged networks" not in result.output
    wrong = {
        "runs": {
            "x": {"average_weights": [str(run), str(classified.run_folder(record_of(classified, "one_class").run_id))]}
        }
    }
    Path("wrong.yaml").write_text(yaml.safe_dump(wrong))
    result = cli("blend", "wrong.yaml", "--device", "cpu")
    assert result.exit_code == 2
    assert "expected the same network with the same head, image size, method" in result.output


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"runs": {}}, "runs"),
        ({"runs": {"A": "nowhere"}}, "nowhere: nothing found"),
        ({"runs": {"A": "RUN"}, "rules": [{"take": "B"}]}, "unknown run 'B'. Known: A"),
        ({"runs": {"A": "RUN"}, "rules": [{"take": "A", "classes": ["wheel"]}]}, "rules[0]: class 'wheel' found"),
        ({"runs": {"A": "RUN"}, "soft": {"A": 0}}, "weights from 0 that are not all 0"),
        ({"runs": {"A": {"run": "RUN", "folds": {7: 1.0}}}}, "the run has folds [0, 1]"),
        ({"runs": {"A": "RUN"}, "rulez": []}, "rulez"),
    ],
)
def test_a_bad_recipe_is_one_sentence(classified: ResultFolder, cli: Cli, recipe: dict[str, Any], words: str) -> None:
    run = classified.run_folder(record_of(classified, "one_class").run_id)
    Path("b.yaml").write_text(yaml.safe_dump(recipe).replace("RUN", str(run)))
    result = cli("blend", "b.yaml")
    assert result.exit_code == 2, result.output
    assert words in result.output
    assert not Path("results").exists()


# ---- what is shared


@pytest.mark.slow
def test_views_share_their_networks_and_settings_their_images(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.backends.supervised import decoding, training

    calls: dict[str, int] = {"_fit": 0, "decode": 0}
    for module, name in ((training, "_fit"), (decoding, "decode")):
        original = getattr(module, name)

        def counted(*arguments: Any, _name: str = name, _original: Any = original, **named: Any) -> Any:
            calls[_name] += 1
            return _original(*arguments, **named)

        monkeypatch.setattr(module, name, counted)
    monkeypatch.setattr(decoding, "_CACHE", {})
    Path("c.yaml").write_text(CONFIG.format(name="shared"))
    point = "model: baseline, backbone: test_resnet, image_size: 32, lr: [5.0e-3, 1.0e-3], tta: [none, flips]"
    result = cli("sweep", "c.yaml", f"grid=[{{{point}}}]")
    assert result.exit_code == 0, result.output
    # Two configurations of two folds each, and one set of images.
    assert calls == {"_fit": 4, "decode": 1}
    folder = ResultFolder(Path("results/shared"))
    runs = {(r.spec["params"]["lr"], r.spec["params"]["tta"]): r for r in folder.records()}
    assert len(runs) == 4
    for lr in (5e-3, 1e-3):
        plain, flipped = (ClassPredictions.load(folder.run_folder(runs[lr, tta].run_id)) for tta in ("none", "flips"))
        assert flipped.plain is not None
        assert np.array_equal(plain.probabilities, flipped.plain)
        assert runs[lr, "flips"].seconds["fit"] > 0
    assert not list((folder.root / ".unfinished").iterdir())


def test_points_that_differ_in_what_has_no_effect_are_one_run(cli: Cli) -> None:
    Path("c.yaml").write_text(CONFIG.format(name="equal"))
    point = "model: baseline, backbone: test_resnet, loss: [cross_entropy, focal, arcface], focal_gamma: [1, 3]"
    result = cli("plan", "c.yaml", f"grid=[{{{point}, arcface_classes: [gear, nut]}}]", "--no-check")
    assert result.exit_code == 0, result.output
    # One of cross entropy, two of focal, one of arcface.
    assert "equal: 4 runs (6 points, 2 equal to another)" in result.output


# ---- what goes wrong


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("grid[0].loss=focl", "loss: found 'focl', expected one of cross_entropy, focal, arcface. Did you mean focal?"),
        ("grid[0].model=resnet18", "unknown method 'resnet18'"),
        (
            "grid[0].backend=anomalib",
            "backend: anomalib found, which is for task detection; expected one of: supervised.",
        ),
        ("grid[0].backbone=test_resnett", "Did you mean 'test_resnet'"),
        ("grid[0].epochs=3", "baseline has no such parameter"),
        ("grid[0].max_epochs=3", "use `trainer: {max_epochs: ...}`"),
        ("trainer.strategy=ddp", "ddp found; expected auto, or with several devices ddp_spawn or ddp_fork"),
        ("trainer.devices=2", "auto found with devices 2, which would start the whole command again in each process"),
        ("trainer.max_epoch=3", "trainer.max_epoch: found; Lightning's Trainer takes no such argument"),
        ("trainer.callbacks=3", "trainer.callbacks: found, but the harness sets it"),
        ("trainer.max_epochs=0", "trainer.max_epochs: found 0"),
        ("trainer.limit_val_batches=0", "trainer.limit_val_batches: found, but the harness sets it"),
        ("trainer.precision=bf16-true", "bf16-true found; expected 32-true, or mixed"),
        ("data.train_batch_size=1", "expected at least 2"),
        ("grid[0].arcface_classes=[wheel]", "has no effect here; expected loss arcface. Otherwise remove the axis."),
        ("grid[0].focal_gamma=[1,3]", "focal_gamma: 1, 3 found, which has no effect here; expected loss focal"),
        (
            "grid[0].optimizer=lam",
            "optimizer: found 'lam', expected a name of timm.optim.list_optimizers()",
        ),
        ("grid[0].optimizer=adahessian", "optimizer: found adahessian, which needs second derivatives; choose another"),
        ("grid[0].optimizer=fusedadam", "optimizer: found fusedadam, which cannot run here"),
        ("grid[0].weight_decay_on=heads", "weight_decay_on: found 'heads', expected one of weights, all."),
        ("grid[0].warmup_epochs=-1", "warmup_epochs: found -1, expected a number from 0 to 10000."),
        ("grid[0].warmup_epochs=1.5", "warmup_epochs: found 1.5, expected a whole number"),
        ("grid[0].warmup_epochs=500", "warmup_epochs: found 500 with"),
        ("grid[0].eta_min=0.1", "eta_min: 0.1 found, which has no effect here; expected schedule cosine or"),
        ("grid[0].t_mult=2", "t_mult: 2 found, which has no effect here; expected schedule cosine_restarts"),
        ("grid[0].head=logit", "head: found 'logit', expected one of pooled, logits. Did you mean logits?"),
        ("grid[0].drop_path_rate=1", "drop_path_rate: found 1.0, expected a number from 0 to 0.95."),
        (
            "grid[0].arcface_labels=[gear-*]",
            "which has no effect here; expected loss arcface. Otherwise remove the axis.",
        ),
        (
            "grid[0]={LABELS: [wheel-*]}",
            "arcface_labels: found wheel-*, which no label matches; expected labels such as",
        ),
        ("grid[0]={LABELS: ['!*']}", "arcface_labels: found !*, which leaves no label; exclude fewer labels"),
        ("grid[0]={UNIT: radian}", "arcface_unit: found 'radian', expected one of degrees, radians. Did you"),
        ("grid[0]={UNIT: radians}", "arcface_margin: found 28.6 radians; expected at most 1.57."),
        (
            "grid[0].monitor=loss",
            "monitor: loss found, which has no effect here; expected keep best, or early_",
        ),
        ("grid[0]={STOP: los}", "monitor: found 'los', expected one of macro_F1, loss. Did you mean loss?"),
        ("grid[0].mix=mixup+cutmx", "mix: found 'mixup+cutmx', expected one of none, mixup, cutmix, mixup+cutmix."),
        ("grid[0].mix_probability=0.5", "mix_probability: 0.5 found, which has no effect here; expected mix mixup or"),
        ("data.run_folds=[5]", "found [5], expected different ones of [0, 1]"),
        ("weights=pretrained", "weights: none found for backbone 'test_resnet'"),
    ],
)
def test_bad_input_is_one_sentence_before_any_work(cli: Cli, override: str, words: str) -> None:
    Path("c.yaml").write_text(CONFIG.format(name="bad"))
    arcface = "model: baseline, backbone: test_resnet, image_size: 32, loss: arcface, "
    override = override.replace("LABELS", f"{arcface}arcface_labels").replace("UNIT", f"{arcface}arcface_unit")
    override = override.replace("STOP", "model: baseline, backbone: test_resnet, image_size: 32, keep: best, monitor")
    result = cli("sweep", "c.yaml", override)
    assert result.exit_code == 2, result.output
    assert words in result.output.replace("\n", " ")
    assert not Path("results").exists()


def test_a_loss_that_is_no_number_is_a_failure_and_the_next_run_goes_on(cli: Cli) -> None:
    Path("c.yaml").write_text(CONFIG.format(name="nan"))
    point = (
        "model: baseline, backbone: test_resnet, image_size: 32, optimizer: sgd, lr: [9.9, 0.01], weight_decay: 10.0"
    )
    grid = f"grid=[{{{point}}}]"
    result = cli(
        "sweep", "c.yaml", grid, "trainer.max_epochs=3", "trainer.gradient_clip_val=0.0", "grid[0].augment=none"
    )
    folder = ResultFolder(Path("results/nan"))
    by_lr = {record.spec["params"]["lr"]: record for record in folder.records()}
    assert by_lr[0.01].status == "ok", result.output
    assert by_lr[9.9].status == "failed"
    assert by_lr[9.9].error is not None
    assert by_lr[9.9].error["type"] == "TrainingError"
    assert "training was stopped. Try a smaller lr (found 9.9)" in by_lr[9.9].error["message"]
    assert result.exit_code == 1


def test_probabilities_are_checked() -> None:
    good = predictions([0, 1], [[1, 0, 0], [0, 1, 0]], [])
    values = {**vars(good)}
    for wrong, words in (
        (np.array([[1, 0, 0], [0, 2, 0]], np.float32), "do not sum to 1"),
        (np.array([[1, 0, 0], [0, np.nan, 0]], np.float32), "NaN"),
        (np.array([[1, 0], [0, 1]], np.float32), r"\(2, 3\) expected"),
    ):
        with pytest.raises(PredictionsError, match=words):
            ClassPredictions(**values | {"probabilities": wrong})


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_from_its_last_epoch(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(CONFIG.format(name="killed"))
    command = [sys.executable, "-m", "harness", "sweep", str(config), "grid=[{model: baseline, backbone: test_resnet, "
               "image_size: 32, lr: 5.0e-3, augment: rotate45}]", "trainer.max_epochs=12", "--output"]  # fmt: skip
    process = subprocess.Popen([*command, "cut"])
    work = Path("cut/killed/.unfinished")
    while not list(work.glob("*/fold1/last.ckpt")):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(Path("cut/killed/runs").iterdir())
    subprocess.run([*command, "cut"], check=True)
    subprocess.run([*command, "whole"], check=True)
    (cut,), (whole,) = (ResultFolder(Path(name) / "killed").records() for name in ("cut", "whole"))
    assert cut.folds[1]["resumed_after_epoch"] >= 1
    assert cut.metrics == whole.metrics
    assert any("resumed after a stop" in warning for warning in cut.warnings)
    one, other = (ClassPredictions.load(Path(name) / "killed/runs" / cut.run_id) for name in ("cut", "whole"))
    assert np.array_equal(one.probabilities, other.probabilities)
    assert not list(work.iterdir())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_balancing_lifts_the_tail_and_a_blend_of_two_does_not_harm(cli: Cli) -> None:
    config = ROOT / "configs" / "classify" / "smoke.yaml"
    # A small network from random weights, stopped early: rare classes are not learnt yet, unless they are shown more
    # often or count more. A network that brings ImageNet's features needs no such help on these images.
    network = ("weights=random", "grid.backbone=test_resnet", "grid.image_size=64", "grid.lr=0.01")
    shorter = ("trainer.max_epochs=8", "grid.tta=none", "grid.model=baseline", "name=short")
    result = cli("sweep", config, *network, *shorter, "grid.balance=[none, sampler, class_weights]")
    assert result.exit_code == 0, result.output
    folder = ResultFolder(Path("results/short"))
    by_balance = {record.spec["params"]["balance"]: record for record in folder.records()}
    tails = {name: record.metrics["tail_F1"] or 0.0 for name, record in by_balance.items()}
    assert tails["sampler"] > tails["none"] + 0.05, tails
    assert tails["class_weights"] > tails["none"] + 0.05, tails
    runs = {name: str(folder.run_folder(by_balance[name].run_id)) for name in ("none", "class_weights")}
    best = max(by_balance[name].metrics["macro_F1"] or 0.0 for name in runs)
    for soft in ("equal", "fit"):
        Path("mix.yaml").write_text(yaml.safe_dump({"name": soft, "runs": runs, "soft": soft}))
        assert cli("blend", "mix.yaml").exit_code == 0
        (blended,) = ResultFolder(Path("results") / soft).records()
        assert (blended.metrics["macro_F1"] or 0.0) >= best, soft

"""Another threshold for a finished run: from stored scores, beside the record, and used everywhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from harness import load_model
from harness.inference.threshold import for_false_alarms, for_misses
from harness.report.notices import notices
from harness.report.results import Results
from harness.report.tables import runs_table
from harness.results.scores import read_calibration, read_scores
from harness.results.store import ResultFolder
from harness.results.thresholds import THRESHOLD, changed_thresholds
from tests.conftest import Cli
from tests.trained import run_of


@pytest.fixture
def copied(trained: ResultFolder, tmp_path: Path) -> ResultFolder:
    shutil.copytree(trained.root, tmp_path / "trained")
    return ResultFolder(tmp_path / "trained")


@pytest.fixture
def run(copied: ResultFolder) -> Path:
    return copied.run_folder(run_of(copied, "native", "padim").run_id)


def test_the_rate_of_false_alarms_is_asked_again(copied: ResultFolder, run: Path, cli: Cli) -> None:
    before = (run / "record.json").read_bytes()
    calibration = read_calibration(run)
    assert calibration is not None
    result = cli("threshold", run, "--false-alarms", 0.4)
    assert result.exit_code == 0, result.output
    thresholds = changed_thresholds(run)
    assert thresholds is not None and thresholds.image is not None and thresholds.false_alarms is not None
    count = len(calibration.scores)
    assert (calibration.scores > thresholds.image).sum() + 1 <= max(1.0, 0.4 * (count + 1))
    assert thresholds.false_alarms == max(1, int(0.4 * (count + 1))) / (count + 1)
    assert (run / "record.json").read_bytes() == before
    # The model, and with it predict, export and demo.
    assert load_model(run).thresholds == thresholds
    # The report shows both.
    frame = runs_table(Results.of(copied)).set_index("run")
    record = copied.read_record(run.name)
    assert record is not None
    assert frame.loc[run.name, "image_threshold"] == record.thresholds["image"]
    assert frame.loc[run.name, "changed_threshold"] == thresholds.image
    assert frame["changed_threshold"].notna().sum() == 1
    assert any("threshold of 1 run was changed" in sentence for sentence in notices(Results.of(copied)))
    assert cli("threshold", run, "--reset").exit_code == 0
    assert not (run / THRESHOLD).exists()
    assert load_model(run).thresholds.image == record.thresholds["image"]


def test_a_rate_that_few_images_can_not_promise_is_told(run: Path, cli: Cli) -> None:
    result = cli("threshold", run, "--false-alarms", 0.001)
    assert result.exit_code == 0
    assert "it needs 999 normal images" in " ".join(result.output.split())


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_no_more_than_the_share_is_missed(copied: ResultFolder, run: Path, share: float) -> None:
    record, scores = copied.read_record(run.name), read_scores(run)
    assert record is not None and scores is not None
    value = for_misses(run, record, share).image
    assert value is not None
    anomalous = scores.scores[scores.labels]
    assert (anomalous <= value).mean() <= share
    # The next larger score would miss more.
    above = np.sort(anomalous[anomalous > value])
    assert (anomalous <= above[0]).mean() > share


def test_the_command_for_misses_says_that_it_is_optimistic(run: Path, cli: Cli) -> None:
    result = cli("threshold", run, "--miss", 0)
    assert result.exit_code == 0, result.output
    output = " ".join(result.output.split())
    assert "0 of 6 anomalous ones missed" in output
    assert "new images have more errors" in output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "no option found; expected one of --false-alarms"),
        (("--miss", 0, "--false-alarms", 0.1), "expected one of --false-alarms, --miss and --reset"),
        (("--false-alarms", 0), "--false-alarms: 0 found"),
        (("--false-alarms", 1), "--false-alarms: 1 found"),
        (("--false-alarms", "nan"), "--false-alarms: nan found"),
        (("--miss", 1), "--miss: 1 found"),
        (("--miss", -0.1), "--miss: -0.1 found"),
    ],
)
def test_bad_options(run: Path, cli: Cli, options: tuple[object, ...], message: str) -> None:
    result = cli("threshold", run, *options)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())
    assert not (run / THRESHOLD).exists()


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"image": "high"}', '{"image": NaN}', '{"parrots": 1}', '{"image_scale": -1}']
)
def test_a_damaged_file_is_named_with_what_to_do(run: Path, cli: Cli, text: str) -> None:
    (run / THRESHOLD).write_text(text)
    result = cli("predict", run, run / "heatmaps", "--recursive")
    assert result.exit_code == 2
    output = " ".join(result.output.split())
    assert f"{run / THRESHOLD}: damaged" in output
    assert "Remove the file" in output


def test_a_run_without_calibration_scores_says_what_to_do(copied: ResultFolder, run: Path, cli: Cli) -> None:
    (run / "calibration.csv").unlink()
    result = cli("threshold", run, "--false-alarms", 0.1)
    assert result.exit_code == 2
    assert "no calibration.csv found" in " ".join(result.output.split())
    record = copied.read_record(run.name)
    assert record is not None
    with pytest.raises(Exception, match=r"calibration\.csv"):
        for_false_alarms(run, record, 0.1)


def test_a_sweep_stands_for_its_recommended_run(copied: ResultFolder, cli: Cli) -> None:
    result = cli("threshold", copied.root, "--miss", 0)
    assert result.exit_code == 0, result.output
    (file,) = copied.runs.glob(f"*/{THRESHOLD}")
    assert json.loads(file.read_text())["fixed_by"].endswith("changed after the run")
    assert load_model(copied.root).thresholds == changed_thresholds(file.parent)


def test_a_classification_has_no_threshold(tmp_path: Path, cli: Cli) -> None:
    stored = Path(__file__).parent.parent / "stored" / "results" / "named"
    (run,) = sorted((stored / "runs").iterdir())[:1]
    result = cli("threshold", run, "--miss", 0)
    assert result.exit_code == 2
    assert "a run of classification found; expected a detector" in " ".join(result.output.split())


def test_an_export_that_is_older_is_told(run: Path, cli: Cli) -> None:
    (run / "exported").mkdir()
    result = cli("threshold", run, "--miss", 0)
    assert "Exported models of this run keep their threshold" in " ".join(result.output.split())


def test_a_damaged_file_is_left_out_of_the_report(copied: ResultFolder, run: Path) -> None:
    (run / THRESHOLD).write_text("{")
    results = Results.of(copied)
    assert [sentence for sentence in results.damaged if f"{run / THRESHOLD}: damaged" in sentence]
    assert "changed_threshold" not in runs_table(results)

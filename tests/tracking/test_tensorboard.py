"""TensorBoard's own reader finds the values of a run in the folder of the run."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from harness.results.store import ResultFolder
from harness.tracking.content import tracked_run
from harness.tracking.tensorboard import TensorBoardTracker
from tests.conftest import Cli

pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData


def test_a_finished_classification_is_logged_as_a_whole_and_once(
    classified: ResultFolder, cli: Cli, tmp_path: Path
) -> None:
    folder = ResultFolder(tmp_path / "results" / classified.root.name)
    shutil.copytree(classified.root, folder.root)
    command = ("sweep", folder.config, "--output", folder.root.parent, "tracking=[tensorboard]")
    for _ in range(2):
        result = cli(*command)
        assert result.exit_code == 0, result.output
        assert "0 to run now" in result.output
        assert "warning" not in result.output
    logged = {path.name: path for path in (folder.root / "tensorboard").iterdir()}
    assert set(logged) == {record.run_id for record in folder.records()}
    for record in folder.records():
        (file,) = logged[record.run_id].iterdir()
        events = EventAccumulator(str(file), size_guidance={"images": 0}).Reload()
        values = {name: events.Scalars(name)[0].value for name in events.Tags()["scalars"]}
        for name, value in record.metrics.items():
            assert values.get(name) == (None if value is None else pytest.approx(value)), name
        pictures = {path.name for path in folder.run_folder(record.run_id).rglob("*.jpg")}
        assert {Path(name).name for name in events.Tags()["images"]} == pictures


def test_the_folder_of_a_run_is_written_as_a_whole(sweep_folder: ResultFolder, tmp_path: Path) -> None:
    record = next(record for record in sweep_folder.records() if record.status == "ok")
    run = tracked_run(record, sweep_folder.run_folder(record.run_id))
    folder = tmp_path / "tensorboard"
    TensorBoardTracker(folder, "parts").log(run)
    again = replace(run, metrics={**run.metrics, "image_AUROC": 0.25})
    assert TensorBoardTracker(folder, "parts").log(again) == run.run_id
    assert [path.name for path in folder.iterdir()] == [run.run_id]
    events = EventAccumulator(str(folder / run.run_id), size_guidance={"images": 0}).Reload()
    values = {name: [event.value for event in events.Scalars(name)] for name in events.Tags()["scalars"]}
    assert values == {name: [pytest.approx(value)] for name, value in again.metrics.items()}
    assert set(events.Tags()["images"]) == set(run.pictures)
    data = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    hparams = HParamsPluginData.FromString(data).session_start_info.hparams
    assert {name: value.string_value for name, value in hparams.items()} == run.parameters

"""Times of a busy machine: marked, taken again where a model was kept, and otherwise told."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.backends import latency
from harness.backends.latency import BUSY, THREADS
from harness.config.load import load_config
from harness.execution.progress import SweepProgress
from harness.execution.retime import retime
from harness.execution.writer import ResultWriter
from harness.planning.prepare import Prepared, prepare
from harness.results.record import RunRecord
from harness.results.store import ResultFolder
from tests.conftest import Cli, write_config

CONFIG = """
name: busy
data: {{kind: mvtec, root: {root}, category: plate}}
weights: random
device: cpu
save_models: {models}
grid: {{backend: native, model: padim, backbone: test_resnet, layers: [layer1], n_features: [3, 4], image_size: 32}}
"""
ALWAYS, NEVER = -1.0, 1.0  # the load of other programs is between 0 and 1


def swept(cli: Cli, tree: Path, models: str) -> tuple[ResultFolder, str]:
    result = cli("sweep", write_config(Path("c.yaml"), CONFIG.format(root=tree, models=models)))
    assert result.exit_code == 0, result.output
    return ResultFolder(Path("results/busy")), " ".join(result.output.split())


def again(capsys: pytest.CaptureFixture[str]) -> tuple[list[RunRecord], str]:
    """Measure marked times again; the records of the folder, and what the terminal shows."""
    prepared: Prepared = prepare(load_config(Path("c.yaml")))
    progress = SweepProgress(2, live=False)
    writer = ResultWriter(prepared, progress)
    writer.summary.done = prepared.folder.records()
    retime(prepared, writer, progress)
    records = prepared.folder.records()
    assert sorted(writer.summary.done, key=lambda record: record.run_id) == records
    return records, " ".join(capsys.readouterr().out.split())


def test_a_busy_machine_marks_all_times_and_is_not_measured_for_ever(
    cli: Cli, toy_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "MAX_LOAD", ALWAYS)
    folder, output = swept(cli, toy_tree, "all")
    assert "2 times of single images were measured on a busy machine; 0 of them were measured again." in output
    assert "2 stay marked (the machine is still busy: 2)." in output
    assert "BUSY MACHINE in 2 of 2 runs" in output
    assert output.count("(busy)") == 2
    for record in folder.records():
        assert record.cost[BUSY] is True
        assert any(text.startswith("latency: other programs kept") for text in record.warnings)


def test_marked_times_are_measured_again_with_saved_models(
    cli: Cli, toy_tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(latency, "MAX_LOAD", ALWAYS)
    folder, _ = swept(cli, toy_tree, "all")
    before = {record.run_id: record for record in folder.records()}
    monkeypatch.setattr(latency, "MAX_LOAD", NEVER)
    records, output = again(capsys)
    assert "2 of them were measured again." in output
    for record in records:
        assert record.cost[BUSY] is False
        assert record.cost["seconds_p50"] != before[record.run_id].cost["seconds_p50"]
        assert record.cost[THREADS] == before[record.run_id].cost[THREADS]
        assert not any(text.startswith("latency") for text in record.warnings)
        assert record.metrics == before[record.run_id].metrics
        assert folder.model_file(record.run_id) is not None
    assert "busy machine" not in again(capsys)[1]


def test_a_time_without_a_saved_model_stays_marked_and_so_does_that_of_another_machine(
    cli: Cli, toy_tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(latency, "MAX_LOAD", ALWAYS)
    folder, _ = swept(cli, toy_tree, "best")
    monkeypatch.setattr(latency, "MAX_LOAD", NEVER)
    (kept,) = (record for record in folder.records() if record.model)
    file = folder.model_file(kept.run_id)
    assert file is not None
    model = file.read_bytes()
    file.write_bytes(b"damaged")
    assert "the saved model can't be timed: 1" in again(capsys)[1]
    file.write_bytes(model)
    kept.provenance["cpu"] = "another"
    folder.update(kept)
    assert "measured on another device: 1" in again(capsys)[1]
    # Each time, the run without a model stays marked too.
    records, output = again(capsys)
    assert "no saved model (save_models: all keeps them): 1" in output
    assert [record.cost[BUSY] for record in records] == [True, True]

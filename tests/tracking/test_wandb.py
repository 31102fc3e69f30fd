"""Weights & Biases without a network: its files in the result folder, and a server that does not answer."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from harness.results.store import ResultFolder
from harness.tracking.base import LOCAL
from harness.tracking.content import tracked_run
from harness.tracking.wandb import WandbTracker

pytest.importorskip("wandb", reason="needs the extra wandb")
pytestmark = pytest.mark.slow
VARIABLES = ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_ENTITY")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_offline_files_hold_each_run_once(sweep_folder: ResultFolder, tmp_path: Path) -> None:
    record = next(record for record in sweep_folder.records() if record.status == "ok")
    run = tracked_run(record, sweep_folder.run_folder(record.run_id))
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"a model")
    tracker = WandbTracker(tmp_path / "wandb", "parts #1")
    assert tracker.store == LOCAL
    assert tracker.log(run) == run.run_id
    # As after a kill before the note in the run's folder: another process does not know of the first call.
    tracker.log(replace(run, model=model))
    tracker.close()
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    files = folder / "files"
    assert (files / "record.json").read_text() == run.record
    assert (files / "model.safetensors").read_bytes() == b"a model"
    assert len(list((files / "media" / "images").rglob("*.jpg"))) == len(run.pictures) > 0
    (log,) = folder.glob("*.wandb")
    content = log.read_bytes()
    for text in (run.run_id, run.name, "parts -231", "params.", "image_AUROC", "seconds/total"):
        assert text.encode() in content


def test_a_server_that_does_not_answer_is_an_error(
    sweep_folder: ResultFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = next(record for record in sweep_folder.records() if record.status == "ok")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
        monkeypatch.setenv("WANDB_BASE_URL", address)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        tracker = WandbTracker(tmp_path / "wandb", "parts")
        assert tracker.store == f"{address}/"
        with pytest.raises(Exception, match=r"(?i)timed out|timeout|connect|network|refused"):
            tracker.log(tracked_run(record, sweep_folder.run_folder(record.run_id)))
        tracker.close()

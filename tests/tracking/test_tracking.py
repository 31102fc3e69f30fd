"""Each run is logged once, whatever happens to sweep and tracker. A tracker of the test writes down its calls."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from harness import registry
from harness.common.errors import ConfigError
from harness.config.load import load_config
from harness.results.store import ResultFolder
from harness.tracking import session
from harness.tracking.base import LOCAL, TrackedRun, without_password
from harness.tracking.content import tracked_run
from tests.conftest import ROOT, Cli, write_config

TEXT = """
name: tracked
data: {{kind: mvtec, root: {root}}}
latency: false
tracking: [notes]
grid: {{backend: dummy, model: mean, power: [1.0, 2.0], fail: {fail}}}
"""


class Notes:
    """A tracker in memory, which is down while `down` is true."""

    modules: ClassVar[tuple[str, ...]] = ("json",)
    calls: ClassVar[list[TrackedRun]] = []
    run_ids: ClassVar[list[str]] = []
    down: ClassVar[bool] = False
    opened: ClassVar[list[tuple[Path, str]]] = []

    def __init__(self, folder: Path, experiment: str) -> None:
        self.opened.append((folder, experiment))
        self.store = LOCAL

    def log(self, run: TrackedRun) -> str:
        self.run_ids.append(run.run_id)
        if type(self).down:
            raise ConnectionError("no answer\nfrom the server")
        self.calls.append(run)
        return f"own-{run.run_id}"

    def close(self) -> None: ...


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch, dummy: type) -> type[Notes]:
    del dummy
    monkeypatch.setitem(registry.TRACKERS, "notes", "tests.tracking.test_tracking:Notes")
    monkeypatch.setattr(Notes, "down", False)
    for values in (Notes.calls, Notes.run_ids, Notes.opened):
        values.clear()
    return Notes


@pytest.fixture
def config(tmp_path: Path, toy_tree: Path) -> Path:
    return write_config(tmp_path / "t.yaml", TEXT.format(root=toy_tree, fail="false"))


def test_a_run_is_logged_after_it_landed_and_its_model_at_the_end(cli: Cli, config: Path, notes: type[Notes]) -> None:
    result = cli("sweep", config)
    assert result.exit_code == 0, result.output
    records = ResultFolder(Path("results/tracked")).records()
    assert {folder for folder, _ in notes.opened} == {Path("results/tracked/notes")}
    assert {name for _, name in notes.opened} == {"tracked"}
    first, second, kept = notes.calls
    assert {first.run_id, second.run_id} == {record.run_id for record in records}
    # During the sweep the model of a run may still give way to a better one.
    assert first.model is None and second.model is None
    assert kept.model is not None and kept.model.is_file()
    assert kept.run_id in {first.run_id, second.run_id}
    assert not kept.knows_model
    calls = len(notes.calls)
    assert cli("sweep", config).exit_code == 0
    assert len(notes.calls) == calls


def test_all_models_are_logged_with_their_runs(cli: Cli, config: Path, notes: type[Notes]) -> None:
    assert cli("sweep", config, "save_models=all").exit_code == 0
    assert [run.model is not None for run in notes.calls] == [True, True]


def test_an_old_run_is_logged_once_when_tracking_is_added(cli: Cli, config: Path, notes: type[Notes]) -> None:
    assert cli("sweep", config, "tracking=[]").exit_code == 0
    before = [record.run_id for record in ResultFolder(Path("results/tracked")).records()]
    assert notes.calls == []
    assert cli("sweep", config).exit_code == 0
    assert sorted(run.run_id for run in notes.calls) == before
    assert cli("sweep", config).exit_code == 0
    assert sorted(run.run_id for run in notes.calls) == before
    assert [record.run_id for record in ResultFolder(Path("results/tracked")).records()] == before


def test_a_run_made_again_changes_the_logged_run(cli: Cli, config: Path, notes: type[Notes]) -> None:
    assert cli("sweep", config, "save_models=none").exit_code == 0
    assert cli("sweep", config, "save_models=none", "--fresh").exit_code == 0
    assert len(notes.calls) == 4
    assert len({run.run_id for run in notes.calls}) == 2


def test_a_model_that_the_tracker_has_is_not_sent_again(cli: Cli, config: Path, notes: type[Notes]) -> None:
    assert cli("sweep", config, "save_models=all").exit_code == 0
    folder = ResultFolder(Path("results/tracked"))
    changed = folder.records()[0]
    folder.update(replace(changed, warnings=["another record"]))
    assert cli("sweep", config, "save_models=all").exit_code == 0
    assert [run.run_id for run in notes.calls[2:]] == [changed.run_id]
    assert notes.calls[2].knows_model


def test_another_store_gets_all_runs(
    cli: Cli, config: Path, notes: type[Notes], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("sweep", config, "save_models=none").exit_code == 0
    monkeypatch.setattr("tests.tracking.test_tracking.LOCAL", "http://127.0.0.1:5000")
    assert cli("sweep", config, "save_models=none").exit_code == 0
    assert len(notes.calls) == 4


def test_a_tracker_that_is_down_is_told_once_and_asked_once(cli: Cli, config: Path, notes: type[Notes]) -> None:
    notes.down = True
    result = cli("sweep", config)
    assert result.exit_code == 0, result.output
    sentence = "notes: runs can't be logged (ConnectionError: no answer). The sweep goes on without notes."
    assert result.output.count(sentence) == 1
    assert "Start the same command again later: it logs the missing runs." in result.output
    assert len(notes.run_ids) == 1
    assert Path("results/tracked/sweep.log").read_text().count(sentence) == 1
    assert [record.status for record in ResultFolder(Path("results/tracked")).records()] == ["ok", "ok"]
    notes.down = False
    result = cli("sweep", config)
    assert "0 to run now" in result.output
    assert len({run.run_id for run in notes.calls}) == len(notes.calls) == 2


def test_a_failed_run_is_logged_as_failed(cli: Cli, tmp_path: Path, toy_tree: Path, notes: type[Notes]) -> None:
    config = write_config(tmp_path / "t.yaml", TEXT.format(root=toy_tree, fail="true"))
    assert cli("sweep", config).exit_code == 1
    assert [run.succeeded for run in notes.calls] == [False, False]
    assert notes.calls[0].tags["harness.status"] == "failed"


def test_a_damaged_note_of_a_run_asks_the_tracker_again(cli: Cli, config: Path, notes: type[Notes]) -> None:
    assert cli("sweep", config, "save_models=none").exit_code == 0
    for file in Path("results/tracked/runs").glob("*/tracking.json"):
        file.write_text("{")
    assert cli("sweep", config, "save_models=none").exit_code == 0
    assert len(notes.calls) == 4
    entry = json.loads(next(Path("results/tracked/runs").glob("*/tracking.json")).read_text())["trackers"]["notes"]
    assert entry["run"].startswith("own-")


def test_a_missing_package_and_an_unknown_name_end_before_any_work(
    cli: Cli, config: Path, notes: type[Notes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notes, "modules", ("no_such_package_anywhere",))
    result = cli("sweep", config)
    assert result.exit_code == 2
    sentence = "tracking: notes found, but not installed; run: pip install 'harness[notes]', or remove the name."
    assert sentence in result.output
    assert not Path("results/tracked").exists()
    with pytest.raises(ConfigError, match=r"tracking: unknown tracker 'mlfow'\. Did you mean 'mlflow'\?"):
        load_config(config, ["tracking=[mlfow]"])
    assert load_config(config, ["tracking=[mlflow,mlflow]"]).tracking == ["mlflow"]


def test_every_tracker_has_an_extra_of_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "find_spec", lambda module: None)
    sentences = session.missing_trackers(registry.TRACKERS)
    assert len(sentences) == len(registry.TRACKERS)
    assert "pip install 'harness[mlflow]'" in sentences[0]


def test_what_a_tracker_gets_of_a_run(sweep_folder: ResultFolder) -> None:
    record = next(record for record in sweep_folder.records() if record.status == "ok" and record.intervals)
    run = tracked_run(record, sweep_folder.run_folder(record.run_id))
    assert run.name.startswith(record.spec["category"])
    assert run.parameters["model"] == record.spec["model"]
    assert run.parameters["seed"] == str(record.spec["seed"])
    assert all(run.parameters[f"params.{key}"] for key, value in record.spec["params"].items() if value is not None)
    name, (low, high) = next(iter(record.intervals.items()))
    assert (run.metrics[f"{name}_low"], run.metrics[f"{name}_high"]) == (low, high)
    assert run.metrics["seconds/total"] == record.seconds["total"]
    finite = {name for name, value in record.metrics.items() if value is not None}
    assert finite <= set(run.metrics)
    assert all(math.isfinite(value) for value in run.metrics.values())
    assert json.loads(run.record) == record.as_dict()
    assert set(run.pictures) == {
        f"heatmaps/{file.name}" for file in (sweep_folder.run_folder(record.run_id) / "heatmaps").glob("*.jpg")
    }


def test_a_tracker_gets_references_in_place_of_secrets(sweep_folder: ResultFolder, tmp_path: Path) -> None:
    record = next(record for record in sweep_folder.records() if record.status == "ok")
    secret = "/mnt/customer-4711"
    provenance = {**record.provenance, "references": {secret: "${oc.env:PARTS}"}}
    record = replace(
        record,
        spec={**record.spec, "weights": f"{secret}/w.safetensors"},
        data={**record.data, "root": secret},
        provenance=provenance,
    )
    run = tracked_run(record, tmp_path)
    assert run.parameters["weights"] == "${oc.env:PARTS}/w.safetensors"
    assert "customer" not in f"{run.record}{run.parameters}{run.tags}{run.name}"


def test_a_link_in_a_run_folder_is_no_picture(sweep_folder: ResultFolder, tmp_path: Path) -> None:
    record = next(record for record in sweep_folder.records() if record.status == "ok")
    shutil.copytree(sweep_folder.run_folder(record.run_id), tmp_path / "run")
    (tmp_path / "run" / "link.jpg").symlink_to("/etc/hostname")
    assert "link.jpg" not in tracked_run(record, tmp_path / "run").pictures


def test_an_address_loses_its_password() -> None:
    assert without_password("https://user:pass@host:5000/path@x") == "https://host:5000/path@x"
    assert without_password("http://host:5000") == "http://host:5000"
    assert without_password("") == ""
    assert (
        without_password("no answer of (http://me:pass@host/api), http://b@c/")
        == "no answer of (http://host/api), http://c/"
    )


@pytest.mark.parametrize("name", ["named", "stored"])
def test_runs_of_earlier_versions_and_of_both_tasks_can_be_logged(name: str) -> None:
    folder = ResultFolder(ROOT / "tests" / "stored" / "results" / name)
    for record in folder.records():
        run = tracked_run(record, folder.run_folder(record.run_id))
        assert {metric for metric, value in record.metrics.items() if value is not None} <= set(run.metrics)
        assert run.tags["harness.task"] == record.task
        assert run.parameters["model"] == record.spec["model"]

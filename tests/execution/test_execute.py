"""Finished runs are skipped, failures isolated, results never lost. With the dummy backend, through the CLI."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from openpyxl import load_workbook

from harness import registry
from harness.common.errors import StoreError
from harness.predictions.detection import join
from harness.report.recommended import recommended_runs
from harness.report.results import Results
from harness.results.record import SCHEMA
from harness.results.store import ResultFolder
from tests.conftest import ROOT, Cli, write_config

TEXT = """
name: demo
data: {{kind: mvtec, root: {root}, val: 0.25}}
# Otherwise a run is made again at the end, for the model of the recommended configuration.
save_models: none
grid:
  - {{backend: dummy, model: mean, power: [0.5, 1, 2]}}
  - {{backend: dummy, model: plain}}
"""


@pytest.fixture
def config(tmp_path: Path, toy_tree: Path, dummy: type) -> Path:
    return write_config(tmp_path / "demo.yaml", TEXT.format(root=toy_tree))


def rows(sheet: str = "Runs", file: str = "results/demo/models_comparing.xlsx") -> list[dict[str, object]]:
    header, *values = load_workbook(file)[sheet].iter_rows(values_only=True)
    return [dict(zip(map(str, header), row, strict=True)) for row in values]


def test_a_sweep_leaves_records_scores_heatmaps_and_a_workbook(cli: Cli, config: Path, dummy: type) -> None:
    result = cli("sweep", config)
    assert result.exit_code == 0, result.output
    assert "results/demo/models_comparing.xlsx" in result.output
    assert len(dummy.runs) == 4
    runs = sorted(Path("results/demo/runs").iterdir())
    assert len(runs) == 4
    for run in runs:
        record = json.loads((run / "record.json").read_text())
        assert record["schema"] == SCHEMA
        assert record["status"] == "ok"
        assert record["metrics"]["image_AUROC"] is not None
        assert record["metrics"]["dummy_image_AUROC"] == 0.5
        assert record["data"]["fingerprint"]
        assert record["provenance"]["packages"]["torch"]
        header, *lines = (run / "scores.csv").read_text().splitlines()
        assert header == "path,label,defect_type,score,predicted_label,role"
        assert len(lines) == record["data"]["test"]
        assert len((run / "calibration.csv").read_text().splitlines()) == 1 + record["data"]["val"]
        assert list((run / "heatmaps").glob("*.jpg"))
    assert len(rows()) == 4
    assert not list(Path("results/demo/.work").iterdir())


def test_a_second_call_runs_nothing(cli: Cli, config: Path, dummy: type) -> None:
    cli("sweep", config)
    before = Path("results/demo/models_comparing.xlsx").read_bytes()
    dummy.runs.clear()
    result = cli("sweep", config)
    assert (result.exit_code, dummy.runs) == (0, [])
    assert "4 done, 0 to run now" in result.output
    assert Path("results/demo/models_comparing.xlsx").read_bytes() == before


@pytest.mark.slow
def test_a_workbook_that_a_killed_call_left_behind_is_brought_up_to_date(cli: Cli, config: Path, dummy: type) -> None:
    workbook = Path("results/demo/models_comparing.xlsx")
    cli("sweep", config, "--limit", 1)
    old = workbook.read_bytes()
    cli("sweep", config)
    workbook.write_bytes(old)
    os.utime(workbook, ns=(0, 0))
    dummy.runs.clear()
    assert cli("sweep", config).exit_code == 0
    assert dummy.runs == []
    assert len(rows()) == 4


@pytest.mark.slow
def test_limit_fresh_and_output(cli: Cli, config: Path, dummy: type) -> None:
    assert cli("sweep", config, "--limit", 1).exit_code == 0
    assert len(dummy.runs) == 1
    cli("sweep", config)
    assert len(dummy.runs) == 4
    cli("sweep", config, "--fresh")
    assert len(dummy.runs) == 8
    cli("sweep", config, "--output", "elsewhere", "--limit", 2)
    assert len(list(Path("elsewhere/demo/runs").iterdir())) == 2


def test_a_changed_spec_is_another_run(cli: Cli, config: Path, dummy: type) -> None:
    cli("sweep", config)
    cli("sweep", config, "threshold=none")
    assert len(dummy.runs) == 8
    assert len(rows()) == 8


def test_a_failing_run_is_recorded_named_and_tried_again(cli: Cli, config: Path, dummy: type) -> None:
    result = cli("sweep", config, "grid[0].fail=true", "grid[0].power=1")
    assert result.exit_code == 1
    assert "failed:" in result.output
    assert "asked to fail" in result.output
    assert [(row["status"], row["image_AUROC"] is None) for row in rows()] == [("ok", False), ("failed", True)]
    failure = rows("Failures")[0]
    assert failure["error"] == "ValueError"
    assert "ValueError: asked to fail" in str(failure["traceback"])
    dummy.runs.clear()
    assert cli("sweep", config, "grid[0].fail=true", "grid[0].power=1").exit_code == 1
    assert len(dummy.runs) == 1


def test_what_raises_while_a_run_is_written_is_its_failure(
    cli: Cli, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("harness.tasks.detection.write_artifacts", full)
    result = cli("sweep", config)
    assert result.exit_code == 1
    assert {row["error"] for row in rows("Failures")} == {"OSError"}
    assert len(rows("Failures")) == 4


def test_scores_that_are_no_numbers_fail_the_run_by_name(
    cli: Cli, config: Path, dummy: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = join

    def spoilt(samples: Any, raw: Any, *more: Any) -> Any:
        return original(samples, {path: (float("nan"), one) for path, (_, one) in raw.items()}, *more)

    monkeypatch.setattr("tests.dummy.join", spoilt)
    result = cli("sweep", config)
    assert result.exit_code == 1
    for row in rows("Failures"):
        assert f"failed: {row['run']}: NaN or infinite scores for" in result.output
        assert row["error"] == "PredictionsError"


def test_a_run_that_can_not_be_written_leaves_its_group_alone(
    cli: Cli, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.tasks import detection

    original, written = detection.write_artifacts, []

    def second_fails(*arguments: Any) -> None:
        written.append(1)
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        original(*arguments)

    monkeypatch.setattr(detection, "write_artifacts", second_fails)
    assert cli("sweep", config).exit_code == 1
    assert len(rows("Failures")) == 1
    assert len(written) == 4


def test_stray_files_among_the_runs_are_left_alone(cli: Cli, config: Path) -> None:
    cli("sweep", config, "--limit", 1)
    Path("results/demo/runs/.DS_Store").write_text("")
    Path("results/demo/runs/notes.txt").write_text("mine")
    assert cli("sweep", config).exit_code == 0
    assert Path("results/demo/runs/notes.txt").read_text() == "mine"


def test_log_that_can_not_be_written(cli: Cli, config: Path) -> None:
    Path("results/demo/sweep.log").mkdir(parents=True)
    result = cli("sweep", config)
    assert result.exit_code == 2
    assert "sweep.log: can't be written" in result.output


def test_retry_failed_leaves_the_rest_alone(cli: Cli, config: Path, dummy: type) -> None:
    cli("sweep", config, "grid[0].fail=[true,false]", "--limit", 1)
    dummy.runs.clear()
    cli("sweep", config, "grid[0].fail=[true,false]", "--retry-failed")
    assert [spec.parameters["fail"] for spec in dummy.runs] == [True]


@pytest.mark.slow
def test_an_exception_that_escapes_fails_the_rest_of_its_group_only(cli: Cli, config: Path, dummy: type) -> None:
    def stop_at_second(spec: object) -> None:
        if len(dummy.runs) == 2:
            raise MemoryError("no more")

    dummy.before_run = stop_at_second
    result = cli("sweep", config, "seeds=[0,1]")
    assert result.exit_code == 1
    assert [row["status"] for row in rows()] == ["ok"] * 5 + ["failed"] * 3
    assert [row["error"] for row in rows("Failures")] == ["MemoryError"] * 3
    dummy.before_run = None
    assert cli("sweep", config, "seeds=[0,1]").exit_code == 0
    assert len(rows()) == 8


def test_ctrl_c_stops_cleanly_with_the_workbook_written(cli: Cli, config: Path, dummy: type) -> None:
    def interrupt(spec: object) -> None:
        if len(dummy.runs) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    dummy.before_run = interrupt
    result = cli("sweep", config)
    assert result.exit_code == 130
    assert "The same command continues from here" in result.output
    assert len(rows()) == 2
    dummy.before_run = None
    assert cli("sweep", config).exit_code == 0
    assert len(rows()) == 4


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_python_drops_still_stops(cli: Cli, config: Path, dummy: type) -> None:
    """In a finaliser, where Python ignores exceptions."""

    class Dropper:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    def interrupt(spec: object) -> None:
        if len(dummy.runs) == 2:
            Dropper()

    dummy.before_run = interrupt
    assert cli("sweep", config).exit_code == 130
    assert len(rows()) == 2


@pytest.mark.parametrize(("policy", "kept"), [("best", 1), ("all", 4), ("none", 0)])
def test_models_that_are_kept(cli: Cli, config: Path, policy: str, kept: int) -> None:
    cli("sweep", config, f"save_models={policy}")
    folder = ResultFolder(Path("results/demo"))
    with_model = [record for record in folder.records() if folder.model_file(record.run_id)]
    assert len(with_model) == kept
    if policy == "best":
        assert with_model == recommended_runs(Results.of(folder))


@pytest.mark.slow
def test_best_model_survives_stops_and_later_runs(cli: Cli, config: Path) -> None:
    for _ in range(4):
        cli("sweep", config, "save_models=best", "--limit", 1)
        folder = ResultFolder(Path("results/demo"))
        with_model = [record for record in folder.records() if folder.model_file(record.run_id)]
        assert with_model == recommended_runs(Results.of(folder))
    assert len(folder.records()) == 4


def test_what_a_killed_run_left_is_cleared(cli: Cli, config: Path) -> None:
    cli("sweep", config, "--limit", 1)
    left = Path("results/demo/.work/x/run/scores.csv")
    left.parent.mkdir(parents=True)
    left.write_text("half")
    half = Path("results/demo/.models_comparing.xlsx.abc.tmp")
    half.write_text("half")
    assert cli("sweep", config).exit_code == 0
    assert len(rows()) == 4
    assert not left.exists()
    assert not half.exists()


def test_check_comes_before_anything_is_written(cli: Cli, config: Path, dummy: type) -> None:
    result = cli("sweep", config, "grid[0].power=99")
    assert result.exit_code == 2
    assert "power: found 99" in result.output
    assert not Path("results").exists()
    assert dummy.runs == []


def test_unwritable_output(cli: Cli, config: Path) -> None:
    Path("taken").write_text("a file")
    result = cli("sweep", config, "--output", "taken")
    assert result.exit_code == 2
    assert "output: can't write to" in result.output
    assert Path("taken").read_text() == "a file"


def test_record_of_a_newer_version_is_left_alone(cli: Cli, config: Path, dummy: type) -> None:
    cli("sweep", config, "--limit", 1)
    file = next(Path("results/demo/runs").glob("*/record.json"))
    values = json.loads(file.read_text())
    file.write_text(json.dumps({**values, "schema": SCHEMA + 1, "news": 3}))
    before = file.read_bytes()
    dummy.runs.clear()
    result = cli("sweep", config)
    assert result.exit_code == 2
    assert "A newer version of harness wrote the file" in result.output
    assert (file.read_bytes(), dummy.runs) == (before, [])


@pytest.mark.slow
def test_damaged_record_is_named(cli: Cli, config: Path) -> None:
    cli("sweep", config, "--limit", 1)
    file = next(Path("results/demo/runs").glob("*/record.json"))
    file.write_text("{")
    result = cli("sweep", config)
    assert result.exit_code == 1
    assert "record.json: damaged" in result.output
    assert "1 damaged" in result.output
    assert file.read_text() == "{"
    assert len(rows()) == 3
    # The other runs were made; on demand this one is made too.
    assert cli("sweep", config, "--fresh").exit_code == 0
    assert len(rows()) == 4


@pytest.mark.slow
def test_two_sweeps_at_once_share_the_runs(config: Path) -> None:
    """Real processes; each run is made once, both end well, and the workbook has everything."""
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); from harness import registry\n"
        "registry.BACKENDS['dummy'] = 'tests.dummy:DummyBackend'\n"
        "from tests.dummy import DummyBackend\n"
        "def wait(spec):\n"
        "    open('made.txt', 'a').write(repr(sorted(spec.as_dict().items())) + chr(10)); time.sleep(0.05)\n"
        "DummyBackend.before_run = wait\n"
        "from harness.cli.main import main; sys.argv[1:] = ['sweep', sys.argv[2], 'seeds=[0,1,2,3,4,5]']; main()"
    )
    command = [sys.executable, "-c", code, str(ROOT), str(config)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    outputs = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    run_specs = Path("made.txt").read_text().splitlines()
    assert len(run_specs) == len(set(run_specs)) == 24
    assert len(rows()) == 24


def test_a_claim_is_exclusive_and_ends_with_its_holder(tmp_path: Path) -> None:
    folder = ResultFolder(tmp_path / "r")
    folder.create()
    claims: list[bool] = []

    def other() -> None:
        with folder.claim("x") as mine:
            claims.append(mine)

    with folder.claim("x") as mine:
        assert mine
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    other()
    assert claims == [False, True]


def test_workbook_that_can_not_be_written_is_an_error_and_loses_nothing(cli: Cli, config: Path) -> None:
    cli("sweep", config)
    Path("results/demo/models_comparing.xlsx").unlink()
    Path("results/demo/models_comparing.xlsx").mkdir()
    result = cli("sweep", config, "--fresh")
    assert result.exit_code == 2
    assert "models_comparing.xlsx: can't be written" in result.output
    assert len(ResultFolder(Path("results/demo")).records()) == 4


def test_registry_names_are_resolved_lazily_and_unknown_ones_suggested(cli: Cli, config: Path) -> None:
    result = cli("sweep", config, "grid[0].backend=anomalb")
    assert result.exit_code == 2
    assert "unknown backend 'anomalb'. Did you mean 'anomalib'?" in result.output
    for target in (
        *registry.DATASETS.values(),
        *(one.function for one in registry.METRICS),
        registry.OTHER_DATASET,
    ):
        assert callable(registry.load(target))


def test_store_errors_are_all_told(tmp_path: Path) -> None:
    folder = ResultFolder(tmp_path / "r")
    folder.create()
    for name in "ab":
        folder.run_folder(name).mkdir()
        (folder.run_folder(name) / "record.json").write_text("nonsense")
    with pytest.raises(StoreError) as caught:
        folder.records()
    assert len(caught.value.problems) == 2

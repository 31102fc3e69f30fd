"""Searches with a real Ray: trials are runs, stages are shared, hopeless trainings stop, and what dies is made good."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from openpyxl import load_workbook

from harness.execution.launchers.node import home_of, work_folder
from harness.results.scores import HOLDOUT, TEST, read_scores
from harness.results.store import ResultFolder
from tests.conftest import write_config
from tests.execution.test_ray import ENVIRONMENT, TwoNodes, cluster  # noqa: F401
from tests.report.test_browser import Open, browser, open_report  # noqa: F401

pytest.importorskip("ray", reason="needs Ray: pip install 'harness[ray]'")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

PATCHCORES = """
name: {name}
data: {{kind: mvtec, root: {root}, val: 0.25}}
weights: random
device: cpu
cache: stages
search:
  num_samples: 6
  space:
    backend: native
    model: patchcore
    backbone: resnet18
    layers: layer2
    image_size: 64
    num_neighbors: {{randint: [1, 8]}}
    coreset_sampling_ratio: {{loguniform: [0.02, 0.5]}}
"""

CLASSIFIERS = """
task: classification
name: {name}
data: {{kind: toy, train: 120, test: 20, size: 32, folds: 2, train_batch_size: 16}}
weights: random
device: cpu
trainer: {{max_epochs: 12}}
latency: false
search:
  num_samples: 10
  grace_epochs: 1
  space:
    model: baseline
    backbone: test_resnet
    image_size: 32
    lr: {{loguniform: [1.0e-5, 2.0e-2]}}
    loss: {{choice: [cross_entropy, focal]}}
    focal_gamma: {{uniform: [1, 3]}}
"""


def start(config: str, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "harness", "tune", config, *options]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def tune(config: str, *options: str) -> str:
    """Run it to its end, with one worker unless told otherwise; gives what it said."""
    process = start(config, *(() if "--jobs" in options else ("--jobs", "1")), *options)
    output, errors = process.communicate()
    assert process.returncode == 0, output + errors
    return output


def trials(folder: ResultFolder) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads(folder.search.read_text())["trials"]
    return entries


def events_of(folder: ResultFolder) -> dict[str, Any]:
    """Macro F1 of each run in the folder of TensorBoard, as its own reader reads it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return {
        run.name: pytest.approx(EventAccumulator(str(run)).Reload().Scalars("macro_F1")[0].value)
        for run in (folder.root / "tensorboard").iterdir()
    }


def test_trials_are_runs_that_share_stages_and_are_not_made_twice(
    toy_tree: Path,
    open_report: Open,  # noqa: F811
) -> None:
    write_config(Path("p.yaml"), PATCHCORES.format(name="p", root=toy_tree))
    output = tune("p.yaml")
    assert "a search for the largest image_AUROC, 6 trials, 0 known" in output
    folder = ResultFolder(Path("results/p"))
    records = {record.run_id: record for record in folder.records()}
    first_trials = trials(folder)
    assert [trial["state"] for trial in first_trials] == ["done"] * 6
    assert sorted(run for trial in first_trials for run in trial["runs"]) == sorted(records)
    for trial in first_trials:
        (run,) = trial["runs"]
        assert trial["value"] == records[run].metrics["image_AUROC"]
        assert records[run].spec["params"]["num_neighbors"] == trial["point"]["num_neighbors"]
    # Features of three roles and one selection: what the first trial computed, the others found.
    assert len(list(Path("stages").rglob("*.safetensors"))) == 4
    # The one best model is kept, as in a sweep.
    assert sum(folder.model_file(run) is not None for run in records) == 1
    assert not list((folder.root / ".work").iterdir())
    # The same command again has nothing to do; for more trials, only those are made.
    assert "6 trials, 6 known" in tune("p.yaml")
    # Except that a missing model is made again, and that new limits are stored.
    (kept,) = (file for run in records if (file := folder.model_file(run)) is not None)
    kept.unlink()
    tune("p.yaml", "recommend.max_fit=1h")
    assert sum(folder.model_file(run) is not None for run in records) == 1
    assert "max_fit: 3600.0" in folder.read_config()
    tune("p.yaml", "search.num_samples=8")
    assert [trial["number"] for trial in trials(folder)] == list(range(1, 9))
    assert trials(folder)[:6] == first_trials
    rows = list(load_workbook(folder.workbook)["Search"].iter_rows(values_only=True))
    assert [row[0] for row in rows if isinstance(row[0], int)] == list(range(1, 9))
    page = open_report(folder)
    for plot, traces in (("convergence", 2), ("parallel", 8), ("importance", 1)):
        assert page.evaluate(f"document.getElementById('plot-{plot}').data.length") == traces
    page.click("nav a[href='#search']")
    assert page.locator("#h-search").is_visible()


def test_the_best_trial_is_reported_on_images_that_no_trial_saw(toy_tree: Path) -> None:
    write_config(Path("h.yaml"), PATCHCORES.format(name="h", root=toy_tree))
    command = ("h.yaml", "search.num_samples=3")
    output = " ".join(tune(*command, "search.holdout=0.5").split())
    assert "Held out: 50% of the test images (seed 0)." in output
    assert "held-out images that no trial saw." in output
    folder = ResultFolder(Path("results/h"))
    for record in folder.records():
        assert record.spec["holdout"] == {"share": 0.5, "seed": 0}
        test, held_out = (read_scores(folder.run_folder(record.run_id), role) for role in (TEST, HOLDOUT))
        assert test is not None
        assert held_out is not None
        assert (len(test.names), len(held_out.names)) == (record.data["test"], record.data["holdout"])
    assert [trial["value"] for trial in trials(folder)] == [
        folder.read_record(trial["runs"][0]).metrics["image_AUROC"]  # type: ignore[union-attr]
        for trial in trials(folder)
    ]
    # The search goes on with the same images, and with no other ones.
    assert "3 trials, 3 known" in tune(*command)
    refused = start(*command, "search.holdout=0.25")
    message = " ".join("".join(refused.communicate()).split())
    assert refused.returncode == 2
    assert "search.holdout: 0.25 found, but the trials in results/h/search.json have 0.5; expected 0.5" in message


def test_a_sweep_of_a_trials_setting_is_the_same_run(toy_tree: Path) -> None:
    write_config(Path("p.yaml"), PATCHCORES.format(name="p", root=toy_tree))
    tune("p.yaml", "search.num_samples=1")
    folder = ResultFolder(Path("results/p"))
    (record,) = folder.records()
    (trial,) = trials(folder)
    text = PATCHCORES.format(name="again", root=toy_tree).split("search:", maxsplit=1)[0]
    values = {"backend": "native", "model": "patchcore", "backbone": "resnet18", "layers": "layer2", "image_size": 64,
              **trial["point"]}  # fmt: skip
    write_config(Path("g.yaml"), f"{text}grid: {json.dumps(values)}\n")
    command = [sys.executable, "-m", "harness", "sweep", "g.yaml"]
    subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True)
    (swept,) = ResultFolder(Path("results/again")).records()
    assert swept.run_id == record.run_id
    assert swept.metrics == record.metrics


def test_hopeless_trainings_are_stopped_early_and_leave_nothing_behind() -> None:
    write_config(Path("c.yaml"), CLASSIFIERS.format(name="c"))
    tracked = find_spec("tensorboard") is not None
    output = tune("c.yaml", "--jobs", "2", *(["tracking=[tensorboard]"] if tracked else []))
    folder = ResultFolder(Path("results/c"))
    all_trials = trials(folder)
    stopped = [trial for trial in all_trials if trial["state"] == "stopped"]
    completed = [trial for trial in all_trials if trial["state"] == "done"]
    assert len(all_trials) == 10
    assert stopped, output
    assert completed, output
    assert "stopped after epoch" in output
    # At each rung, those that went on were better than one that was stopped there.
    for trial in stopped:
        epoch, reached = trial["looks"][-1]
        assert epoch in {1, 3, 9}
        rivals = [value for other in all_trials for at, value in other["looks"] if at == epoch and other is not trial]
        assert max(rivals) > reached
    assert sorted(run for trial in completed for run in trial["runs"]) == sorted(r.run_id for r in folder.records())
    if tracked:
        # The tracker has each run that finished, and nothing of a training that was stopped.
        assert "warning: tensorboard" not in output
        assert events_of(folder) == {record.run_id: record.metrics["macro_F1"] for record in folder.records()}
    assert not (work_folder() / home_of(folder.root, "search")).exists()
    assert not list((folder.root / ".work").iterdir())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_search_that_is_killed_goes_on_with_what_it_knows(number: signal.Signals) -> None:
    write_config(Path("k.yaml"), CLASSIFIERS.format(name="k"))
    folder = ResultFolder(Path("results/k"))
    process = start("k.yaml", "search.stop_early=false", "--jobs", "1")
    states: list[str] = []
    while states.count("done") < 3 or "running" not in states:
        states = [trial["state"] for trial in trials(folder)] if folder.search.is_file() else []
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(number)
    process.communicate()
    assert process.returncode == (-9 if number == signal.SIGKILL else 130)
    before = {trial["number"]: trial for trial in trials(folder)}
    known = [number for number, trial in before.items() if trial["state"] == "done"]
    begun = [trial["point"] for trial in before.values() if trial["state"] == "running"]
    output = tune("k.yaml", "search.stop_early=false", "search.num_samples=6")
    assert f"6 trials, {len(known)} known" in output
    after = {trial["number"]: trial for trial in trials(folder)}
    assert [after[number] for number in known] == [before[number] for number in known]
    assert len(after) == 6
    assert all(trial["state"] == "done" for trial in after.values())
    # What was under way comes first; with SIGTERM the workers have time to end what is short.
    assert begun or number == signal.SIGTERM
    points = [trial["point"] for number, trial in sorted(after.items()) if number not in known]
    assert points[: len(begun)] == begun
    assert not list(folder.root.rglob("*.tmp"))
    assert not list((folder.root / ".work").iterdir())


def test_a_node_that_dies_costs_its_trial_a_retry(cluster: TwoNodes) -> None:  # noqa: F811
    write_config(Path("n.yaml"), CLASSIFIERS.format(name="n"))
    command = ("n.yaml", "search.stop_early=false", "search.num_samples=4", "trainer.max_epochs=20")
    process = start(*command, "--address", cluster.address)
    reached = work_folder() / home_of(Path("results/n"), "search") / ".unfinished"
    while len(list(reached.glob("*/fold0/last.ckpt"))) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    cluster.other.kill()
    output, errors = process.communicate()
    assert process.returncode == 0, output + errors
    assert "was lost with its worker or node; it is tried again" in output
    folder = ResultFolder(Path("results/n"))
    assert [trial["state"] for trial in trials(folder)] == ["done"] * 4
    assert len(folder.records()) == 4
    assert all(record.status == "ok" for record in folder.records())


@pytest.mark.timeout(900)
def test_a_time_budget_ends_a_search_that_goes_on_later() -> None:
    write_config(Path("t.yaml"), CLASSIFIERS.format(name="t"))
    folder = ResultFolder(Path("results/t"))
    completed: list[Any] = []
    # On a busy machine a short budget ends before the first trial. 500 trials would take many minutes on any machine.
    for budget in (50, 120):
        output = tune("t.yaml", f"search.time_budget={budget}", "search.num_samples=500", "search.stop_early=false")
        assert "The time budget is used up" in output
        completed = [trial for trial in trials(folder) if trial["state"] == "done"]
        if completed:
            break
    assert 0 < len(completed) < 500
    number = len(completed) + 2
    output = tune("t.yaml", f"search.num_samples={number}", "search.stop_early=false")
    assert f"{number} trials, {len(completed)} known" in output
    assert len([trial for trial in trials(folder) if trial["state"] == "done"]) == number

"""One config sweeps the data of every kind, and each run has the metrics of its kind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from openpyxl import load_workbook

from harness.report.facts import dataset
from harness.results.record import RunRecord
from harness.results.scores import UNLABELLED, read_scored_images
from harness.results.store import ResultFolder
from tests.conftest import Cli, write_config
from tests.trees import TREES, WITHOUT_MASKS, write_tree

# `kind: auto` finds the kind of each tree.
CONFIG = """
name: kinds
data: {data}
weights: random
latency: false
threshold: {{method: held_out}}
save_models: none
grid: {{backend: native, model: padim, backbone: test_resnet, layers: [layer1], n_features: 5, image_size: 32}}
"""
SEVERAL = {"mvtec_ad": {"bottle", "zipper"}, "btad": {"01", "02"}, "dagm": {"Class1", "Class2"}}
UNLABELLED_IMAGES = {"mvtec_ad2": 4}
SATURATED = {"autovi", "mvtec_loco"}
AUSPRO = {"pixel_AUsPRO5", "pixel_AUsPRO30"}
OF_ALL = {"image_AUROC", "image_AP", "image_F1Score", "pixel_AUROC", "pixel_AP", "pixel_F1Score", "pixel_AUPRO"}


def sweep(cli: Cli, *names: str) -> ResultFolder:
    """Sweep the trees of those names with one config."""
    data = [{"kind": "auto", "root": str(write_tree(name, Path(name)))} for name in names]
    result = cli("sweep", write_config(Path("kinds.yaml"), CONFIG.format(data=json.dumps(data))))
    assert result.exit_code == 0, result.output
    for name in names:
        assert f"kinds ({TREES[name][0]} {name}" in result.output
    return ResultFolder(Path("results/kinds"))


@pytest.mark.slow
def test_one_config_sweeps_every_kind_with_its_metrics(cli: Cli) -> None:
    folder = sweep(cli, *TREES)
    by_root: dict[str, list[RunRecord]] = {}
    for record in folder.records():
        by_root.setdefault(tree(record.data["root"]), []).append(record)
    assert set(by_root) == set(TREES)
    for name, records in by_root.items():
        check_metrics(folder, name, records)
    (listed,) = yaml.safe_load_all(folder.config.read_text())
    assert [tree(block["root"]) for block in listed["data"]] == list(TREES)
    again = cli("sweep", "kinds.yaml")
    assert again.output.count(", 0 to run now.") == len(TREES)
    # The stored config is one to sweep, too.
    stored = cli("plan", folder.config, "--no-check")
    assert stored.exit_code == 0, stored.output
    assert stored.output.count(", 0 to run now.") == len(TREES)


def tree(root: str) -> str:
    """The name of the tree with that root."""
    return Path(root).resolve().relative_to(Path.cwd()).parts[0]


def check_metrics(folder: ResultFolder, name: str, records: list[RunRecord]) -> None:
    assert {record.status for record in records} == {"ok"}
    assert {record.data["kind"] for record in records} == {TREES[name][0]}
    categories = {record.spec["category"] for record in records}
    assert categories == SEVERAL[name] if name in SEVERAL else len(records) == 1
    for record in records:
        values = {key for key, value in record.metrics.items() if value is not None}
        masked = name not in WITHOUT_MASKS
        assert {key for key in OF_ALL if masked or key.startswith("image_")} <= values
        assert masked == any(key.startswith("pixel_") for key in values)
        assert AUSPRO & set(record.metrics) == (AUSPRO if name in SATURATED else set())
        assert all(AUSPRO & set(one) == AUSPRO & set(record.metrics) for one in record.defects)
        scored = read_scored_images(folder.run_folder(record.run_id)) or []
        unlabelled = [image.name for image in scored if image.role == UNLABELLED]
        assert len(unlabelled) == record.data.get("unlabelled", 0) == UNLABELLED_IMAGES.get(name, 0)


def test_each_data_set_has_its_own_method_of_the_threshold(cli: Cli) -> None:
    data = [{"kind": "auto", "root": str(write_tree(name, Path(name)))} for name in ("autovi", "mvtec_ad2")]
    text = CONFIG.format(data=json.dumps(data)).replace(
        "threshold: {method: held_out}", "threshold: {false_alarms: 0.2}"
    )
    assert cli("sweep", write_config(Path("c.yaml"), text)).exit_code == 0
    folder = ResultFolder(Path("results/kinds"))
    methods = {record.data["kind"]: record.spec["threshold"]["method"] for record in folder.records()}
    assert methods == {"mvtec": "cross_conformal", "mvtec_ad2": "held_out"}
    stored = cli("plan", folder.config, "--no-check")
    assert stored.output.count(", 0 to run now.") == 2, stored.output


def test_a_limit_counts_the_runs_of_all_data_sets(cli: Cli) -> None:
    data = [{"kind": "auto", "root": str(write_tree(name, Path(name)))} for name in ("btad", "dagm")]
    file = write_config(Path("c.yaml"), CONFIG.format(data=json.dumps(data)))
    assert cli("sweep", file, "--limit", "3").exit_code == 0
    records = ResultFolder(Path("results/kinds")).records()
    assert sorted(record.data["kind"] for record in records) == ["dagm", "mvtec", "mvtec"]
    assert cli("sweep", file, "data[1].root=btad").exit_code == 2


def test_every_data_set_is_checked_before_any_run(cli: Cli) -> None:
    blocks = [
        {"kind": "auto", "root": str(write_tree("autovi", Path("autovi")))},
        {"kind": "visa", "root": "nowhere"},
        {"kind": 3, "root": "x"},
        {"kind": "mvtec", "root": "x", "rot": 1},
    ]

    def refused(command: str, *positions: int) -> str:
        text = CONFIG.format(data=json.dumps([blocks[position] for position in positions]))
        result = cli(command, write_config(Path("c.yaml"), text))
        assert result.exit_code == 2
        assert not Path("results").exists()
        return " ".join(result.stderr.split())

    assert "data[1].root: nothing found at " in refused("sweep", 0, 1)
    message = refused("plan", 0, 2, 3)
    assert "data[1].kind: " in message
    assert "data[2].rot: unknown key" in message
    assert "data[1]: the same images as in data[0] found" in refused("sweep", 0, 0)
    assert "data: a list of 2 data sets found" in refused("tune", 0, 0)
    assert "data[1]: the same images as in data[0] found" in refused("audit", 0, 0)


def test_two_kinds_share_a_folder_and_its_report(cli: Cli) -> None:
    folder = sweep(cli, "mvtec_ad2", "autovi")
    assert {dataset(record).split()[0] for record in folder.records()} == {"mvtec_ad2", "mvtec"}
    header, *rows = load_workbook(folder.workbook)["Runs"].iter_rows(values_only=True)
    runs = [dict(zip(header, row, strict=True)) for row in rows]
    assert [(run["category"], run["pixel_AUsPRO5"] is None, run["pixel_AUPRO"] is None) for run in runs] == [
        ("can", True, False),
        ("engine_wiring", False, False),
    ]
    header, *rows = load_workbook(folder.workbook)["Defects"].iter_rows(values_only=True)
    assert header[2:8] == ("images", "missed", "image_AUROC", "image_AP", "pixel_AUsPRO5", "pixel_AUsPRO30")
    assert [(row[0], row[6] is None) for row in rows] == [("can", True), ("engine_wiring", False)]


def test_a_refused_sweep_leaves_no_toy_data_of_any_data_set(cli: Cli) -> None:
    data = json.dumps([{"kind": "toy", "size": size, "train": 8, "good": 2, "bad": 1} for size in (32, 48)])
    text = CONFIG.format(data=data).replace("layers: [layer1]", "layers: [nowhere]")
    result = cli("sweep", write_config(Path("c.yaml"), text))
    assert result.exit_code == 2
    assert "nowhere" in result.stderr
    assert not Path("results").exists()

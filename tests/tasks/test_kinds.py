"""One config sweeps the data of every kind, and each run has the metrics of its kind."""

from __future__ import annotations

from pathlib import Path

import pytest
from openpyxl import load_workbook

from harness.report.facts import dataset
from harness.results.scores import UNLABELLED, read_scored_images
from harness.results.store import ResultFolder
from tests.conftest import Cli, write_config
from tests.trees import TREES, write_tree

# `kind: auto` finds the kind. A config has one block `data`, so the folder comes from the command line.
CONFIG = """
name: kinds
data: {kind: auto, root: .}
weights: random
latency: false
threshold: {method: held_out}
save_models: none
grid: {backend: native, model: padim, backbone: test_resnet, layers: [layer1], n_features: 5, image_size: 32}
"""
SEVERAL = {"mvtec_ad": {"bottle", "zipper"}, "btad": {"01", "02"}, "dagm": {"Class1", "Class2"}}
UNLABELLED_IMAGES = {"mvtec_ad2": 4}
SATURATED = {"autovi", "mvtec_loco"}
AUSPRO = {"pixel_AUsPRO5", "pixel_AUsPRO30"}
OF_ALL = {"image_AUROC", "image_AP", "image_F1Score", "pixel_AUROC", "pixel_AP", "pixel_F1Score", "pixel_AUPRO"}


def sweep(cli: Cli, name: str) -> ResultFolder:
    """Sweep the tree of that name into the one result folder."""
    root = write_tree(name, Path(name))
    result = cli("sweep", write_config(Path("kinds.yaml"), CONFIG), f"data.root={root}")
    assert result.exit_code == 0, result.output
    return ResultFolder(Path("results/kinds"))


@pytest.mark.parametrize("name", TREES)
def test_a_sweep_of_every_kind_has_its_metrics(name: str, cli: Cli) -> None:
    folder = sweep(cli, name)
    records = folder.records()
    assert {record.status for record in records} == {"ok"}
    assert {record.data["kind"] for record in records} == {TREES[name][0]}
    categories = {record.spec["category"] for record in records}
    assert categories == SEVERAL[name] if name in SEVERAL else len(records) == 1
    for record in records:
        values = {key for key, value in record.metrics.items() if value is not None}
        assert values >= OF_ALL
        assert AUSPRO & set(record.metrics) == (AUSPRO if name in SATURATED else set())
        assert all(AUSPRO & set(one) == AUSPRO & set(record.metrics) for one in record.defects)
        scored = read_scored_images(folder.run_folder(record.run_id)) or []
        unlabelled = [image.name for image in scored if image.role == UNLABELLED]
        assert len(unlabelled) == record.data.get("unlabelled", 0) == UNLABELLED_IMAGES.get(name, 0)


def test_two_kinds_share_a_folder_and_its_report(cli: Cli) -> None:
    sweep(cli, "mvtec_ad2")
    folder = sweep(cli, "autovi")
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

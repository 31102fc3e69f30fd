"""A small sweep of real models whose models are all kept: for tests of what is done with them."""

from __future__ import annotations

from collections.abc import Mapping
from csv import DictReader
from pathlib import Path

from typer.testing import CliRunner

from harness import registry
from harness.cli.main import app
from harness.results.record import RunRecord
from harness.results.store import ResultFolder
from tests.networks import in_yaml, network

CONFIG = """
name: trained
data: {{kind: mvtec, root: {root}, category: plate, val: 0.3}}
weights: random
latency: false
save_models: all
trainer: {{max_epochs: 1}}
grid:
  - {{backend: [native, anomalib], model: patchcore, backbone: resnet18, layers: [layer1, layer2],
      coreset_sampling_ratio: 0.1, image_size: 64}}
  - {{backend: [native, anomalib], model: padim, backbone: resnet18, layers: [layer1, layer2], n_features: 20,
      image_size: [[64, 96]]}}
  - {{backend: native, model: patchcore, backbone: resnet18, layers: [layer1, layer2], coreset_sampling_ratio: 0.05,
      image_size: 96, center_crop: 64, num_neighbors: 1}}
  - {{backend: native, model: spade, backbone: resnet18, layers: [layer1, layer2], num_neighbors: 3, image_size: 64}}
  - {{backend: native, model: cflow, backbone: resnet18, layers: [layer2, layer3], image_size: 64, coupling_blocks: 2}}
  - {{backend: anomalib, model: stfpm, backbone: resnet18, layers: [layer1, layer2], image_size: 64}}
"""


# A registered detector without a line above is in the sweep too.
UNNAMED = [name for name in registry.DETECTORS if f"model: {name}," not in CONFIG]
AXES = {name: in_yaml(network(name, layers=["layer1", "layer2"])) for name in UNNAMED}
CONFIG += "".join(
    f"  - {{{{backend: native, model: {name}, {axes}, image_size: 64}}}}\n" for name, axes in AXES.items()
)


def train(root: Path, tree: Path) -> ResultFolder:
    """Run it."""
    config = root / "trained.yaml"
    config.write_text(CONFIG.format(root=tree))
    result = CliRunner().invoke(app, ["sweep", str(config), "--output", str(root / "results")])
    assert result.exit_code == 0, result.output
    return ResultFolder(root / "results" / "trained")


def run_of(folder: ResultFolder, backend: str, model: str, **params: object) -> RunRecord:
    """The run of that backend and model (and parameters)."""
    matches = [
        record
        for record in folder.records()
        if (record.spec["backend"], record.spec["model"]) == (backend, model)
        and all(record.spec["params"].get(name) == value for name, value in params.items())
    ]
    assert len(matches) == 1, [record.run_id for record in matches]
    return matches[0]


def scores_of(folder: ResultFolder, record: RunRecord) -> Mapping[Path, Mapping[str, str]]:
    """Rows of scores.csv by image."""
    with (folder.run_folder(record.run_id) / "scores.csv").open() as stream:
        return {Path(record.data["root"]) / row["path"]: row for row in DictReader(stream)}

"""A small real sweep of a classification: two configurations of one network for all labels, and one network a class."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from harness.cli.main import app
from harness.results.store import ResultFolder

CONFIG = """
task: classification
name: {name}
data: {{kind: toy, train: 100, test: 20, size: 32, folds: 2, train_batch_size: 16}}
weights: random
device: cpu
trainer: {{max_epochs: 2}}
save_models: all
latency: false
grid:
  - {{model: baseline, backbone: test_resnet, image_size: 32, lr: 5.0e-3, balance: [none, sampler], tta: flips}}
  - {{model: one_class, backbone: test_resnet, image_size: 32, lr: 5.0e-3}}
"""


def classify(root: Path) -> ResultFolder:
    """Run it below `root`."""
    config = root / "c.yaml"
    config.write_text(CONFIG.format(name="named"))
    result = CliRunner().invoke(app, ["sweep", str(config), "--output", str(root / "results")])
    assert result.exit_code == 0, result.output
    assert "The label 'washer-good' for every image would have a macro F1 of 0.0" in result.output
    # Both labels and images are too few for an estimate.
    assert "The best of 3 is chosen by these very images: expect a somewhat lower macro F1" in result.output
    return ResultFolder(root / "results" / "named")

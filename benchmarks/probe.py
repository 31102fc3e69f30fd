"""Macro F1 and time of probes beside a network that the default recipe trains, on toy images and on real ones."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.inputs import HAZELNUT, MOBILENET
from harness.results.record import RunRecord
from harness.results.store import ResultFolder

CONFIG = """
task: classification
name: probed
data: {data}
weights: {weights}
device: cpu
latency: false
save_models: none
trainer: {{max_epochs: {epochs}}}
grid:
  model: [probe, baseline]
  probe_head: [logistic, knn, prototype]
  backbone: {backbone}
  image_size: {size}
"""
TOY = "{{kind: toy, train: {train}, folds: 3, train_batch_size: 16, eval_batch_size: 64, split_seed: {seed}}}"
REAL = "{{kind: labelled, root: {root}, layout: mvtec, folds: 2, train_batch_size: 16, split_seed: {seed}}}"


def measure(quick: bool) -> dict[str, Any]:
    """Means over several splits into folds."""
    splits, epochs = (1, 1) if quick else (3, 5)
    toy = [TOY.format(train=100 if quick else 600, seed=seed) for seed in range(splits)]
    rows = _rows("toy, 600 images", toy, "auto", "tf_efficientnet_lite0", 96, epochs)
    if not quick and HAZELNUT.is_dir() and MOBILENET.is_file():
        with tempfile.TemporaryDirectory() as folder:
            # The layout has one folder for each class.
            (Path(folder) / "hazelnut").symlink_to(HAZELNUT, target_is_directory=True)
            real = [REAL.format(root=folder, seed=seed) for seed in range(splits)]
            rows += _rows("hazelnut, 60 images", real, str(MOBILENET), "mobilenetv2_100", 224, epochs)
    return {"splits": splits, "epochs": epochs, "rows": rows}


def _rows(name: str, data: list[str], weights: str, backbone: str, size: int, epochs: int) -> list[dict[str, Any]]:
    """A row for each head, and one for the trained network."""
    runs: dict[str, list[RunRecord]] = {}
    for one in data:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "probed.yaml"
            file.write_text(CONFIG.format(data=one, weights=weights, backbone=backbone, size=size, epochs=epochs))
            command = [sys.executable, "-m", "harness", "sweep", str(file), "--output", folder]
            subprocess.run(command, check=True, capture_output=True)
            for record in ResultFolder(Path(folder) / "probed").records():
                runs.setdefault(record.spec["params"].get("probe_head", "trained"), []).append(record)
    return [
        {
            "data": name,
            "method": method,
            "macro_F1": round(float(np.mean([record.metrics["macro_F1"] for record in records])), 3),
            "seconds_alone": round(float(np.mean([record.seconds["alone"] for record in records])), 1),
            "seconds_added": round(float(np.mean([record.seconds["spent"] for record in records])), 1),
        }
        for method, records in runs.items()
    ]

"""Macro F1 of classifications with and without a detector beside the networks, and what the detector costs.

Each case is one sweep. Both configurations of a seed share their networks, so only the detector differs.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.inputs import HAZELNUT, MOBILENET, require
from harness.backends.supervised.settings import WITHOUT
from harness.results.record import RunRecord
from harness.results.store import ResultFolder

DETECTOR = "patchcore"
CONFIG = """
task: classification
name: {name}
data: {{{data}, train_batch_size: {batch}, eval_batch_size: 64}}
weights: {weights}
device: cpu
seeds: {seeds}
trainer: {{max_epochs: {epochs}}}
grid:
  model: baseline
  backbone: {backbone}
  image_size: {size}
  label_smoothing: 0.1
  augment: {augment}
  lr: {rate}
  schedule: one_cycle
  with_detector: [{without}, {detector}]
"""
CASES: dict[str, dict[str, Any]] = {
    "toy parts": {
        "data": "kind: toy, train: 400, folds: 3", "weights": "auto", "backbone": "tf_efficientnet_lite0",
        "size": 96, "batch": 16, "rate": 2e-3, "augment": "flips", "epochs": 5, "seeds": [0, 1],
    },
    "hazelnut_reduced": {
        "data": f"kind: labelled, root: {HAZELNUT}, folds: 2", "weights": MOBILENET, "backbone": "mobilenetv2_100",
        "size": 128, "batch": 8, "rate": 1e-3, "augment": "rotate45", "epochs": 10,
        "seeds": [0, 1, 2, 3, 4],
    },
}  # fmt: skip
QUICK = {"seeds": [0], "data": "kind: toy, train: 100, folds: 2", "size": 64, "epochs": 1}


def measure(quick: bool) -> dict[str, Any]:
    """Macro F1 out of fold, and times, means over seeds."""
    require()
    cases = {"toy parts": CASES["toy parts"] | QUICK} if quick else CASES
    with tempfile.TemporaryDirectory() as folder:
        return {
            "detector": DETECTOR,
            "cases": [_case(Path(folder), name, case) for name, case in cases.items()],
        }


def _case(folder: Path, name: str, case: dict[str, Any]) -> dict[str, Any]:
    config, results = folder / "c.yaml", folder / "results"
    short = name.replace(" ", "-")
    config.write_text(CONFIG.format(name=short, without=WITHOUT, detector=DETECTOR, **case))
    command = [sys.executable, "-m", "harness", "sweep", str(config), "--output", str(results)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        raise RuntimeError(process.stdout + process.stderr)
    records = ResultFolder(results / short).records()
    alone = [record for record in records if "with_detector" not in record.spec["params"]]
    beside = [record for record in records if "with_detector" in record.spec["params"]]
    return {
        "data": name,
        "backbone": case["backbone"],
        "size": case["size"],
        "images": records[0].data["judged"],
        "labels": records[0].data["labels"],
        "by_seed": [
            [round(float(record.metrics[key] or 0), 3) for key in ("network_macro_F1", "macro_F1")] for record in beside
        ],
        "macro_F1": [round(_metric(runs, "macro_F1"), 3) for runs in (alone, beside)],
        "accuracy": [round(_metric(runs, "accuracy"), 3) for runs in (alone, beside)],
        "trained_seconds": round(mean(record.seconds["spent"] for record in alone), 1),
        "detector_seconds": round(mean(record.seconds["spent"] for record in beside), 1),
        "ms_per_image": [round(1000 * mean(_latency(record) for record in runs), 1) for runs in (alone, beside)],
    }


def _metric(records: list[RunRecord], name: str) -> float:
    return mean(float(record.metrics[name] or 0) for record in records)


def _latency(record: RunRecord) -> float:
    return float(record.cost["seconds_p50"] or 0)

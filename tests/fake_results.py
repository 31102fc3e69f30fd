"""Result folders for tests of sheet and report: a small finished sweep with everything in it, and made-up runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from harness import registry
from harness.cli.main import app
from harness.metrics.curves import curves
from harness.metrics.intervals import intervals
from harness.metrics.ranking import Ranking, measure
from harness.results.record import RunRecord
from harness.results.store import ResultFolder

CONFIG = """
name: {name}
seeds: [0, 1]
data: {{kind: toy, category: [plate, fabric], size: 64, train: 6, good: 4, bad: 2}}
weights: random
grid:
  - {{backend: dummy, model: mean, power: [1.0, 2.0, 3.0]}}
  - {{backend: dummy, model: plain}}
  - {{backend: dummy, model: mean, fail: true}}
"""


def make_results(root: Path, name: str = "demo") -> ResultFolder:
    """Run it with the backend of tests/dummy.py."""
    config = root / f"{name}.yaml"
    config.write_text(CONFIG.format(name=name))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.BACKENDS, "dummy", "tests.dummy:DummyBackend")
        result = CliRunner().invoke(app, ["sweep", str(config), "--output", str(root / "results")])
    assert result.exit_code == 1, result.output  # the runs that were asked to fail
    return ResultFolder(root / "results" / name)


def fake_run(
    folder: ResultFolder, name: str, scores: Sequence[float], labels: Sequence[int], **changes: Any
) -> RunRecord:
    """Put a run in a result folder as a sweep would leave it, pictures aside.

    Args:
        folder: where.
        name: its id.
        scores, labels: of its test images.
        changes: to the record's blocks: `spec={"model": "padim"}`; `params` to the model's parameters. `axes` replaces
            the names of the axes.
    """
    truth, values = np.array(labels, dtype=bool), np.array(scores, dtype=float)
    ranking = Ranking.of(values, truth)
    metrics = {key: None if np.isnan(value) else float(value) for key, value in measure("image", ranking).items()}
    spec = {
        "backend": "anomalib",
        "model": "patchcore",
        "backbone": "resnet18",
        "layers": ["layer2"],
        "image_size": None,
        "params": changes.pop("params", {}),
        "seed": 0,
        "data_kind": "mvtec",
        "category": "bottle",
        "weights": "auto",
        "trainer": {},
        "train_batch_size": 32,
        "eval_batch_size": 32,
        "threshold": {"method": "none"},
        "aupro_limit": 0.3,
        **changes.pop("spec", {}),
    }
    category, axes = spec["category"], changes.pop("axes", list(spec["params"]))
    data = {"kind": "mvtec", "category": category, "root": f"/data/{category}", "fingerprint": f"all of {category}",
            "test_fingerprint": f"test of {category}", "held_out": [0.1, 0], "train": 9, "val": 1, "test": len(labels),
            "test_anomalous": int(truth.sum()), "masks": True, **changes.pop("data", {})}  # fmt: skip
    blocks: dict[str, Any] = {
        "weights": {"policy": "auto", "source": "weights/", "sha256": "a" * 64},
        "metrics": metrics | changes.pop("metrics", {}),
        "intervals": {key: list(ends) for key, ends in intervals(values, truth).items()},
        "cost": {"seconds_p50": 0.01, "seconds_p95": 0.02, "images_per_second": 50.0},
        "seconds": {"fit": 1.0, "test": 1.0, "total": 2.0},
        "provenance": {"began": "2026-01-01T00:00:00", "ended": "2026-01-01T00:00:02", "cpu": "one"},
        "device": "cpu",
    }
    for key, change in changes.items():
        blocks[key] = {**blocks[key], **change} if isinstance(blocks.get(key), dict) else change
    record = RunRecord(run_id=name, status="ok", spec=spec, axes=axes, data=data, **blocks)
    run = folder.run_folder(name)
    run.mkdir(parents=True)
    (run / "record.json").write_text(json.dumps(record.as_dict()))
    rows = [f"{i:03d}.png,{label},{'bad' if label else 'good'},{score},,test"
            for i, (label, score) in enumerate(zip(labels, scores, strict=True))]  # fmt: skip
    (run / "scores.csv").write_text("path,label,defect_type,score,predicted_label,role\n" + "\n".join(rows) + "\n")
    (run / "details.json").write_text(json.dumps({"curves": {"image": curves(ranking)}, "gallery": []}))
    return record

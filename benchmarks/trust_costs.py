"""Whether the cost of a detector depends on the detectors before it, with one thread asked for."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from harness.common.threads import ASKED, VARIABLES
from harness.data.toy_images import write_toy
from harness.results.store import ResultFolder

CONFIG = """
name: {name}
data: {{kind: mvtec, root: {root}}}
weights: random
device: cpu
save_models: none
grid:
  - {{backend: native, model: {first}, backbone: resnet18, layers: [layer2, layer3]}}
  - {{backend: native, model: {second}, backbone: resnet18, layers: [layer2, layer3]}}
"""
ORDERS = {"PatchCore first": ("patchcore", "padim"), "PatchCore last": ("padim", "patchcore")}


def thread_costs(quick: bool) -> list[dict[str, Any]]:
    """A row for each order of a PatchCore and a PaDiM: the time of a single image of the PaDiM, in milliseconds.

    Each repetition is a sweep in a process of its own, because Numba starts its threads once in a process.

    Args:
        quick: one repetition instead of five.
    """
    repeats = 1 if quick else 5
    padim_runs: dict[str, list[dict[str, Any]]] = {name: [] for name in ORDERS}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_toy(root / "toy", categories=["plate"], train=24)
        for repeat in range(repeats):
            for name, models in ORDERS.items():
                padim_runs[name].append(_padim(root, f"{models[0]}{repeat}", models))
    return [
        {
            "order": name,
            "threads_asked": 1,
            "padim_ms_p50": round(median(run["ms"] for run in runs), 1),
            "device": ", ".join(sorted({run["device"] for run in runs})),
            "busy_runs": sum(run["busy"] for run in runs),
            "runs": repeats,
        }
        for name, runs in padim_runs.items()
    ]


def _padim(root: Path, name: str, models: tuple[str, str]) -> dict[str, Any]:
    """The time of the PaDiM in a sweep of both models in an order."""
    config = root / f"{name}.yaml"
    config.write_text(CONFIG.format(name=name, root=root / "toy", first=models[0], second=models[1]))
    # Only this variable asks: the others must follow it.
    environment = {key: value for key, value in os.environ.items() if key not in VARIABLES} | {ASKED: "1"}
    command = [sys.executable, "-m", "harness", "sweep", str(config), "--output", str(root / "results")]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    records = ResultFolder(root / "results" / name).records()
    record = next(record for record in records if record.spec["model"] == "padim")
    return {
        "ms": 1000 * (record.cost["seconds_p50"] or 0),
        "device": record.device,
        "busy": bool(record.cost["latency_busy"]),
    }

"""A sweep of 8 equal groups in this process, in workers, and as Ray's tasks: whole commands, one core a run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from harness.common.threads import VARIABLES

WANTED = 1.7  # times as fast with two workers as with one
ALLOWED = (5.0, 0.02)  # seconds, and share of the sweep, that Ray may add
GROUPS, QUICK_GROUPS = 8, 2
CONFIG = """
task: classification
name: {name}
data: {{kind: toy, train: {train}, test: 20, folds: 2, train_batch_size: 16}}
weights: random
device: cpu
latency: false
save_models: none
trainer: {{max_epochs: {epochs}}}
grid: {{model: baseline, backbone: test_resnet, image_size: 64, augment: flips, lr: {rates}}}
"""
WAYS = {
    "this process": (),
    "ray, one job at a time": ("--launcher", "ray", "--jobs", "1"),
    "one worker": ("--launcher", "local", "--jobs", "1"),
    "two workers": ("--launcher", "local", "--jobs", "2"),
}


def measure(quick: bool) -> dict[str, Any]:
    """Seconds of whole commands, medians over repetitions in turn."""
    repeats, epochs, train, groups = (1, 2, 100, QUICK_GROUPS) if quick else (2, 20, 200, GROUPS)
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        _timed(Path(folder), "first", (), 1, train, groups)  # makes the toy data
        for repeat in range(repeats):
            # What is compared comes one after the other: machines drift.
            for way, options in WAYS.items():
                seconds[way].append(_timed(Path(folder), f"r{repeat}", options, epochs, train, groups))
                print(way, round(seconds[way][-1], 1), flush=True)
    here, ray, one, two = (seconds[way] for way in WAYS)
    faster = median(a / b for a, b in zip(one, two, strict=True))
    added = median(b - a for a, b in zip(here, ray, strict=True))
    allowed = ALLOWED[0] + ALLOWED[1] * median(here)
    return {
        "groups": groups,
        "pairs_of_workers": [round(a / b, 2) for a, b in zip(one, two, strict=True)],
        "seconds": {way: round(median(values), 1) for way, values in seconds.items()},
        "two_workers_against_one": round(faster, 2),
        "wanted": WANTED,
        "ray_adds_seconds": round(added, 1),
        "pairs_of_ray": [round(b - a, 1) for a, b in zip(here, ray, strict=True)],
        "allowed_seconds": round(allowed, 1),
    }


def _timed(folder: Path, name: str, options: tuple[str, ...], epochs: int, train: int, groups: int) -> float:
    config = folder / "c.yaml"
    rates = [round(1e-3 * (1 + index / 10), 6) for index in range(groups)]
    config.write_text(CONFIG.format(name=name, epochs=epochs, train=train, rates=rates))
    results = folder / "results"
    command = [sys.executable, "-m", "harness", "sweep", str(config), "--output", str(results), *options]
    start = time.perf_counter()
    one_core = {**os.environ, **dict.fromkeys(VARIABLES, "1")}
    process = subprocess.run(command, env=one_core, capture_output=True, text=True, check=False)
    took = time.perf_counter() - start
    if process.returncode:
        raise RuntimeError(process.stdout + process.stderr)
    # Results only: the toy data stays, so that all commands find it there.
    shutil.rmtree(results / name)
    return took

"""A learning curve of 8 numbers of images and 5 seeds against the run on all images, for native PatchCore and PaDiM.

Both are whole calls of the harness: reading and checking data, metrics, heatmaps, records and workbook included. The
seconds are those of the processor in this process, over all threads, since they depend less on other programs.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from harness.cli import sweep as commands

SEEDS = [0, 1, 2, 3, 4]
NUMBERS = {"patchcore": [1, 2, 4, 8, 16, 32, 64], "padim": [2, 4, 8, 16, 32, 48, 64]}
MODELS: dict[str, dict[str, Any]] = {"patchcore": {"coreset_sampling_ratio": 0.1}, "padim": {"n_features": 30}}
LAYERS = ["blocks.2"]


def measure(quick: bool) -> dict[str, Any]:
    """Seconds of the curve, of one run on all images, and of the runs on all images with the same seeds."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        results = {model: _of_model(root, model, quick) for model in MODELS}
    return {"numbers": 8, "seeds": len(SEEDS), "wanted_at_most": 2, **results}


def _of_model(root: Path, model: str, quick: bool) -> dict[str, Any]:
    numbers = NUMBERS[model][-2:] if quick else NUMBERS[model]
    # Once before the clock: what is compiled, imported or made on first use.
    _sweep(root, f"{model}-first", model, ["all"], SEEDS[:1])
    one = _sweep(root, f"{model}-one", model, ["all"], SEEDS[:1])
    all_seeds = _sweep(root, f"{model}-seeds", model, ["all"], SEEDS)
    curve = _sweep(root, f"{model}-curve", model, [*numbers, "all"], SEEDS)
    return {
        "one_run_on_all_images_seconds": round(one, 1),
        "all_seeds_on_all_images_seconds": round(all_seeds, 1),
        "curve_seconds": round(curve, 1),
        "curve_against_one_run": round(curve / one, 2),
        "curve_against_all_seeds": round(curve / all_seeds, 2),
    }


def _sweep(root: Path, name: str, model: str, numbers: list[int | str], seeds: list[int]) -> float:
    config = root / f"{name}.yaml"
    grid = {"backend": "native", "model": model, "backbone": "tf_efficientnet_lite0", "layers": LAYERS,
            "image_size": 128, **MODELS[model]}  # fmt: skip
    data = {"kind": "toy", "category": "plate", "size": 128, "train": 128}
    # The times of single images are no part of a curve.
    config.write_text(json.dumps({"data": data, "seeds": seeds, "n_train": numbers, "device": "cpu", "latency": False,
                                  "save_models": "none", "grid": grid}))  # fmt: skip
    begin = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        status = commands.sweep(config, [], root / "results", None, False, False, False)
    assert status == 0, status
    return time.process_time() - begin

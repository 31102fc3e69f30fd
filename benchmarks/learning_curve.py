"""Learning curves of doubled numbers of images and 5 seeds against all images, for native PatchCore and PaDiM.

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

from benchmarks.inputs import HAZELNUT, require
from harness.cli import sweep as commands

SEEDS, QUICK_SEEDS = [0, 1, 2, 3, 4], [0, 1]
TOY, REAL = "toy, 256 images of 128 px", "hazelnut, 50 images of 256 px"
# Each number is twice the one before. With fewer images, the subsets weigh more beside all images.
NUMBERS = {TOY: [1, 2, 4, 8, 16, 32, 64], REAL: [1, 2, 4, 8, 16, 32]}
MODELS: dict[str, dict[str, Any]] = {"patchcore": {"coreset_sampling_ratio": 0.1}, "padim": {"n_features": 30}}
LEAST = {"patchcore": 1, "padim": 2}  # images; a covariance needs two
LAYERS = ["blocks.2"]


def measure(quick: bool) -> dict[str, Any]:
    """Seconds of the curve, of one run on all images, and of the runs on all images with the same seeds.

    Args:
        quick: toy data, one number of images, and fewer seeds.
    """
    require()
    rows: list[dict[str, Any]] = []
    seeds = QUICK_SEEDS if quick else SEEDS
    with tempfile.TemporaryDirectory() as folder:
        for data in [TOY] if quick else NUMBERS:
            rows += [
                _row(Path(folder), data, model, [n for n in NUMBERS[data] if n >= least][-1 if quick else 0 :], seeds)
                for model, least in LEAST.items()
            ]
    return {"seeds": len(seeds), "wanted_at_most": 2, "rows": rows}


def _row(root: Path, data: str, model: str, numbers: list[int], seeds: list[int]) -> dict[str, Any]:
    # Once before the clock: what is compiled, imported or made on first use.
    _sweep(root, data, model, ["all"], seeds[:1])
    one = _sweep(root, data, model, ["all"], seeds[:1])
    all_seeds = _sweep(root, data, model, ["all"], seeds)
    curve = _sweep(root, data, model, [*numbers, "all"], seeds)
    return {
        "data": data,
        "model": model,
        "numbers": [*numbers, "all"],
        "one_run_on_all_images_seconds": round(one, 1),
        "all_seeds_on_all_images_seconds": round(all_seeds, 1),
        "curve_seconds": round(curve, 1),
        "curve_against_one_run": round(curve / one, 2),
        "curve_against_all_seeds": round(curve / all_seeds, 2),
    }


def _sweep(root: Path, data: str, model: str, numbers: list[int | str], seeds: list[int]) -> float:
    toy = data == TOY
    output = Path(tempfile.mkdtemp(dir=root))
    config = output / "curve.yaml"
    grid = {"backend": "native", "model": model, "backbone": "tf_efficientnet_lite0", "layers": LAYERS,
            "image_size": 128 if toy else 256, **MODELS[model]}  # fmt: skip
    images = {"kind": "toy", "category": "plate", "size": 128, "train": 256}
    # The times of single images are no part of a curve.
    config.write_text(json.dumps({"data": images if toy else {"kind": "mvtec", "root": str(HAZELNUT)}, "seeds": seeds,
                                  "n_train": numbers, "device": "cpu", "latency": False, "save_models": "none",
                                  "grid": grid}))  # fmt: skip
    begin = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        status = commands.sweep(config, [], output, None, False, False, False)
    assert status == 0, status
    return time.process_time() - begin

"""A trained anomalib model at work: `load_model` and `predict` against anomalib's inferencers; warm and from cold."""

from __future__ import annotations

import copy
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
from typer.testing import CliRunner

from benchmarks.inputs import HAZELNUT, MOBILENET, require
from harness.backbones.inject import unfilled
from harness.cli.main import app
from harness.data.listing import list_images
from harness.inference.model import load_model
from harness.results.store import ResultFolder

CONFIG = """
name: predict
data: {{kind: mvtec, root: {root}}}
weights: {weights}
latency: false
save_models: all
grid:
  - {{backend: [native, anomalib], model: patchcore, backbone: mobilenetv2_100, layers: [blocks.2, blocks.4],
      coreset_sampling_ratio: 0.02}}
  - {{backend: [native, anomalib], model: padim, backbone: mobilenetv2_100, layers: [blocks.1, blocks.2, blocks.4],
      n_features: 60}}
"""
WARM_UP = 3
INFER = """
import sys
from anomalib.deploy import {name}
print({name}(sys.argv[1], device={device!r}).predict(sys.argv[2]).pred_score)
"""
TORCH = INFER.format(name="TorchInferencer", device="cpu")
OPENVINO = INFER.format(name="OpenVINOInferencer", device="CPU")
F32 = {"INFERENCE_PRECISION_HINT": "f32"}
MODELS = ("patchcore", "padim")


def measure(quick: bool) -> dict[str, Any]:
    """Milliseconds an image, reading included; seconds of a whole process for one image."""
    require()
    # anomalib's TorchInferencer unpickles only so; the file is of this process.
    os.environ["TRUST_REMOTE_CODE"] = "1"
    # OpenVINOInferencer leaves a folder where it is called.
    with tempfile.TemporaryDirectory() as scratch, chdir(scratch):
        folder = _trained(Path(scratch))
        images = [str(path) for path in list_images(HAZELNUT / "test")]
        models = [_model(folder, name, images, Path(scratch) / name, quick) for name in MODELS[: 1 if quick else None]]
    return {"image_size": 256, "repeats": 5 if quick else 60, "models": models}


def _trained(scratch: Path) -> ResultFolder:
    config = scratch / "predict.yaml"
    config.write_text(CONFIG.format(root=HAZELNUT, weights=MOBILENET))
    result = CliRunner().invoke(app, ["sweep", str(config), "--output", str(scratch / "results")])
    assert result.exit_code == 0, result.output
    return ResultFolder(scratch / "results" / "predict")


def _model(folder: ResultFolder, name: str, images: list[str], scratch: Path, quick: bool) -> dict[str, Any]:
    runs = {
        record.spec["backend"]: folder.run_folder(record.run_id)
        for record in folder.records()
        if record.spec["model"] == name
    }
    for run in runs.values():
        result = CliRunner().invoke(app, ["export", str(run), "--format", "openvino"])
        assert result.exit_code == 0, result.output
    exported = {backend: run / "exported" / "model.xml" for backend, run in runs.items()}
    ours = {backend: load_model(run, device="cpu") for backend, run in runs.items()}
    theirs = _their_files(runs["anomalib"], name, scratch)
    calls: dict[str, Callable[[str], Any]] = {
        "ours_torch": ours["anomalib"].predict,
        "native_torch": ours["native"].predict,
        "anomalib_torch": _torch_inferencer(theirs["torch"]),
        "ours_openvino": load_model(exported["anomalib"]).predict,
        "native_openvino": load_model(exported["native"]).predict,
        "anomalib_openvino": _openvino_inferencer(theirs["openvino"], F32),
        "anomalib_openvino_default": _openvino_inferencer(theirs["openvino"], None),
    }
    # Apart: threads of one engine go on spinning for a while and would slow the other.
    warm: dict[str, list[float]] = {}
    for engine in ("torch", "openvino"):
        warm |= _in_turn({name: call for name, call in calls.items() if engine in name}, images, 5 if quick else 60)
    cold = {
        "ours": [sys.executable, "-m", "harness", "predict", str(runs["anomalib"]), images[0]],
        "native": [sys.executable, "-m", "harness", "predict", str(runs["native"]), images[0]],
        "ours_openvino": [sys.executable, "-m", "harness", "predict", str(exported["anomalib"]), images[0]],
        "anomalib_torch": [sys.executable, "-c", TORCH, str(theirs["torch"]), images[0]],
        "anomalib_openvino": [sys.executable, "-c", OPENVINO, str(theirs["openvino"]), images[0]],
        "anomalib_import": [sys.executable, "-c", "import anomalib.models"],
        "torch_import": [sys.executable, "-c", "import torch"],
    }
    full, default = (
        np.asarray(calls[call](images[0]).anomaly_map) for call in ("anomalib_openvino", "anomalib_openvino_default")
    )
    return {
        "model": name,
        **{f"{call}_ms": round(1000 * float(np.median(seconds)), 1) for call, seconds in warm.items()},
        **{f"cold_{call}_seconds": seconds for call, seconds in _cold(cold, 1 if quick else 3, scratch).items()},
        "anomalib_openvino_default_map_difference": float(f"{np.abs(default - full).max():.1e}"),
    }


def _their_files(run: Path, name: str, scratch: Path) -> dict[str, Path]:
    """anomalib's own exports of the same checkpoint, for one image of a fixed size: PatchCore's runs with no other."""
    import anomalib.models
    from anomalib.engine import Engine

    engine = Engine(default_root_dir=scratch, logger=False, accelerator="cpu")
    with unfilled():
        model = getattr(anomalib.models, name.capitalize()).load_from_checkpoint(run / "model.ckpt").eval()
    torch_file = engine.export(copy.deepcopy(model), "torch", export_root=scratch)
    openvino_file = engine.export(
        model, "openvino", export_root=scratch, input_size=(256, 256), onnx_kwargs={"dynamic_axes": {}}
    )
    return {"torch": torch_file, "openvino": openvino_file}


def _torch_inferencer(file: Path) -> Callable[[str], Any]:
    from anomalib.deploy import TorchInferencer

    predict: Callable[[str], Any] = TorchInferencer(file, device="cpu").predict
    return predict


def _openvino_inferencer(file: Path, config: dict[str, str] | None) -> Callable[[str], Any]:
    from anomalib.deploy import OpenVINOInferencer

    predict: Callable[[str], Any] = OpenVINOInferencer(file, device="CPU", config=config).predict
    return predict


def _in_turn(calls: dict[str, Callable[[str], Any]], images: list[str], repeats: int) -> dict[str, list[float]]:
    """Seconds of each call, taken alternately, on the same images; in an order drawn anew each time."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    names, rng = list(calls), random.Random(0)
    for repeat in range(repeats + WARM_UP):
        rng.shuffle(names)
        for name in names:
            begin = time.perf_counter()
            calls[name](images[repeat % len(images)])
            if repeat >= WARM_UP:
                times[name].append(time.perf_counter() - begin)
    return times


def _cold(commands: dict[str, list[str]], repeats: int, folder: Path) -> dict[str, float]:
    """Seconds of whole processes, in turn; medians."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            begin = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True, cwd=folder)
            times[name].append(time.perf_counter() - begin)
    return {name: round(float(np.median(seconds)), 2) for name, seconds in times.items()}

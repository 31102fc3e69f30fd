"""One image from its file to the map with a loaded PatchCore, step by step, beside the backbone's own forward pass."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from typer.testing import CliRunner

from benchmarks.inputs import HAZELNUT, MOBILENET, require
from harness.cli.main import app
from harness.data.images import read_image
from harness.data.listing import list_images
from harness.detectors import load
from harness.detectors.base import Detector
from harness.detectors.maps import smooth
from harness.inference.model import load_model
from harness.results.store import ResultFolder

CONFIG = """
name: warm
data: {{kind: mvtec, root: {root}}}
weights: {weights}
latency: false
device: cpu
save_models: all
grid: {{backend: native, model: patchcore, backbone: {backbone}, layers: {layers}, image_size: {size},
       coreset_sampling_ratio: {ratio}}}
"""
# Backbone, its weights, layers, pixels, and the ratio that gives a bank of about 1,000 patches. The first is that of
# PatchCore's paper; random weights do not change its time.
NETWORKS: tuple[tuple[str, str, list[str], int, float], ...] = (
    ("wide_resnet50_2", "random", ["layer2", "layer3"], 224, 0.0256),
    ("mobilenetv2_100", str(MOBILENET), ["blocks.2", "blocks.4"], 256, 0.02),
)
# Calls of one step in a row, because threads of another engine go on spinning for a while.
ROUNDS, CALLS, WARM_UP = 7, 10, 3
MOST = 1.2  # times the backbone's forward pass


def measure(quick: bool) -> dict[str, Any]:
    """Medians in milliseconds, by network and runtime."""
    require()
    rows = [row for network in (NETWORKS[-1:] if quick else NETWORKS) for row in _rows(*network, quick)]
    return {"image": list_images(HAZELNUT / "test")[0].suffix[1:], "most": MOST, "rows": rows}


def _rows(backbone: str, weights: str, layers: list[str], size: int, ratio: float, quick: bool) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch) / "warm.yaml"
        config.write_text(
            CONFIG.format(root=HAZELNUT, weights=weights, backbone=backbone, layers=layers, size=size, ratio=ratio)
        )
        _command("sweep", str(config), "--output", scratch)
        folder = ResultFolder(Path(scratch) / "warm")
        run = folder.run_folder(folder.records()[0].run_id)
        _command("export", str(run), "--format", "openvino")
        detector = load(run / "model.safetensors", "cpu", progress=False)
        image = list_images(HAZELNUT / "test")[0]
        facts = {"backbone": backbone, "pixels": size, "bank": len(detector.fitted()["bank"])}
        of_torch = _times(_steps(detector, image), load_model(run, device="cpu").predict, image, quick)
        steps = {**_of_file(detector, image), "backbone": _openvino_backbone(detector, image)}
        of_openvino = _times(steps, load_model(run / "exported" / "model.xml").predict, image, quick)
    return [{**facts, "runtime": "Torch", **of_torch}, {**facts, "runtime": "OpenVINO", **of_openvino}]


def _command(*arguments: str) -> None:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output


def _of_file(detector: Detector, image: Path) -> dict[str, Callable[[], Any]]:
    pixels = read_image(image)
    return {"reading": lambda: read_image(image), "resizing": lambda: detector.preprocessing(pixels)}


def _steps(detector: Detector, image: Path) -> dict[str, Callable[[], Any]]:
    batch = detector.preprocessing(image)[None]
    extractor = detector.extractor()
    features, state, size = extractor(batch), detector.fitted(), detector.preprocessing.input_size
    distances = torch.rand(1, *features[detector.layers[0]].shape[-2:])
    return {
        **_of_file(detector, image),
        "backbone": lambda: extractor(batch),
        "scores_and_map": lambda: detector.score(state, features, size),
        "of_it_blurring": lambda: smooth(distances, size),
    }


class _Layers(nn.Module):
    """The features as a tuple."""

    def __init__(self, extractor: nn.Module) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute the features of a batch."""
        features: dict[str, torch.Tensor] = self.extractor(images)
        return tuple(features.values())


def _openvino_backbone(detector: Detector, image: Path) -> Callable[[], Any]:
    import openvino

    batch = detector.preprocessing(image)[None]
    model = openvino.convert_model(_Layers(detector.extractor()), example_input=batch)
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    values = batch.numpy()
    return lambda: compiled(values)


def _times(
    steps: dict[str, Callable[[], Any]], predict: Callable[[Path], Any], image: Path, quick: bool
) -> dict[str, Any]:
    """Medians in milliseconds, and ratios."""
    calls: dict[str, Callable[[], Any]] = {**steps, "path_to_map": lambda: predict(image)}
    rounds: dict[str, list[float]] = {name: [] for name in calls}
    with torch.no_grad():
        for _ in range(1 if quick else ROUNDS):
            for name, call in calls.items():
                rounds[name].append(1000 * statistics.median(_seconds(call)))
    ways, of_file = rounds["path_to_map"], zip(rounds["reading"], rounds["resizing"], strict=True)
    inner = [way - sum(parts) for way, parts in zip(ways, of_file, strict=True)]
    return {
        **{f"{name}_ms": round(statistics.median(values), 1) for name, values in rounds.items()},
        "path_to_map_per_backbone": _ratio(ways, rounds["backbone"]),
        "without_reading_and_resizing": _ratio(inner, rounds["backbone"]),
    }


def _seconds(call: Callable[[], Any]) -> list[float]:
    for _ in range(WARM_UP):
        call()
    seconds = []
    for _ in range(CALLS):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return seconds


def _ratio(times: list[float], others: list[float]) -> float:
    """The median of the ratios of the rounds: the speed of a machine changes between them."""
    return round(statistics.median(one / other for one, other in zip(times, others, strict=True)), 2)

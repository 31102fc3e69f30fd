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
grid: {{backend: native, model: patchcore, backbone: mobilenetv2_100, layers: [blocks.2, blocks.4],
       coreset_sampling_ratio: 0.02}}
"""
REPEATS, WARM_UP = 60, 5
MOST = 1.2  # times the backbone's forward pass


def measure(quick: bool) -> dict[str, Any]:
    """Medians in milliseconds, by runtime."""
    require()
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch) / "warm.yaml"
        config.write_text(CONFIG.format(root=HAZELNUT, weights=MOBILENET))
        _command("sweep", str(config), "--output", scratch)
        folder = ResultFolder(Path(scratch) / "warm")
        run = folder.run_folder(folder.records()[0].run_id)
        _command("export", str(run), "--format", "openvino")
        detector = load(run / "model.safetensors", "cpu", progress=False)
        image = list_images(HAZELNUT / "test")[0]
        pixels = read_image(image)
        rows = [
            _row("Torch", _steps(detector, image), load_model(run, device="cpu").predict, image, quick),
            _row(
                "OpenVINO",
                {**_of_file(detector, image), "backbone": _openvino_backbone(detector, image)},
                load_model(run / "exported" / "model.xml").predict,
                image,
                quick,
            ),
        ]
    size = f"{pixels.shape[1]} x {pixels.shape[0]}"
    return {"image": f"{image.suffix[1:]}, {size}", "bank": len(detector.fitted()["bank"]), "most": MOST, "rows": rows}


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
    distances = torch.rand(1, *features["blocks.2"].shape[-2:])
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


def _row(
    runtime: str, steps: dict[str, Callable[[], Any]], predict: Callable[[Path], Any], image: Path, quick: bool
) -> dict[str, Any]:
    calls: dict[str, Callable[[], Any]] = {**steps, "path_to_map": lambda: predict(image)}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    with torch.no_grad():
        # A block of calls of one step: threads of another engine go on spinning for a while.
        for name, call in calls.items():
            for _ in range(WARM_UP):
                call()
            for _ in range(5 if quick else REPEATS):
                begin = time.perf_counter()
                call()
                seconds[name].append(time.perf_counter() - begin)
    medians = {name: 1000 * statistics.median(values) for name, values in seconds.items()}
    return {
        "runtime": runtime,
        **{f"{name}_ms": round(value, 1) for name, value in medians.items()},
        "path_to_map_per_backbone": round(medians["path_to_map"] / medians["backbone"], 2),
        "without_reading_and_resizing": round(
            (medians["path_to_map"] - medians["reading"] - medians["resizing"]) / medians["backbone"], 2
        ),
    }

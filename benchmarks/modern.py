"""Detectors of today: quality on real images, the cost of their grids, and fits beside anomalib."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.inputs import HAZELNUT, MOBILENET, require, training_images
from benchmarks.memory import peak_of
from benchmarks.trainings import dinomaly, dinomaly_grid
from harness.backbones.resolve import resolve
from harness.cli import sweep as commands
from harness.detectors.features import CPU_IMAGES, build_extractor
from harness.detectors.sources import ImageSource, Preprocessing

REPEATS = 3
# Axes of each detector, 24 points each; all points of a grid share the features. The dearest point comes last.
GRIDS: dict[str, dict[str, list[Any]]] = {
    "anomalydino": {"masking": ["both", "test", "none"], "num_neighbors": [1, 2, 3, 4, 5, 6, 7, 8]},
    "rad": {"pos_radius": [0, 1, 2], "k_image": [5, 10, 15, 20, 25, 30, 40, 50]},
    "subspacead": {
        "layers": [["blocks.6"], ["blocks.6", "blocks.7"], ["blocks.6", "blocks.7", "blocks.8"]],
        "explained_variance": [0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999],
    },
    "mhpatchcore": {
        "pca_variance_ratio": [0.95, 0.99],
        "covariance_shrinkage": [0.03, 0.07],
        "memory_bank_size": [300, 600, 1000],
        "num_neighbors": [1, 9],
    },
}
# Random weights: these sweeps measure times. The threshold of the foreground fits features of this network.
TRANSFORMER = {"backbone": "vit_small_patch14_dinov2", "image_size": 224}
RESIDUAL = {"layers": [["layer2", "layer3"]], "image_size": 256}
# Each detector with its default network; MH-PatchCore also with a small one. The image size is the default of the last
# two detectors, and half the default of the others, whose features then weigh less.
CASES: list[tuple[str, dict[str, Any]]] = [
    ("anomalydino", {**TRANSFORMER, "layers": [["blocks.11"]], "foreground_threshold": 1.0}),
    ("rad", {**TRANSFORMER, "layers": [["blocks.3", "blocks.6", "blocks.9", "blocks.11"]]}),
    ("subspacead", {**TRANSFORMER, "image_size": 252}),
    ("mhpatchcore", {"backbone": "wide_resnet50_2", **RESIDUAL}),
    ("mhpatchcore", {"backbone": "resnet18", **RESIDUAL}),
]
# On real images with ImageNet weights: quality. Both backbones come with the package.
QUALITY: dict[str, dict[str, Any]] = {
    "patchcore": {"coreset_sampling_ratio": 0.1},
    "padim": {"n_features": 100},
    "subspacead": {},
    "mhpatchcore": {},
}
BACKBONES = ["tf_efficientnet_lite0", "tf_efficientnet_lite2"]
BANK = 1000
LAYERS, SIZE = ("blocks.2", "blocks.4"), (224, 224)


def grids(quick: bool) -> list[dict[str, Any]]:
    """A row for each detector and network: processor seconds of the grid, and of its dearest point alone.

    Processor seconds depend less on other programs.

    Args:
        quick: one repeat, and a part of the last grid.
    """
    require()
    return [_grid(name, fixed, quick) for name, fixed in (CASES[-1:] if quick else CASES)]


def _grid(name: str, fixed: dict[str, Any], quick: bool) -> dict[str, Any]:
    axes = {key: values[-2:] if quick else values for key, values in GRIDS[name].items()}
    dearest = {key: values[-1:] for key, values in axes.items()}
    with tempfile.TemporaryDirectory() as folder:
        # Once before the clock: what is compiled or imported on first use.
        _sweep(Path(folder) / "first", name, {**fixed, **dearest})
        pairs = [
            (
                _sweep(Path(folder) / f"grid{n}", name, {**fixed, **axes}),
                _sweep(Path(folder) / f"point{n}", name, {**fixed, **dearest}),
            )
            for n in range(1 if quick else REPEATS)
        ]
    grid, point = (sorted(seconds)[len(seconds) // 2] for seconds in zip(*pairs, strict=True))
    points = len(list(itertools.product(*axes.values())))
    return {
        "detector": name,
        "backbone": fixed["backbone"],
        "points": points,
        "grid_processor_seconds": round(grid, 1),
        "dearest_point_processor_seconds": round(point, 1),
        "ratio": round(grid / point, 2),
        "wanted_at_most": 1.5,
    }


def _sweep(output: Path, name: str, grid: dict[str, Any]) -> float:
    return _run(output, {"model": name, **grid}, "random")


def _run(output: Path, grid: dict[str, Any], weights: str) -> float:
    """Processor seconds of a whole sweep on the real images, over all threads."""
    output.mkdir()
    config = output / "sweep.yaml"
    data = {"kind": "mvtec", "root": str(HAZELNUT), "val": 0.2}
    grid = {"backend": "native", **grid}
    config.write_text(json.dumps({"data": data, "weights": weights, "latency": False, "grid": grid}))
    begin = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        status = commands.sweep(config, [], output, None, False, False, False)
    assert status == 0, status
    return time.process_time() - begin


def hazelnut(quick: bool) -> list[dict[str, Any]]:
    """A row for each detector and backbone: metrics on the real images, and the time of an image.

    Args:
        quick: one backbone.
    """
    require()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, parameters in QUALITY.items():
            axes = {"backbone": BACKBONES[:1] if quick else BACKBONES, "layers": [["blocks.2", "blocks.4"]]}
            _run(Path(folder) / name, {"model": name, **axes, **parameters}, "auto")
            records = [json.loads(file.read_text()) for file in sorted((Path(folder) / name).rglob("record.json"))]
            for record in sorted(records, key=lambda record: str(record["spec"]["backbone"])):
                metrics = ("image_AUROC", "image_F1Max", "pixel_AUROC", "pixel_AUPRO")
                rows.append(
                    {
                        "detector": name,
                        "backbone": record["spec"]["backbone"],
                        **{metric: round(record["metrics"][metric], 3) for metric in metrics},
                        "fit_seconds": round(record["seconds"]["fit"], 1),
                    }
                )
    return rows


def mhpatchcore(quick: bool) -> list[dict[str, Any]]:
    """A row for each implementation: processor seconds and memory of one fit with the same bank; and of features alone.

    Each fit is a process of its own. Memory is the peak of anonymous memory, without the files of libraries.

    Args:
        quick: fewer images.
    """
    require()
    images = 8 if quick else 50
    ours, features, theirs = (_in_a_process(work, images) for work in (_fit_ours, _features, _fit_theirs))
    return [
        {
            "implementation": name,
            "images": images,
            "fit_processor_seconds": round(seconds, 1),
            "peak_MB": peak,
            "times_as_long": round(seconds / ours[0], 1),
        }
        for name, (seconds, peak) in (("ours", ours), ("the network alone", features), ("anomalib", theirs))
    ]


def _in_a_process(work: Callable[[int], float], images: int) -> tuple[float, int]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        measurement: tuple[float, int] = pool.apply(_measured, (work, images))
    return measurement


def _measured(work: Callable[[int], float], images: int) -> tuple[float, int]:
    seconds: list[float] = []
    peak, _ = peak_of(lambda: seconds.append(work(images)))
    return seconds[0], round(peak / 1e6)


def _fit_ours(images: int) -> float:
    from harness.detectors import MHPatchCore

    detector = MHPatchCore("mobilenetv2_100", LAYERS, memory_bank_size=BANK, image_size=SIZE, weights=str(MOBILENET),
                           progress=False, device="cpu", memory_limit=2**28)  # fmt: skip
    begin = time.process_time()
    detector.fit(training_images()[:images])
    return time.process_time() - begin


def _features(images: int) -> float:
    """The part that no fit can leave out."""
    begin = time.process_time()
    extractor = build_extractor("mobilenetv2_100", LAYERS, SIZE, resolve(str(MOBILENET), "mobilenetv2_100"), seed=0)
    for batch in ImageSource(training_images()[:images], Preprocessing(SIZE)).batches():
        for part in torch.split(batch, CPU_IMAGES):
            extractor(part)
    return time.process_time() - begin


def _fit_theirs(images: int) -> float:
    from anomalib.models.image.mh_patchcore.torch_model import MHPatchcoreModel

    from harness.backbones.inject import backbone_weights

    with backbone_weights(str(MOBILENET)):
        model = MHPatchcoreModel("mobilenetv2_100", LAYERS, memory_bank_size=BANK).train()
    source = ImageSource(training_images()[:images], Preprocessing(SIZE))
    begin = time.process_time()
    # The three passes of its Lightning module, without the module.
    with torch.no_grad():
        for batch in source.batches():
            model.pca.update(model(batch))
        model.pca.finalize()
        for batch in source.batches():
            model.covariance.update(model.pca(model(batch)))
        model.covariance.finalize()
        for batch in source.batches():
            model.memory_bank.update(model.covariance(model.pca(model(batch))))
        model.memory_bank.finalize()
    return time.process_time() - begin


TABLES: dict[str, Callable[[bool], list[dict[str, Any]]]] = {
    "hazelnut": hazelnut,
    "mhpatchcore": mhpatchcore,
    "grids": grids,
    "dinomaly": dinomaly,
    "dinomaly_grid": dinomaly_grid,
}

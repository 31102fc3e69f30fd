"""Fits of 100 to 10,000 images: time of an image, memory, and how well a bank from blocks covers all patches.

The images are random crops of real hazelnuts, turned and with another brightness. Each fit is a process of its own.
Memory is anonymous memory: the system drops pages of memory-mapped files when it needs room. The seconds are those of
the processor, over all threads, because they depend less on other programs.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.inputs import MOBILENET, require, training_images
from benchmarks.memory import peak_of

NUMBERS = (100, 1000, 10_000)
# An exact selection of 100,000 patches from 10,000 images takes hours.
FEWER_NUMBERS = (100, 1000)
QUICK_NUMBERS = (40,)
SIZE = 256
LAYERS = ("blocks.2", "blocks.4")
TRAINED = {"backbone": "mobilenetv2_100", "layers": LAYERS, "weights": str(MOBILENET)}
# Their networks are transformers, and no weights of one are at hand: time and memory do not depend on the values.
RANDOM = {"backbone": "vit_tiny_patch16_224", "weights": "random"}
LIMIT = 10**9  # bytes, of features
RATIO = 0.01
WANTED_GB = 2.0
SAMPLE = 100  # images whose patches are compared with a bank

MODELS: dict[str, dict[str, Any]] = {
    "patchcore": {**TRAINED, "coreset_sampling_ratio": RATIO},
    "padim": {**TRAINED, "n_features": 60},
    "subspacead": TRAINED,
    "spade": {**TRAINED, "num_neighbors": 5},
    "mhpatchcore": TRAINED,
    "cflow": {**TRAINED, "max_epochs": 1},
    "anomalydino": RANDOM,
    "rad": RANDOM,
    # The paper has thousands of steps. Their time depends on their number, and not on that of the images.
    "dinomaly": {**RANDOM, "max_steps": 20},
}


def fits(model: str, numbers: tuple[int, ...], quick: bool, **parameters: Any) -> list[dict[str, Any]]:
    """A row for each number of images.

    Args:
        model: name of the detector.
        numbers: numbers of training images.
        quick: few images.
        parameters: further arguments of the detector.
    """
    require()
    rows: list[dict[str, Any]] = []
    for number in QUICK_NUMBERS if quick else numbers:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows.append(pool.apply(_fit, (model, parameters, number)))
    return [
        {**row, "to_first": round(row["processor_ms_an_image"] / rows[0]["processor_ms_an_image"], 2)} for row in rows
    ]


def _fit(model: str, parameters: dict[str, Any], number: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), number)
        detector = _detector(model, parameters)
        # What a first fit compiles and imports.
        _detector(model, parameters).fit(training_images()[:8])
        seconds: list[float] = []

        def work() -> None:
            begin = time.process_time()
            detector.fit(folder)
            seconds.append(time.process_time() - begin)

        peak, wall = peak_of(work)
    row = {
        "images": number,
        "processor_seconds": round(seconds[0], 1),
        "processor_ms_an_image": round(1000 * seconds[0] / number, 1),
        "seconds": round(wall, 1),
        "peak_GB": round(peak / 1e9, 2),
        "wanted_GB": WANTED_GB,
    }
    state = detector.fitted()
    if model != "patchcore":
        return row
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), number, first=max(0, number - SAMPLE))
        farthest = _farthest(detector, sorted(Path(folder).iterdir()), state["bank"])
    bound = {"bound": round(float(state["covering_radius"]), 2)} if "covering_radius" in state else {}
    return {**row, "bank": len(state["bank"]), f"farthest_patch_of_{SAMPLE}_images": round(farthest, 2), **bound}


def _detector(model: str, parameters: dict[str, Any]) -> Any:
    from harness import registry

    cls = registry.lookup(registry.DETECTORS, "detector", model)
    arguments = {**MODELS[model], **parameters, "memory_limit": LIMIT, "progress": False, "device": "cpu"}
    return cls(**arguments, image_size=SIZE)


def _farthest(detector: Any, files: list[Path], bank: torch.Tensor) -> float:
    from harness.detectors.embedding import embed, rows
    from harness.detectors.neighbours import nearest_in_prefixes

    largest = 0.0
    for file in files:
        patches = rows(embed(detector.extractor()(detector.preprocessing(file)[None]), LAYERS))
        largest = max(largest, float(nearest_in_prefixes(patches, bank, [len(bank)])[0].distances.max()))
    return largest


def write_images(folder: Path, number: int, first: int = 0) -> None:
    """Write images `first` to `number`. The image of a number is always the same.

    Args:
        folder: an empty folder.
        number: of images.
        first: number of the first image.
    """
    sources = [Image.open(file).convert("RGB") for file in training_images()]
    for index in range(first, number):
        rng = np.random.default_rng(index)
        source = sources[index % len(sources)]
        side = int(min(source.size) * rng.uniform(0.7, 1))
        left, top = (int(rng.integers(length - side + 1)) for length in source.size)
        crop = source.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        turned = crop.rotate(90 * int(rng.integers(4)))
        pixels = np.asarray(turned, np.float32) * rng.uniform(0.9, 1.1)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{index:06}.jpg", quality=90)


TABLES: dict[str, Callable[[bool], list[dict[str, Any]]]] = {
    "patchcore_merge_reduce": lambda quick: fits("patchcore", NUMBERS, quick, bank="merge_reduce"),
    "patchcore_exact": lambda quick: fits("patchcore", FEWER_NUMBERS, quick, bank="exact"),
    **{model: partial(fits, model, NUMBERS) for model in MODELS if model != "patchcore"},
}

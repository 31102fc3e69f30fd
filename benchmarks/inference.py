"""One image's score and map from a loaded PatchCore: ours and anomalib's Torch model, on the same bank, in turn."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from anomalib.models.image.patchcore.torch_model import PatchcoreModel

from benchmarks.inputs import MOBILENET, require, tiled, training_images
from harness.detectors import PatchCore

BANKS = (500, 5_000, 50_000)
LAYERS = ("blocks.2", "blocks.4")


def measure(quick: bool) -> dict[str, Any]:
    """Milliseconds an image, for each size of the bank."""
    require()
    pictures = training_images()
    ours = PatchCore("mobilenetv2_100", LAYERS, coreset_sampling_ratio=1.0, weights=str(MOBILENET), progress=False)
    ours.fit(pictures[:5])
    all_patches = ours.fitted()["bank"]
    theirs = PatchcoreModel(list(LAYERS), "mobilenetv2_100", pre_trained=False).eval()
    theirs.feature_extractor.feature_extractor.load_state_dict(ours.extractor().network.state_dict())
    rows = []
    for size in BANKS:
        bank = tiled(all_patches, size)
        ours.state, theirs.memory_bank = {"bank": bank}, bank
        images = [ours.preprocessing(picture)[None] for picture in pictures[5:9]]
        repeats = 5 if quick else 60 if size < 50_000 else 30
        durations = _in_turn([ours.score_batch, lambda image: _forward(theirs, image)], images, repeats)
        mine, their = ours.score_batch(images[0]), _forward(theirs, images[0])
        rows.append({
            "bank": size,
            "channels": bank.shape[1],
            **{f"{name}_ms_{p}": round(1000 * float(np.percentile(times, q)), 1)
               for name, times in zip(("ours", "anomalib"), durations, strict=True)
               for p, q in (("p50", 50), ("p95", 95))},
            "times_faster_p50": round(float(np.median(durations[1]) / np.median(durations[0])), 2),
            "times_faster_p95": round(float(np.percentile(durations[1], 95) / np.percentile(durations[0], 95)), 2),
            "our_score": round(float(mine.images[0]), 5),
            "anomalib_score": round(float(their.pred_score[0]), 5),
            "largest_difference_of_maps": float(f"{float((mine.maps - their.anomaly_map[:, 0]).abs().max()):.1e}"),
        })  # fmt: skip
    return {"image_size": 256, "banks": rows}


def _forward(model: PatchcoreModel, image: torch.Tensor) -> Any:
    with torch.no_grad():
        return model(image)


def _in_turn(calls: list[Callable[[torch.Tensor], Any]], images: list[torch.Tensor], repeats: int) -> list[list[float]]:
    """Seconds of each call, taken alternately."""
    times: list[list[float]] = [[] for _ in calls]
    for repeat in range(repeats + 2):
        for number, call in enumerate(calls):
            begin = time.perf_counter()
            call(images[repeat % len(images)])
            if repeat >= 2:
                # The first calls set up what later ones reuse.
                times[number].append(time.perf_counter() - begin)
    return times

"""Pixel metrics of smooth anomaly maps, ours beside scikit-learn's and anomalib's; and the bootstrap's intervals.

Each of the three has the same maps in a process of its own. Its seconds and its peak memory, maps included, are those
after the maps are there and what is set up once (imports, say) has been, with a few other maps.

The maps lie between 0 and 1: torchmetrics, on which anomalib builds, puts others through a sigmoid.
"""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from harness.data.samples import Sample
from harness.metrics.evaluate import rankings
from harness.metrics.intervals import intervals
from harness.metrics.ranking import measure as measure_level
from harness.predictions.decision import Thresholds
from harness.predictions.detection import Predictions

MAPS = 1_000
SIZE = 256
RESAMPLES, IMAGES, TIMED = 2_000, 1_000, 50
WANTED_SECONDS, WANTED_GB, WANTED_BOOTSTRAP = 6, 1.5, 2
GB = 10**9

Maps = npt.NDArray[np.float32]
Masks = npt.NDArray[np.bool_]


def measure(quick: bool) -> dict[str, Any]:
    """One row a way to compute them; seconds of the bootstrap."""
    number = 100 if quick else MAPS
    rows = [{"by": name, **_in_a_process(name, number)} for name in METHODS]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        bootstrap = pool.apply(_bootstrap)
    return {
        "size": SIZE,
        "wanted_seconds": WANTED_SECONDS,
        "wanted_GB": WANTED_GB,
        "pixels": rows,
        "bootstrap": {**bootstrap, "wanted": WANTED_BOOTSTRAP},
    }


def _in_a_process(name: str, number: int) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        measurement: dict[str, Any] = pool.apply(_measured, (name, number))
    return measurement


def _measured(name: str, number: int) -> dict[str, Any]:
    METHODS[name](*smooth_maps(4, seed=1))
    maps, masks = smooth_maps(number)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    inputs = _status("VmRSS")
    begin = time.perf_counter()
    values = METHODS[name](maps, masks)
    seconds = time.perf_counter() - begin
    return {
        "maps": number,
        "anomalous_pixels_percent": round(100 * float(masks.mean()), 1),
        "seconds": round(seconds, 1),
        "GB_with_maps_alone": round(inputs / GB, 2),
        "peak_GB": round(_status("VmHWM") / GB, 2),
        **{metric: round(value, 6) for metric, value in values.items()},
    }


def smooth_maps(number: int, seed: int = 0) -> tuple[Maps, Masks]:
    """Smooth noise, higher in most of the ellipses that the masks of every second image have; from 0 to 1."""
    rng = np.random.default_rng(seed)
    maps = np.empty((number, SIZE, SIZE), np.float32)
    masks = np.zeros(maps.shape, np.bool_)
    for index in range(number):
        maps[index] = cv2.resize(rng.random((24, 24), dtype=np.float32), (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
        if index % 2:
            drawn = _ellipses(rng)
            masks[index] = drawn > 0
            maps[index] += rng.uniform(0, 2) * cv2.GaussianBlur(drawn, (0, 0), 4)
    maps /= maps.max()
    return maps, masks


def _ellipses(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    drawn = np.zeros((SIZE, SIZE), np.float32)
    for _ in range(rng.integers(1, 5)):
        center, axes = rng.integers(20, SIZE - 20, 2).tolist(), rng.integers(4, 40, 2).tolist()
        cv2.ellipse(drawn, center, axes, float(rng.uniform(0, 180)), 0, 360, 1.0, -1)
    return drawn


def _ours(maps: Maps, masks: Masks) -> dict[str, float]:
    samples = tuple(Sample(str(i), str(i), int(mask.any()), "") for i, mask in enumerate(masks))
    test = Predictions(samples, maps.max(axis=(1, 2)).astype(np.float64), maps, masks)
    ranking = rankings(test, Thresholds(None, 0.5, ""))["pixel"]
    metrics = measure_level("pixel", ranking)
    return {name.removeprefix("pixel_"): float(value) for name, value in metrics.items()}


def _scikit_learn(maps: Maps, masks: Masks) -> dict[str, float]:
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    scores, truth = maps.ravel(), masks.ravel()
    metrics = {"AUROC": roc_auc_score(truth, scores), "AP": average_precision_score(truth, scores)}
    precision, recall, _ = precision_recall_curve(truth, scores)
    # Where both are 0 there is no F1.
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return {name: float(value) for name, value in {**metrics, "F1Max": f1.max()}.items()}


def _anomalib(maps: Maps, masks: Masks) -> dict[str, float]:
    import torch
    from anomalib.metrics.aupr import _AUPR
    from anomalib.metrics.aupro import _AUPRO
    from anomalib.metrics.auroc import _AUROC
    from anomalib.metrics.f1_score import _F1Max

    scores, truth = torch.from_numpy(maps), torch.from_numpy(masks).int()
    metrics = {}
    for name, metric in {"AUROC": _AUROC, "AP": _AUPR, "F1Max": _F1Max, "AUPRO": _AUPRO}.items():
        one = metric()
        for batch in zip(torch.split(scores, 100), torch.split(truth, 100), strict=True):
            one.update(*batch)
        metrics[name] = float(one.compute())
    return metrics


METHODS: dict[str, Callable[[Maps, Masks], dict[str, float]]] = {
    "ours": _ours,
    "scikit-learn": _scikit_learn,
    "anomalib": _anomalib,
}


def _bootstrap() -> dict[str, Any]:
    """Intervals of every image metric, against a loop that takes the AUROC alone of each resample."""
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    labels = np.arange(IMAGES) >= IMAGES // 2
    scores = rng.standard_normal(IMAGES) + labels
    begin = time.perf_counter()
    metric_intervals = intervals(scores, labels, 0.5, RESAMPLES)
    ours = time.perf_counter() - begin
    roc_auc_score(labels, scores)
    bad, good = np.flatnonzero(labels), np.flatnonzero(~labels)
    begin = time.perf_counter()
    for _ in range(TIMED):
        drawn = np.concatenate([rng.choice(good, len(good)), rng.choice(bad, len(bad))])
        roc_auc_score(labels[drawn], scores[drawn])
    loop = (time.perf_counter() - begin) * RESAMPLES / TIMED
    return {
        "resamples": RESAMPLES,
        "images": IMAGES,
        "metrics": len(metric_intervals),
        "seconds": round(ours, 2),
        "loop_seconds_estimated": round(loop, 1),
        "loop_resamples_timed": TIMED,
    }


def _status(name: str) -> int:
    """Of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise LookupError(name)

"""The search of a memory bank: ours, which is exact, and FAISS's indexes, in turn, on the same real features.

A bank is a coreset of normal hazelnuts' patches. Where it is larger than `SELECTED`, other patches follow in random
order, because a selection of nearly all patches takes long and changes little. A bank that is larger than the features
repeats them with noise. The queries are patches of test images. A time is the one that passes, so nothing else may run.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.inputs import HAZELNUT, MOBILENET, require, tiled, training_images
from harness.backbones.resolve import resolve
from harness.common.threads import same_number
from harness.data.listing import list_images
from harness.detectors import PatchCore
from harness.detectors.coreset import k_center, start_row
from harness.detectors.embedding import embed, rows
from harness.detectors.faiss_index import EXACT_SEARCH, FLAT, HNSW, IVF, NEIGHBOURS, FaissIndex, recall
from harness.detectors.features import build_extractor
from harness.detectors.neighbours import Nearest, nearest_in_prefixes
from harness.detectors.sources import ImageSource, Preprocessing

THREADS = 2
QUERIES = 1024
ROUNDS, FEW = 7, 3  # measurements of each kind, in turn; few of a bank that is larger than the features
SELECTED = 50_000
INDEXES = (FLAT, HNSW, IVF)
LITE, MOBILE = "tf_efficientnet_lite0", "mobilenetv2_100"
# backbone, layers, banks; all weights are those of ImageNet
CASES: tuple[tuple[str, tuple[str, ...], tuple[int, ...]], ...] = (
    (LITE, ("blocks.1",), (10_000, 50_000, 200_000)),
    (MOBILE, ("blocks.2", "blocks.4"), (10_000, 50_000)),
    (LITE, ("blocks.1", "blocks.2", "blocks.6"), (10_000, 50_000, 200_000, 1_000_000)),
)


def measure(quick: bool) -> dict[str, Any]:
    """A row for each bank, and the metrics of test images with each kind of search."""
    require()
    # OpenBLAS does not know every new processor, and then uses its slowest code: up to five times slower.
    if "avx512f" in Path("/proc/cpuinfo").read_text():
        os.environ.setdefault("OPENBLAS_CORETYPE", "SkylakeX")
    with same_number(THREADS):
        rows_of = [row for case in CASES for row in _case(*case, quick)]
        metrics = _metrics(quick)
    return {
        "threads": THREADS,
        "queries": QUERIES,
        "time_of_a_search": [_times(row) for row in rows_of],
        "recall_and_building": [_recalls(row) for row in rows_of],
        "test_images_of_hazelnuts": metrics,
    }


def _case(backbone: str, layers: tuple[str, ...], sizes: tuple[int, ...], quick: bool) -> list[dict[str, Any]]:
    images = training_images()[: 5 if quick else None]
    points = _embedding(backbone, layers, images)
    tested = _embedding(backbone, layers, list_images(HAZELNUT / "test")[:: 5 if quick else 1])
    queries = tested[torch.linspace(0, len(tested) - 1, QUERIES).long()]
    points = _in_order(points, SELECTED // 10 if quick else SELECTED)
    banks = [
        points[:size].contiguous() if size <= len(points) else tiled(points, size)
        for size in sizes
        if size <= len(points) or not quick
    ]
    return [_row(bank, queries, 2 if quick else ROUNDS if len(bank) <= len(points) else FEW) for bank in banks]


def _embedding(backbone: str, layers: tuple[str, ...], images: list[Path]) -> torch.Tensor:
    """Patches (n, channels) of images at 256 x 256 pixels."""
    weights = resolve(str(MOBILENET) if backbone == MOBILE else "auto", backbone)
    extractor = build_extractor(backbone, layers, (256, 256), weights, seed=0)
    preprocessing = Preprocessing((256, 256), None, weights.normalization)
    with torch.no_grad():
        batches = ImageSource(images, preprocessing).batches()
        return torch.cat([rows(embed(extractor(batch), layers)) for batch in batches])


def _in_order(points: torch.Tensor, selected: int) -> torch.Tensor:
    """A coreset of the points, then the other points in random order."""
    order = k_center(points, selected, start_row(points, 0)).rows
    others = np.setdiff1d(np.arange(len(points)), order)
    return points[torch.from_numpy(np.concatenate([order, np.random.default_rng(0).permutation(others)]))]


def _row(bank: torch.Tensor, queries: torch.Tensor, rounds: int) -> dict[str, Any]:
    row: dict[str, Any] = {"bank": f"{len(bank):,} x {bank.shape[1]}"}
    searches: dict[str, Callable[[], Nearest]] = {
        EXACT_SEARCH: lambda: nearest_in_prefixes(queries, bank, [len(bank)])[0]
    }
    exact = searches[EXACT_SEARCH]()
    for name in INDEXES:
        begin = time.perf_counter()
        index = FaissIndex(bank, name)
        row[f"build {name}"] = time.perf_counter() - begin
        searches[name] = lambda index=index: index.nearest(queries)  # type: ignore[misc]
        row[f"recall {name}"] = recall(searches[name](), exact)
    seconds: dict[str, list[float]] = {name: [] for name in searches}
    for _ in range(rounds):
        for name, search in searches.items():
            begin = time.perf_counter()
            search()
            seconds[name].append(time.perf_counter() - begin)
    for name, times in seconds.items():
        row[name] = statistics.median(times)
        pairs = zip(seconds[EXACT_SEARCH], times, strict=True)
        row[f"ratio {name}"] = statistics.median(ours / theirs for ours, theirs in pairs)
    return row


def _times(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "bank": row["bank"],
        "exact, ours": f"{1000 * row[EXACT_SEARCH]:,.0f} ms",
        **{name: f"{1000 * row[name]:,.0f} ms (ours: {row[f'ratio {name}']:.2f} times as long)" for name in INDEXES},
    }


def _recalls(row: dict[str, Any]) -> dict[str, Any]:
    recalls = {f"recall, {name}": f"{row[f'recall {name}']:.1%}" for name in INDEXES}
    return {"bank": row["bank"], **recalls, **{f"built, {name}": f"{row[f'build {name}']:.1f} s" for name in INDEXES}}


def _metrics(quick: bool) -> list[dict[str, Any]]:
    """Metrics of the test images with one bank; only the search differs."""
    backbone, layers, _ = CASES[-1]
    options: dict[str, Any] = {"coreset_sampling_ratio": 0.01 if quick else 0.1, "progress": False, "device": "cpu"}
    fitted = PatchCore(backbone, layers, **options).fit(HAZELNUT / "train" / "good")
    results = []
    for neighbours in NEIGHBOURS:
        detector = PatchCore(backbone, layers, neighbours=neighbours, **options)
        detector.restore(fitted.fitted(), fitted.extractor())
        begin = time.perf_counter()
        values = detector.evaluate(HAZELNUT)
        results.append({
            "neighbours": neighbours,
            "bank": f"{len(fitted.fitted()['bank']):,} x {fitted.fitted()['bank'].shape[1]}",
            "image AUROC": f"{values['image_AUROC']:.4f}",
            "pixel AUROC": f"{values['pixel_AUROC']:.6f}",
            "test, index included": f"{time.perf_counter() - begin:.1f} s",
        })  # fmt: skip
    return results

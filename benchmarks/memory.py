"""Peak memory of a PatchCore fit, as the number of training images grows: it stays within `memory_limit`.

Each fit is a process of its own. What counts is anonymous memory (pages of memory-mapped files are the system's to
drop), beyond the peak of a fit on a single batch of images, which is what the network itself needs.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.inputs import MOBILENET, require, training_images

NUMBERS = (50, 200, 800)
LIMIT = 300 * 2**20
BATCH = 32


def measure(quick: bool) -> dict[str, Any]:
    """One row a number of images."""
    require()
    rows = []
    for number in NUMBERS[: 2 if quick else None]:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows.append(pool.apply(_fit, (number,)))
    return {"memory_limit_MB": LIMIT // 2**20, "layers": "blocks.2+blocks.4", "ratio": 0.01, "fits": rows}


def _fit(number: int) -> dict[str, Any]:
    from harness.detectors import PatchCore

    def build(limit: int) -> PatchCore:
        return PatchCore("mobilenetv2_100", ["blocks.2", "blocks.4"], coreset_sampling_ratio=0.01,
                         weights=str(MOBILENET), progress=False, memory_limit=limit)  # fmt: skip

    pictures = (training_images() * (number // 50 + 1))[:number]
    alone, _ = _peak_of(lambda: build(LIMIT).fit(pictures[:BATCH]))
    peak, seconds = _peak_of(lambda: build(LIMIT).fit(pictures))
    features = number * (32 * 32 * 32 + 16 * 16 * 96) * 4 + number * 32 * 32 * 128 * 4
    return {
        "images": number,
        "features_and_embedding_MB": round(features / 2**20),
        "peak_MB": round(peak / 2**20),
        "peak_of_one_batch_MB": round(alone / 2**20),
        "beyond_one_batch_MB": round((peak - alone) / 2**20),
        "within": peak - alone <= LIMIT,
        "fit_seconds": round(seconds, 1),
    }


def _peak_of(work: Callable[[], object]) -> tuple[int, float]:
    """Largest anonymous memory while it goes on, and its seconds."""
    peak = [_anonymous()]
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            peak.append(_anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    begin = time.perf_counter()
    work()
    seconds = time.perf_counter() - begin
    stop.set()
    watcher.join()
    return max(peak), seconds


def _anonymous() -> int:
    """Bytes of memory that no file stands behind."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return 1024 * int(line.split()[1])
    raise LookupError("Anonymous")

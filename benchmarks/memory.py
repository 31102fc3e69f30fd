"""Peak memory of a PatchCore fit, as the number of training images grows: it stays within `memory_limit`.

Each fit is a process of its own. What counts is anonymous memory (pages of memory-mapped files are the system's to
drop), beyond what libraries, network and compiled code need for one batch of images: the peak of a fit on that, less
its features.
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
LIMIT = 300 * 10**6
BATCH = 32
# Of one image: maps of 32 channels at 32 x 32 and 96 at 16 x 16, and 1,024 patch vectors of 128.
BYTES = 4 * (32 * 32 * 32 + 96 * 16 * 16 + 1024 * 128)


def measure(quick: bool) -> dict[str, Any]:
    """One row a number of images."""
    require()
    least = _in_a_process(BATCH)[0] - BATCH * BYTES
    rows = []
    for number in NUMBERS[: 1 if quick else None]:
        peak, seconds = _in_a_process(number)
        rows.append(
            {
                "images": number,
                "features_and_embedding_MB": round(number * BYTES / 1e6),
                "peak_MB": round(peak / 1e6),
                "beyond_one_batch_MB": round((peak - least) / 1e6),
                "within": peak - least <= LIMIT,
                "fit_seconds": round(seconds, 1),
            }
        )
    return {
        "memory_limit_MB": LIMIT // 1e6,
        "one_batch_without_features_MB": round(least / 1e6),
        "layers": "blocks.2+blocks.4",
        "ratio": 0.01,
        "fits": rows,
    }


def _in_a_process(number: int) -> tuple[int, float]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        measurement: tuple[int, float] = pool.apply(_fit, (number,))
    return measurement


def _fit(number: int) -> tuple[int, float]:
    from harness.detectors import PatchCore

    def build() -> PatchCore:
        return PatchCore("mobilenetv2_100", ["blocks.2", "blocks.4"], coreset_sampling_ratio=0.01,
                         weights=str(MOBILENET), progress=False, memory_limit=LIMIT)  # fmt: skip

    pictures = (training_images() * (number // 50 + 1))[:number]
    build().fit(pictures[:BATCH])
    return peak_of(lambda: build().fit(pictures))


def peak_of(work: Callable[[], object]) -> tuple[int, float]:
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

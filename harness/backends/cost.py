"""What a run costs, measured alike for every backend: time of single images, peak memory, size of the model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from harness.datasets.base import Sample
from harness.devices import Device

T = TypeVar("T")

IMAGES = 20  # timed at most
ENOUGH = 0.5  # seconds after which no more are timed ...
LEAST = 3  # ... if there are as many as this
WARM_UP = 1  # images before, whose times do not count
# Writing 5 there sets a process's peak of resident memory back to what it has now.
RESET_PEAK = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")


class PeakMemory:
    """The most memory that this process, and its device, held since this object was made."""

    def __init__(self, device: Device) -> None:
        self._gpu = device.index if device.kind == "cuda" else None
        if self._gpu is not None:
            torch.cuda.reset_peak_memory_stats(self._gpu)
        try:
            RESET_PEAK.write_text("5")
            self._known = True
        except OSError:
            # Not Linux, or not allowed: there is only the peak since the process began, which says nothing of a run.
            self._known = False

    def cost(self) -> dict[str, float | None]:
        """`peak_memory`, with everything that is loaded, and on a GPU `peak_gpu_memory`, in bytes."""
        found: dict[str, float | None] = {"peak_memory": _peak() if self._known else None}
        if self._gpu is not None:
            found["peak_gpu_memory"] = float(torch.cuda.max_memory_allocated(self._gpu))
        return found


def _peak() -> float | None:
    for line in STATUS.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024.0 * int(line.split()[1])
    return None


def some(samples: Sequence[Sample], count: int = IMAGES) -> list[Sample]:
    """Up to `count` samples, spread evenly."""
    picked = np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int)
    return [samples[i] for i in picked]


def times(work: Callable[[T], object], inputs: Sequence[T], device: Device) -> list[float]:
    """Seconds of `work` on one input after the other, the device's queue empty before and after each.

    Args:
        work: what is timed.
        inputs: taken in turn; at least one.
        device: what it runs on.
    """
    found: list[float] = []
    begin = time.perf_counter()
    while len(found) < WARM_UP + LEAST or (len(found) < WARM_UP + IMAGES and time.perf_counter() - begin < ENOUGH):
        one = inputs[len(found) % len(inputs)]
        device.synchronize()
        start = time.perf_counter()
        work(one)
        device.synchronize()
        found.append(time.perf_counter() - start)
    return found[WARM_UP:]


def latency(seconds: Sequence[float]) -> dict[str, float | None]:
    """Median and 95th percentile."""
    p50, p95 = np.quantile(seconds, [0.5, 0.95])
    return {"seconds_p50": float(p50), "seconds_p95": float(p95), "timed_images": len(seconds)}


def size(tensors: Iterable[torch.Tensor]) -> float:
    """Bytes."""
    return float(sum(tensor.numel() * tensor.element_size() for tensor in tensors))

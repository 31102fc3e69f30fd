"""What a run costs, measured alike for every backend: time of single images, peak memory, size of the model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import psutil
import torch

from harness.common.devices import Device
from harness.data.base import Sample

T = TypeVar("T")

IMAGES = 20  # timed at most
ENOUGH = 0.5  # seconds after which no more are timed ...
LEAST = 3  # ... if there are as many as this
FOR_P95 = 10
BUSY = 0.25  # of the machine's cores, above which times are not to be relied on
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


@dataclass(frozen=True)
class Timing:
    """Of single inputs.

    Attributes:
        seconds: of each.
        others: share of the machine's cores that other programs kept busy meanwhile.
    """

    seconds: list[float]
    others: float

    def warnings(self) -> list[str]:
        """A sentence where the machine was too busy for these times to be relied on."""
        if self.others <= BUSY:
            return []
        return [
            f"latency: other programs kept {self.others:.0%} of the machine busy while single images were timed; the "
            "times are too long"
        ]


class _Others:
    """How busy other programs keep the machine since this object was made."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._start = self._seconds()

    def _seconds(self) -> tuple[float, float]:
        """Core seconds of everybody else, and of all cores in all."""
        found = psutil.cpu_times()
        idle = found.idle + getattr(found, "iowait", 0.0)
        own = self._process.cpu_times()
        return sum(found) - idle - own.user - own.system, sum(found)

    def share(self) -> float:
        """Between 0 and 1."""
        busy, total = (now - then for now, then in zip(self._seconds(), self._start, strict=True))
        return min(max(busy / total, 0.0), 1.0) if total > 0 else 0.0


def times(work: Callable[[T], object], inputs: Sequence[T], device: Device) -> Timing:
    """Time `work` on one input after the other, the device's queue empty before and after each.

    Args:
        work: what is timed.
        inputs: taken in turn; at least one.
        device: what it runs on.
    """
    found: list[float] = []
    others = _Others()
    begin = time.perf_counter()
    while len(found) < WARM_UP + LEAST or (len(found) < WARM_UP + IMAGES and time.perf_counter() - begin < ENOUGH):
        one = inputs[len(found) % len(inputs)]
        device.synchronize()
        start = time.perf_counter()
        work(one)
        device.synchronize()
        found.append(time.perf_counter() - start)
    return Timing(found[WARM_UP:], others.share())


def latency(seconds: Sequence[float]) -> dict[str, float | None]:
    """Median and, of at least as many as say something about it, 95th percentile."""
    p95 = float(np.quantile(seconds, 0.95)) if len(seconds) >= FOR_P95 else None
    return {"seconds_p50": float(np.median(seconds)), "seconds_p95": p95, "timed_images": len(seconds)}


def size(tensors: Iterable[torch.Tensor]) -> float:
    """Bytes."""
    return float(sum(tensor.numel() * tensor.element_size() for tensor in tensors))

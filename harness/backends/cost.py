"""The cost of a run, measured in the same way for every backend: latency of single images, peak memory, model size."""

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

IMAGES = 20  # maximum number of timed images
TIMEOUT = 0.5  # seconds after which the timing stops ...
LEAST = 3  # ... once this many images are timed
FOR_P95 = 10
MAX_LOAD = 0.25  # share of the machine's cores; above this load of other programs, times are unreliable
WARM_UP = 1  # images before the timed ones
# Writing 5 to this file resets the peak of a process's resident memory to its current value.
RESET_PEAK = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")


class PeakMemory:
    """The peak memory of this process and of its device since the construction of this object.

    Args:
        device: the device of the run.
    """

    def __init__(self, device: Device) -> None:
        self._gpu = device.index if device.kind == "cuda" else None
        if self._gpu is not None:
            torch.cuda.reset_peak_memory_stats(self._gpu)
        try:
            RESET_PEAK.write_text("5")
            self._resettable = True
        except OSError:
            # Without Linux or permission, the only peak is that of the whole process, which does not describe one run.
            self._resettable = False

    def cost(self) -> dict[str, float | None]:
        """Return `peak_memory` of the whole process, and on a GPU `peak_gpu_memory`, in bytes."""
        peaks: dict[str, float | None] = {"peak_memory": _peak() if self._resettable else None}
        if self._gpu is not None:
            peaks["peak_gpu_memory"] = float(torch.cuda.max_memory_allocated(self._gpu))
        return peaks


def _peak() -> float | None:
    for line in STATUS.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024.0 * int(line.split()[1])
    return None


def some(samples: Sequence[Sample], count: int = IMAGES) -> list[Sample]:
    """Return evenly spaced samples.

    Args:
        samples: all samples.
        count: maximum number of returned samples.
    """
    indices = np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int)
    return [samples[i] for i in indices]


@dataclass(frozen=True)
class Timing:
    """Times of single inputs.

    Attributes:
        seconds: time of each input.
        others: share of the machine's cores that other programs used during the timing.
    """

    seconds: list[float]
    others: float

    def warnings(self) -> list[str]:
        """Return a warning if the load of other programs makes the times unreliable."""
        if self.others <= MAX_LOAD:
            return []
        return [
            f"latency: other programs kept {self.others:.0%} of the machine busy while single images were timed; the "
            "times are too long"
        ]


class _OtherLoad:
    """The load of other programs since the construction of this object."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._start = self._seconds()

    def _seconds(self) -> tuple[float, float]:
        """Core seconds of all other programs, and of all cores in total, idle time included."""
        system = psutil.cpu_times()
        idle = system.idle + getattr(system, "iowait", 0.0)
        process = self._process.cpu_times()
        return sum(system) - idle - process.user - process.system, sum(system)

    def share(self) -> float:
        """Share of the machine's cores, between 0 and 1."""
        busy, total = (now - then for now, then in zip(self._seconds(), self._start, strict=True))
        return min(max(busy / total, 0.0), 1.0) if total > 0 else 0.0


def times(work: Callable[[T], object], inputs: Sequence[T], device: Device) -> Timing:
    """Time a function on single inputs; the queue of the device is empty before and after each call.

    Args:
        work: the timed function.
        inputs: inputs, used in turn; at least one.
        device: the device of the function.
    """
    seconds: list[float] = []
    others = _OtherLoad()
    begin = time.perf_counter()
    while len(seconds) < WARM_UP + LEAST or (len(seconds) < WARM_UP + IMAGES and time.perf_counter() - begin < TIMEOUT):
        value = inputs[len(seconds) % len(inputs)]
        device.synchronize()
        start = time.perf_counter()
        work(value)
        device.synchronize()
        seconds.append(time.perf_counter() - start)
    return Timing(seconds[WARM_UP:], others.share())


def latency(seconds: Sequence[float]) -> dict[str, float | None]:
    """Return the median and the number of times, and for at least `FOR_P95` times their 95th percentile."""
    p95 = float(np.quantile(seconds, 0.95)) if len(seconds) >= FOR_P95 else None
    return {"seconds_p50": float(np.median(seconds)), "seconds_p95": p95, "timed_images": len(seconds)}


def size(tensors: Iterable[torch.Tensor]) -> float:
    """Return the total size of tensors, in bytes."""
    return float(sum(tensor.numel() * tensor.element_size() for tensor in tensors))

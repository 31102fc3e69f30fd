"""The time of a single image, in the same way for every model: from the file of the image to the decision.

One call reads the file, prepares the image, scores it and decides. The parts are never timed apart, because a machine
is faster or slower at another moment. The result is an array in memory, so that the queue of a GPU is empty after each
call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import psutil

from harness.common import threads
from harness.data.images import RGB, read_image

T = TypeVar("T")

IMAGES = 20  # number of timed images ...
SECONDS = 2.0  # ... or fewer after these seconds ...
LEAST = 3  # ... but at least so many
FOR_P95 = 10
WARM_UP_IMAGES = 10  # largest number of images before the timed ones
WARM_UP_SECONDS = 1.0  # longest time before the timed images, apart from the first image
STEADY = 3  # the warm-up ends after so many images ...
SPREAD = 1.1  # ... whose slowest takes at most so many times as long as the fastest
MAX_LOAD = 0.25  # share of the machine's cores; above this load of other programs, times are unreliable
# Keys of `RunRecord.cost`: whether the time was taken on a busy machine, and with how many threads.
BUSY, THREADS = "latency_busy", "latency_threads"
WARNING = "latency: other programs kept"


@dataclass(frozen=True)
class Timing:
    """Times of single images.

    Attributes:
        seconds: time of each image.
        others: share of the machine's cores that other programs used during the timing.
        threads: number of threads of each operation on the cpu.
    """

    seconds: Sequence[float]
    others: float
    threads: int = 1

    @property
    def busy(self) -> bool:
        """Whether other programs make the times unreliable."""
        return self.others > MAX_LOAD

    def cost(self) -> dict[str, float | None]:
        """Median and number of times, their 95th percentile for `FOR_P95` or more, threads, and the mark `BUSY`."""
        p95 = float(np.quantile(self.seconds, 0.95)) if len(self.seconds) >= FOR_P95 else None
        return {
            "seconds_p50": float(np.median(self.seconds)),
            "seconds_p95": p95,
            "timed_images": len(self.seconds),
            THREADS: self.threads,
            BUSY: self.busy,
        }

    def warnings(self) -> list[str]:
        """Return a warning if the times are unreliable."""
        if not self.busy:
            return []
        return [
            f"{WARNING} {self.others:.0%} of the machine busy while single images were timed; the times are too long"
        ]


class OtherLoad:
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


def measure(decide: Callable[[RGB], object], paths: Sequence[str]) -> Timing:
    """Time a model on some of the images, one at a time.

    Args:
        decide: prepares an image, scores it and decides; see `harness.tasks.base.Task.decision`.
        paths: files of images; at least one.
    """
    return times(lambda path: decide(read_image(path)), some(paths))


def some(items: Sequence[T], number: int = IMAGES) -> list[T]:
    """Return evenly spaced items.

    Args:
        items: all items.
        number: maximum number of returned items.
    """
    indices = np.linspace(0, len(items) - 1, min(number, len(items))).round().astype(int)
    return [items[i] for i in indices]


def times(work: Callable[[T], object], inputs: Sequence[T]) -> Timing:
    """Time a function on single inputs, after a warm-up.

    Args:
        work: the timed function; it returns after all its work.
        inputs: inputs, used in turn; at least one.
    """
    first = _warm_up(work, inputs)
    others = OtherLoad()
    seconds: list[float] = []
    while len(seconds) < LEAST or (len(seconds) < IMAGES and sum(seconds) < SECONDS):
        seconds.append(_once(work, inputs[(first + len(seconds)) % len(inputs)]))
    return Timing(seconds, others.share(), threads.count())


def _warm_up(work: Callable[[T], object], inputs: Sequence[T]) -> int:
    """Call the function until its time is steady, at most for `WARM_UP_SECONDS`; return the number of calls."""
    # The first call loads code and allocates memory; its time says nothing.
    _once(work, inputs[0])
    seconds: list[float] = []
    while len(seconds) < WARM_UP_IMAGES - 1 and sum(seconds) < WARM_UP_SECONDS:
        seconds.append(_once(work, inputs[(1 + len(seconds)) % len(inputs)]))
        latest = seconds[-STEADY:]
        if len(latest) == STEADY and max(latest) <= SPREAD * min(latest):
            break
    return 1 + len(seconds)


def _once(work: Callable[[T], object], value: T) -> float:
    start = time.perf_counter()
    work(value)
    return time.perf_counter() - start

"""The context of stages: device, images, weights, memory, cache, progress and timings."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import timm
import torch

from harness.backbones.resolve import Weights
from harness.common.devices import Device
from harness.detectors.cache import Arrays, StageCache, Tensors
from harness.detectors.memory import Memory
from harness.detectors.sources import ImageSource

# Version of the cached results. Raise the number when a stage computes other values than before.
FORMAT = 1


def _ignore(text: str) -> None:
    del text


@dataclass
class StageContext:
    """The context of all stages of a group of runs with the same images and backbone.

    Attributes:
        device: device of the computation.
        images: images by role: train, val, test.
        backbone: timm's name.
        weights: source of the backbone's weights.
        memory: allocates large arrays.
        cache: cache for later sweeps; None without one.
        fingerprint: hash of the images' contents, for the keys of the cache.
        on_progress: called with a text about the progress.
        watch: called during a training with the number of finished epochs and a function that returns the state.
        observation_seconds: seconds that `watch` took in the running stage.
        warnings: warnings of the running stage, each with the key of its subset (None: the whole result).
        cached_seconds: seconds that the cache saved in the running stage.
        seconds_by_key: seconds after which each subset of the running stage's result was complete.
    """

    device: Device
    images: Mapping[str, ImageSource]
    backbone: str
    weights: Weights
    memory: Memory
    cache: StageCache | None = None
    fingerprint: str = ""
    on_progress: Callable[[str], None] = _ignore
    watch: Callable[[int, Callable[[], Any]], None] | None = None
    observation_seconds: float = 0.0
    warnings: list[tuple[Hashable, str]] = field(default_factory=list)
    cached_seconds: float = 0.0
    seconds_by_key: dict[Hashable, float] = field(default_factory=dict)
    _start: float = 0.0
    _title: str = ""

    def start_stage(self, title: str) -> dict[Hashable, float]:
        """Reset the timings and warnings for a new stage.

        Args:
            title: name of the stage, for the progress line.

        Returns:
            The dictionary that `mark_time` fills.
        """
        self._title = title
        self.on_progress(title)
        self.seconds_by_key, self._start, self.cached_seconds, self.warnings = {}, time.perf_counter(), 0.0, []
        self.observation_seconds = 0.0
        return self.seconds_by_key

    def report(self, done: int, total: int) -> None:
        """Report the progress of the running stage.

        Args:
            done: number of finished steps.
            total: number of all steps.
        """
        self.on_progress(f"{self._title} {done / max(total, 1):.0%}")

    def observe(self, epoch: int, state: Callable[[], Any]) -> None:
        """Call `watch` in the middle of a training; its time does not count as the stage's time.

        Args:
            epoch: number of finished epochs.
            state: returns the present state of the detector.
        """
        if self.watch is None:
            return
        start = time.perf_counter()
        self.watch(epoch, state)
        self.observation_seconds += time.perf_counter() - start

    def warn(self, text: str, key: Hashable = None) -> None:
        """Record a warning for the runs that need the subset.

        Args:
            text: the warning.
            key: subset of the stage's result that the warning is about; None for the whole result.
        """
        if (key, text) not in self.warnings:
            self.warnings.append((key, text))

    def mark_time(self, key: Hashable, share: float = 1.0) -> None:
        """Record that a subset of the running stage's result is complete.

        Args:
            key: subset; see `Stage.uses`.
            share: share of the time until now that the subset would take alone.
        """
        self.device.synchronize()
        self.seconds_by_key[key] = share * (time.perf_counter() - self._start) + self.cached_seconds

    def mark_images(self, count: int) -> None:
        """Record for each number of images its share of the time until now. The key of a subset is the number.

        Args:
            count: number of all images.
        """
        self.device.synchronize()
        seconds = time.perf_counter() - self._start + self.cached_seconds
        self.seconds_by_key |= {number: seconds * number / count for number in range(1, count + 1)}

    def recall(self, key: Mapping[str, Any]) -> tuple[Tensors, float] | None:
        """Read a result from the cache; see `StageCache.get`."""
        return self.cache.get(self._full_key(key), self.memory.tensor) if self.cache else None

    def remember(self, key: Mapping[str, Any], arrays: Arrays, seconds: float) -> None:
        """Write a result to the cache, where there is one.

        Args:
            key: the stage's parameters.
            arrays: the result, arrays by name.
            seconds: duration of the computation.
        """
        if self.cache:
            self.cache.put(self._full_key(key), arrays, seconds)

    def _full_key(self, key: Mapping[str, Any]) -> dict[str, Any]:
        """The stage's key, with the data, weights, device and versions that the result depends on."""
        return {
            **key,
            "format": FORMAT,
            "data": self.fingerprint,
            "backbone": self.backbone,
            "weights": self.weights.sha256 or "random",
            "device": self.device.description,
            "torch": torch.__version__,
            "timm": timm.__version__,
        }

    def to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """Copy a tensor to the device. A tensor that does not fit stays on the cpu, with a warning."""
        device = self.device.torch
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            # Torch can reuse the memory that it has reserved.
            free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
            if 2 * tensor.nbytes > free:
                self.warn(
                    f"{tensor.nbytes / 1e9:.1f} GB of features do not fit on {device} ({free / 1e9:.1f} GB free): "
                    "computed on the cpu instead"
                )
                return tensor
        return tensor.to(device)

"""What stages work with: device, images, weights, memory, cache, and somebody to tell how far they are."""

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

# Of what is cached; raise it when a stage computes something else than before.
FORMAT = 1


def _nobody(text: str) -> None:
    del text


@dataclass
class StageContext:
    """One for all stages of a group of runs on the same images and backbone.

    Attributes:
        device: what computes.
        images: by role: train, val, test.
        backbone: timm's name.
        weights: where the backbone's weights come from.
        memory: hands out large arrays.
        cache: results kept between sweeps, or None.
        data: what the images are, for the cache's keys; a fingerprint of their contents.
        tell: called with a word on what goes on.
        watch: shown what a training has reached: epochs done, and what gives the state so far.
        apart: seconds of the running stage that looking at it took.
        warnings: what the running stage did differently from what was asked, each with the part that it is about.
        saved: seconds that the cache saved the running stage.
        laps: seconds after which parts of the running stage were done.
    """

    device: Device
    images: Mapping[str, ImageSource]
    backbone: str
    weights: Weights
    memory: Memory
    cache: StageCache | None = None
    data: str = ""
    tell: Callable[[str], None] = _nobody
    watch: Callable[[int, Callable[[], Any]], None] | None = None
    apart: float = 0.0
    warnings: list[tuple[Hashable, str]] = field(default_factory=list)
    cached_seconds: float = 0.0
    part_seconds: dict[Hashable, float] = field(default_factory=dict)
    _began: float = 0.0
    _title: str = ""

    def say(self, title: str) -> None:
        """A stage begins."""
        self._title = title
        self.tell(title)

    def at(self, done: int, total: int) -> None:
        """How far the stage is."""
        self.tell(f"{self._title} {done / max(total, 1):.0%}")

    def observe(self, epoch: int, state: Callable[[], Any]) -> None:
        """Show what a training has reached, to whoever watches; the time that it takes is not the stage's."""
        if self.watch is None:
            return
        start = time.perf_counter()
        self.watch(epoch, state)
        self.observation_seconds += time.perf_counter() - start

    def warn(self, text: str, part: Hashable = None) -> None:
        """It is said, and recorded with the runs that it is true of: those that need this part of the stage."""
        if (part, text) not in self.warnings:
            self.warnings.append((part, text))

    def start_stage(self) -> dict[Hashable, float]:
        """A stage begins; gives what its laps will be put into. Its warnings begin anew, too."""
        self.part_seconds, self._began, self.cached_seconds, self.warnings = {}, time.perf_counter(), 0.0, []
        self.observation_seconds = 0.0
        return self.part_seconds

    def mark_time(self, part: Hashable, share: float = 1.0) -> None:
        """The part of the running stage that is called `part` is done: alone, the stage would end here.

        Args:
            part: its name; see `Stage.uses`.
            share: of the time so far that it would take.
        """
        self.device.synchronize()
        self.part_seconds[part] = share * (time.perf_counter() - self._began) + self.cached_seconds

    def recall(self, key: Mapping[str, Any]) -> tuple[Tensors, float] | None:
        """From the cache; see `StageCache.get`."""
        return self.cache.get(self._whole(key), self.memory.tensor) if self.cache else None

    def remember(self, key: Mapping[str, Any], arrays: Arrays, seconds: float) -> None:
        """Into the cache."""
        if self.cache:
            self.cache.put(self._whole(key), arrays, seconds)

    def _whole(self, key: Mapping[str, Any]) -> dict[str, Any]:
        """All that a result depends on: what the stage says, the data, the weights, what computes."""
        return {
            **key,
            "format": FORMAT,
            "data": self.data,
            "backbone": self.backbone,
            "weights": self.weights.sha256 or "random",
            "device": self.device.description,
            "torch": torch.__version__,
            "timm": timm.__version__,
        }

    def to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor where the computing is done; it stays on the cpu, and that is said, where it does not fit."""
        device = self.device.torch
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            # What Torch keeps for itself can be used again.
            free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
            if 2 * tensor.nbytes > free:
                self.warn(
                    f"{tensor.nbytes / 2**30:.1f} GB of features do not fit on {device} ({free / 2**30:.1f} GB free): "
                    "computed on the cpu instead"
                )
                return tensor
        return tensor.to(device)

"""`device:` -> something to run on, or a clear refusal."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.common.errors import ConfigError

if TYPE_CHECKING:
    import torch


DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


@dataclass(frozen=True)
class Device:
    """A device.

    Attributes:
        kind: cpu, cuda or mps.
        index: which one, for cuda.
        description: for the record.
    """

    kind: str
    index: int
    description: str

    @property
    def torch(self) -> torch.device:
        """For Torch."""
        import torch

        return torch.device(self.kind, self.index) if self.kind == "cuda" else torch.device(self.kind)

    def trainer_arguments(self) -> dict[str, Any]:
        """How to tell Lightning's Trainer.

        For a CUDA device other than the first a strategy is named: several of anomalib's models force `devices: 1`,
        which would bring them back to the first.
        """
        if self.kind == "cuda" and self.index > 0:
            import torch
            from lightning.pytorch.accelerators import CUDAAccelerator
            from lightning.pytorch.strategies import SingleDeviceStrategy

            device = torch.device("cuda", self.index)
            return {"strategy": SingleDeviceStrategy(device=device, accelerator=CUDAAccelerator()), "devices": 1}
        return {"accelerator": {"cuda": "gpu"}.get(self.kind, self.kind), "devices": 1}

    def synchronize(self) -> None:
        """Wait until everything handed to the device is done, so that times are true."""
        import torch

        if self.kind == "cuda":
            torch.cuda.synchronize(self.index)
        elif self.kind == "mps":
            torch.mps.synchronize()


def pick(name: str) -> Device:
    """The device of that name.

    Args:
        name: auto (cuda, else mps, else cpu), cpu, cuda, cuda:N or mps.

    Raises:
        ConfigError: this machine does not have it.
    """
    import torch

    if not DEVICE.fullmatch(name):
        raise ConfigError(f"device: {name!r} found; expected auto, cpu, cuda, cuda:N or mps.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind == "cpu":
        return Device("cpu", 0, f"cpu, {torch.get_num_threads()} threads")
    if kind == "mps":
        if not torch.backends.mps.is_available():
            raise ConfigError("device: mps found, but this machine has none; expected auto or cpu.")
        return Device("mps", 0, "mps")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = int(number or 0)
    if index >= count:
        raise ConfigError(f"device: {name} found, but Torch sees {count} CUDA devices here; expected auto or cpu.")
    return Device("cuda", index, f"cuda:{index}, {torch.cuda.get_device_name(index)}")

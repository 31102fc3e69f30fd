"""The key `device:` -> a `Device` of this machine, or a `ConfigError`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.common.errors import ConfigError
from harness.common.threads import count

if TYPE_CHECKING:
    import torch


DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


@dataclass(frozen=True)
class Device:
    """A device of this machine.

    Attributes:
        kind: cpu, cuda or mps.
        index: number of the CUDA device, from 0; 0 for other kinds.
        name: name of an accelerator; "" for a cpu.
    """

    kind: str
    index: int = 0
    name: str = ""

    @property
    def description(self) -> str:
        """Text for the record of a run and the keys of the cache, with the present number of threads of a cpu."""
        if self.kind == "cpu":
            return f"cpu, {count()} threads"
        return f"cuda:{self.index}, {self.name}" if self.kind == "cuda" else self.kind

    @property
    def torch(self) -> torch.device:
        """The same device as Torch's type."""
        import torch

        return torch.device(self.kind, self.index) if self.kind == "cuda" else torch.device(self.kind)

    def trainer_arguments(self) -> dict[str, Any]:
        """Arguments that make Lightning's Trainer use the device.

        A CUDA device other than the first needs a strategy. Several of anomalib's models force `devices: 1`, and
        without a strategy this selects the first device.
        """
        if self.kind == "cuda" and self.index > 0:
            import torch
            from lightning.pytorch.accelerators import CUDAAccelerator
            from lightning.pytorch.strategies import SingleDeviceStrategy

            device = torch.device("cuda", self.index)
            return {"strategy": SingleDeviceStrategy(device=device, accelerator=CUDAAccelerator()), "devices": 1}
        return {"accelerator": {"cuda": "gpu"}.get(self.kind, self.kind), "devices": 1}

    def synchronize(self) -> None:
        """Wait until the device has finished all its work, so that a timer measures all of it."""
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
        ConfigError: the name is not valid, or this machine has no such device.
    """
    import torch

    if not DEVICE.fullmatch(name):
        raise ConfigError(f"device: {name!r} found; expected auto, cpu, cuda, cuda:N or mps.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind == "cpu":
        return Device("cpu")
    if kind == "mps":
        if not torch.backends.mps.is_available():
            raise ConfigError("device: mps found, but this machine has none; expected auto or cpu.")
        return Device("mps")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = int(number or 0)
    if index >= count:
        raise ConfigError(f"device: {name} found, but Torch sees {count} CUDA devices here; expected auto or cpu.")
    return Device("cuda", index, torch.cuda.get_device_name(index))

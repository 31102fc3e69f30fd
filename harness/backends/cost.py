"""Memory of a run and size of its model, measured in the same way for every backend; latency.py has the times."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from harness.common.devices import Device

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


def size(tensors: Iterable[torch.Tensor]) -> float:
    """Return the total size of tensors, in bytes."""
    return float(sum(tensor.numel() * tensor.element_size() for tensor in tensors))

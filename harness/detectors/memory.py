"""Large arrays within a budget: in memory while they fit, in memory-mapped files beyond."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import torch

from harness.common.errors import MemoryLimitError

FOR_ARRAYS = 0.6
ALWAYS = 2**20  # bytes; smaller arrays are not worth a file


def default_limit() -> int:
    """Half of what is free, in bytes."""
    return int(psutil.virtual_memory().available) // 2


class Memory:
    """Hands out arrays.

    Args:
        limit: bytes that features may take in memory; None for half of what is free. Arrays get most of it; the rest
            is for what stages need beside them.
        folder: where files go that stand for the rest; made when the first is needed.
    """

    def __init__(self, limit: int | None, folder: Path | None = None) -> None:
        self.limit = int(FOR_ARRAYS * (default_limit() if limit is None else limit))
        self.used = 0
        self.spilled = 0
        self._folder = folder

    def tensor(self, *shape: int) -> torch.Tensor:
        """An uninitialised float32 tensor on the cpu, memory-mapped where it would exceed the limit.

        Its memory counts until the last view of it is gone.

        Raises:
            MemoryLimitError: it would need a file that the disk has no room for.
        """
        size = 4 * int(np.prod(shape, dtype=np.int64))
        if size <= ALWAYS or self.used + size <= self.limit:
            array: npt.NDArray[np.float32] = np.empty(shape, np.float32)
            self.used += size
            weakref.finalize(array, self._give_back, size)
        else:
            array = self._mapped(shape, size)
        return torch.from_numpy(array)

    def _give_back(self, size: int) -> None:
        self.used -= size

    def _mapped(self, shape: tuple[int, ...], size: int) -> npt.NDArray[np.float32]:
        """An array in a file that is gone from the folder as soon as it is mapped: no kill can leave it behind."""
        folder = self._folder or Path(tempfile.gettempdir())
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if size > free:
            raise MemoryLimitError(
                f"memory_limit: {size / 2**30:.1f} GB of features found, {self.limit / 2**30:.1f} GB allowed here, "
                f"{free / 2**30:.1f} GB free for a file in {folder}; expected room in one of them."
            )
        handle, name = tempfile.mkstemp(dir=folder, prefix="features-", suffix=".f32")
        try:
            # Room is reserved now: a disk that fills up later would end the process with a signal.
            _reserve(handle, size)
            mapped: Any = np.memmap(name, np.float32, "r+", shape=shape)
        except OSError as error:
            raise MemoryLimitError(f"memory_limit: {name}: can't be written ({error.strerror}).") from error
        finally:
            os.close(handle)
            # Windows keeps a mapped file; there it goes with its folder, at the end or on the next start.
            with suppress(OSError):
                Path(name).unlink()
        self.spilled += size
        # A plain array over the map: Torch and the compiled kernel then see nothing special.
        return np.asarray(mapped).view(np.ndarray)


def _reserve(handle: int, size: int) -> None:
    if sys.platform != "win32" and hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
    else:
        os.truncate(handle, size)

"""Large arrays within a memory budget: arrays beyond the budget lie in memory-mapped files."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import torch

from harness.common.errors import MemoryLimitError

ARRAY_SHARE = 0.6  # of the limit; stages need the rest for temporary tensors
BYTES = 4  # of a value
DISK_SHARE = 0.5  # of the free disk; larger arrays that can be computed again are not stored
ALWAYS = 2**20  # bytes; arrays up to this size are always in memory


def default_limit() -> int:
    """Half of the available memory, in bytes."""
    return int(psutil.virtual_memory().available) // 2


def room(limit: int | None) -> int:
    """Bytes for arrays in memory.

    Args:
        limit: bytes of memory for features; None for half of the available memory.
    """
    return int(ARRAY_SHARE * (default_limit() if limit is None else limit))


class Memory:
    """Allocates arrays within a budget.

    Args:
        limit: bytes of memory for features; None for half of the available memory. Arrays get `ARRAY_SHARE` of them.
        folder: folder of the memory-mapped files; None for the system's temporary folder.
    """

    def __init__(self, limit: int | None, folder: Path | None = None) -> None:
        self.limit = room(limit)
        self.used = 0
        self.spilled = 0
        self._folder = folder

    def tensor(self, *shape: int) -> torch.Tensor:
        """Allocate an uninitialised float32 tensor on the cpu; beyond the limit, the tensor is memory-mapped.

        The tensor counts against the limit until its last view is deleted.

        Raises:
            MemoryLimitError: the disk has no room for the file.
        """
        size = _size(shape)
        if self.has_room(*shape):
            array: npt.NDArray[np.float32] = np.empty(shape, np.float32)
            self.used += size
            weakref.finalize(array, self._release, size)
        else:
            array = self._mapped(shape, size)
        return torch.from_numpy(array)

    def has_room(self, *shape: int) -> bool:
        """Whether an array of this shape would lie in memory, and not in a file."""
        size = _size(shape)
        return size <= ALWAYS or self.used + size <= self.limit

    def is_worth_storing(self, *shape: int) -> bool:
        """Whether memory has room for an array of this shape, or a file of it would leave enough of the disk free."""
        return self.has_room(*shape) or _size(shape) <= DISK_SHARE * self._free()[1]

    def _free(self) -> tuple[Path, int]:
        """The folder of the files, and the free bytes of its disk."""
        folder = self._folder or Path(tempfile.gettempdir())
        folder.mkdir(parents=True, exist_ok=True)
        return folder, shutil.disk_usage(folder).free

    def _release(self, size: int) -> None:
        self.used -= size

    def _mapped(self, shape: tuple[int, ...], size: int) -> npt.NDArray[np.float32]:
        """An array in a file. The file is deleted right after it is mapped, so a killed process leaves no file."""
        folder, free = self._free()
        if size > free:
            raise MemoryLimitError(
                f"memory_limit: {size / 1e9:.1f} GB of features exceed {self.limit / 1e9:.1f} GB for arrays and "
                f"{free / 1e9:.1f} GB free in {folder}; expected room in one of them. Raise memory_limit, "
                "free the disk, or take a smaller image_size."
            )
        handle, name = tempfile.mkstemp(dir=folder, prefix="features-", suffix=".f32")
        try:
            # The blocks are reserved now: a disk that fills up later would end the process with a signal.
            _reserve(handle, size)
            mapped: Any = np.memmap(name, np.float32, "r+", shape=shape)
        except OSError as error:
            raise MemoryLimitError(f"memory_limit: {name}: can't be written ({error.strerror}).") from error
        finally:
            os.close(handle)
            # Windows can't delete a mapped file. The owner of the folder deletes it at the end or on the next start.
            with suppress(OSError):
                Path(name).unlink()
        self.spilled += size
        # Torch and the compiled kernel expect a plain array, not a `memmap`.
        return np.asarray(mapped).view(np.ndarray)


def _size(shape: Sequence[int]) -> int:
    """Bytes of a float32 array."""
    return BYTES * int(np.prod(shape, dtype=np.int64))


def _reserve(handle: int, size: int) -> None:
    if sys.platform != "win32" and hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
    else:
        os.truncate(handle, size)

"""Results of costly stages, kept between sweeps: a folder of files, each checked when it is read.

A key names everything that a result depends on, so an entry never goes stale. Files appear whole or not at all, and
the least recently used go first when the folder outgrows its limit.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from harness.errors import StoreError

SUFFIX = ".safetensors"
Arrays = dict[str, npt.NDArray[Any]]


class StageCache:
    """A folder of results.

    Args:
        folder: made if it does not exist.
        limit: bytes.
        warn: told what was dropped because it was damaged.

    Raises:
        StoreError: the folder can't be made or written to.
    """

    def __init__(self, folder: Path, limit: int, warn: Callable[[str], None]) -> None:
        self._folder, self._limit, self._warn = folder, limit, warn
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise StoreError(f"cache: can't write to {folder.absolute()} ({error.strerror}).") from error

    def get(self, key: Mapping[str, Any]) -> tuple[Arrays, float] | None:
        """The arrays under a key, and the seconds they once took; None if there are none."""
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                about = file.metadata() or {}
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            if about["digest"] != _digest(arrays):
                raise ValueError("its contents have changed")
            seconds = float(about["seconds"])
        # Whatever is wrong with the file, it is no use; it is made again.
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            self._warn(f"cache: {path.name} is damaged ({error}); dropped and computed again.")
            path.unlink(missing_ok=True)
            return None
        with suppress(OSError):
            os.utime(path)
        return arrays, seconds

    def put(self, key: Mapping[str, Any], arrays: Arrays, seconds: float) -> None:
        """Keep arrays, and drop the least recently used if the folder has become too large."""
        about = {"digest": _digest(arrays), "seconds": repr(seconds), "key": json.dumps(key, sort_keys=True)}
        size = sum(array.nbytes for array in arrays.values())
        if size > self._limit:
            self._warn(f"cache: a result of {size / 2**30:.2f} GB is larger than cache_limit and was not kept.")
            return
        handle, scratch = tempfile.mkstemp(dir=self._folder, suffix=".tmp")
        os.close(handle)
        try:
            save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, scratch, about)
            Path(scratch).replace(self._path(key))
        except (OSError, SafetensorError) as error:
            # The result itself is safe; only the next sweep is slower.
            self._warn(f"cache: can't write to {self._folder} ({error}); the result was not kept.")
        finally:
            Path(scratch).unlink(missing_ok=True)
        self._shrink()

    def _path(self, key: Mapping[str, Any]) -> Path:
        name = sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
        return self._folder / f"{key['stage']}-{name}{SUFFIX}"

    def _shrink(self) -> None:
        entries = []
        for path in self._folder.glob(f"*{SUFFIX}"):
            # Another process may drop it at the same moment.
            with suppress(FileNotFoundError):
                stat = path.stat()
                entries.append((stat.st_mtime_ns, stat.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self._limit:
                break
            path.unlink(missing_ok=True)
            total -= size


def _digest(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    digest = sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()

"""A cache of the results of costly stages: a folder of files that later sweeps read.

A key holds everything that a result depends on, so an entry never becomes outdated. A file is written completely and
then renamed; a digest is checked on every read. Above the size limit, the least recently used files are deleted.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from harness.common.files import make_folder

SUFFIX = ".safetensors"
UNFINISHED = ".tmp"
ABANDONED = 3600.0  # seconds; the writer of an older unfinished file is dead
PIECE = 2**24  # bytes of one read
Arrays = dict[str, npt.NDArray[Any]]
Tensors = dict[str, torch.Tensor]
Allocate = Callable[..., torch.Tensor]


class StageCache:
    """A folder of results.

    Args:
        folder: folder of the files; created if missing.
        limit: largest size of all files in bytes.
        warn: called with a text when a file is damaged or can't be written.

    Raises:
        StoreError: the folder can't be created or written to.
    """

    def __init__(self, folder: Path, limit: int, warn: Callable[[str], None]) -> None:
        self._folder, self._limit, self._warn = folder, limit, warn
        make_folder(folder, "cache")

    def get(self, key: Mapping[str, Any], allocate: Allocate = torch.empty) -> tuple[Tensors, float] | None:
        """Read the entry of a key.

        Args:
            key: key of the entry, as in `put`.
            allocate: returns an uninitialised float32 tensor of a shape.

        Returns:
            The tensors by name, and the seconds of their computation; None without a valid entry.
        """
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                tensors, digest = _read(file, allocate)
            if metadata["digest"] != digest:
                raise ValueError("its contents have changed")
            seconds = float(metadata["seconds"])
        # Any fault makes the file useless; the stage computes the result again.
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            self._warn(f"cache: {path.name} is damaged ({error}); it was deleted, the result is computed again.")
            _delete(path)
            return None
        with suppress(OSError):
            os.utime(path)
        return tensors, seconds

    def put(self, key: Mapping[str, Any], arrays: Arrays, seconds: float) -> None:
        """Write an entry, and delete the least recently used entries above the size limit.

        Args:
            key: everything that the result depends on, as JSON values; `stage` names the stage.
            arrays: the result, arrays by name.
            seconds: duration of the computation.
        """
        metadata = {"digest": _digest(arrays), "seconds": repr(seconds), "key": json.dumps(key, sort_keys=True)}
        size = sum(array.nbytes for array in arrays.values())
        if size > self._limit:
            self._warn(f"cache: a result of {size / 1e9:.2f} GB is larger than cache_limit and was not kept.")
            return
        scratch = self._folder / f"{uuid4().hex}{UNFINISHED}"
        try:
            save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, scratch, metadata)
            scratch.replace(self._path(key))
        except (OSError, SafetensorError) as error:
            # The result is still in memory; only the next sweep is slower.
            self._warn(f"cache: can't write to {self._folder} ({error}); the result was not kept.")
            _delete(scratch)
        self._shrink()

    def _path(self, key: Mapping[str, Any]) -> Path:
        name = sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
        return self._folder / f"{key['stage']}-{name}{SUFFIX}"

    def _shrink(self) -> None:
        for path in self._folder.glob(f"*{UNFINISHED}"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > ABANDONED:
                    _delete(path)
        entries = []
        for path in self._folder.glob(f"*{SUFFIX}"):
            # Another process may delete the file at the same moment.
            with suppress(FileNotFoundError):
                stat = path.stat()
                entries.append((stat.st_mtime_ns, stat.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self._limit:
                break
            _delete(path)
            total -= size


def _delete(path: Path) -> None:
    # Another process may have deleted the file. On Windows, a reader of the file prevents its deletion.
    with suppress(OSError):
        path.unlink()


def _read(file: Any, allocate: Allocate) -> tuple[Tensors, str]:
    """The tensors of a file and their digest. Only one piece is in memory beside the result."""
    digest = sha256()
    tensors: Tensors = {}
    for name in sorted(file.keys()):
        stored = file.get_slice(name)
        shape = tuple(stored.get_shape())
        first = torch.from_numpy(stored[0:1])
        tensors[name] = allocate(*shape) if first.dtype == torch.float32 else torch.empty(shape, dtype=first.dtype)
        digest.update(_header(name, first.numpy(), shape))
        step = max(1, PIECE // max(1, first.nbytes))
        for begin in range(0, shape[0], step):
            piece = np.ascontiguousarray(stored[begin : min(begin + step, shape[0])])
            digest.update(piece.reshape(-1).view(np.uint8).data)
            tensors[name][begin : begin + step] = torch.from_numpy(piece)
    return tensors, digest.hexdigest()


def _digest(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    digest = sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(_header(name, array, array.shape))
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _header(name: str, array: npt.NDArray[Any], shape: tuple[int, ...]) -> bytes:
    return f"{name} {array.dtype} {shape}".encode()

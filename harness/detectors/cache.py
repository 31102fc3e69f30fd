"""Results of costly stages, kept between sweeps: a folder of files, each checked when it is read.

A key names everything that a result depends on, so an entry never goes stale. Files appear whole or not at all, and
the least recently used go first when the folder outgrows its limit.
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
ABANDONED = 3600.0  # seconds after which an unfinished file is a dead process's
PIECE = 2**24  # bytes that are read at a time
Arrays = dict[str, npt.NDArray[Any]]
Tensors = dict[str, torch.Tensor]
Room = Callable[..., torch.Tensor]


class StageCache:
    """A folder of results.

    Args:
        folder: made if it does not exist.
        limit: bytes that it may take.
        warn: told what was dropped because it was damaged.

    Raises:
        StoreError: the folder can't be made or written to.
    """

    def __init__(self, folder: Path, limit: int, warn: Callable[[str], None]) -> None:
        self._folder, self._limit, self._warn = folder, limit, warn
        make_folder(folder, "cache")

    def get(self, key: Mapping[str, Any], room: Room = torch.empty) -> tuple[Tensors, float] | None:
        """What is kept under a key, and the seconds it once took; None if there is nothing.

        Args:
            key: of `put`.
            room: makes uninitialised float32 tensors of a shape, within whatever budget there is.
        """
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                about = file.metadata() or {}
                tensors, digest = _read(file, room)
            if about["digest"] != digest:
                raise ValueError("its contents have changed")
            seconds = float(about["seconds"])
        # Whatever is wrong with the file, it is no use; it is made again.
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            self._warn(f"cache: {path.name} is damaged ({error}); dropped and computed again.")
            _drop(path)
            return None
        with suppress(OSError):
            os.utime(path)
        return tensors, seconds

    def put(self, key: Mapping[str, Any], arrays: Arrays, seconds: float) -> None:
        """Keep arrays, and drop the least recently used if the folder has become too large."""
        about = {"digest": _digest(arrays), "seconds": repr(seconds), "key": json.dumps(key, sort_keys=True)}
        size = sum(array.nbytes for array in arrays.values())
        if size > self._limit:
            self._warn(f"cache: a result of {size / 2**30:.2f} GB is larger than cache_limit and was not kept.")
            return
        scratch = self._folder / f"{uuid4().hex}{UNFINISHED}"
        try:
            save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, scratch, about)
            scratch.replace(self._path(key))
        except (OSError, SafetensorError) as error:
            # The result itself is safe; only the next sweep is slower.
            self._warn(f"cache: can't write to {self._folder} ({error}); the result was not kept.")
            _drop(scratch)
        self._shrink()

    def _path(self, key: Mapping[str, Any]) -> Path:
        name = sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
        return self._folder / f"{key['stage']}-{name}{SUFFIX}"

    def _shrink(self) -> None:
        for path in self._folder.glob(f"*{UNFINISHED}"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > ABANDONED:
                    _drop(path)
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
            _drop(path)
            total -= size


def _drop(path: Path) -> None:
    # Another process may have dropped it, or may be reading it on a system that then keeps it.
    with suppress(OSError):
        path.unlink()


def _read(file: Any, room: Room) -> tuple[Tensors, str]:
    """Everything in a file, piece by piece into its place, and its digest."""
    digest = sha256()
    tensors: Tensors = {}
    for name in sorted(file.keys()):
        part = file.get_slice(name)
        shape = tuple(part.get_shape())
        first = torch.from_numpy(part[0:1])
        tensors[name] = room(*shape) if first.dtype == torch.float32 else torch.empty(shape, dtype=first.dtype)
        digest.update(_header(name, first.numpy(), shape))
        step = max(1, PIECE // max(1, first.nbytes))
        for begin in range(0, shape[0], step):
            piece = np.ascontiguousarray(part[begin : min(begin + step, shape[0])])
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

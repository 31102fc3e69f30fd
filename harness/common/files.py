"""Files and folders, written so that a kill or a full disk leaves none half-written."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import file_digest
from pathlib import Path

from filelock import FileLock, Timeout

from harness.common.errors import StoreError

LOCK = ".lock"


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader, or the next start after a kill, finds the old or the new one, never a part.

    Raises:
        StoreError: the folder can't be written to.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(scratch).chmod(0o644)
            Path(scratch).replace(path)
        except BaseException:
            Path(scratch).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StoreError(f"{path}: can't be written ({error.strerror}).") from error


def make_folder(folder: Path, what: str, advice: str = "") -> None:
    """Make a folder if it is not there, and see that it can be written to.

    Args:
        folder: where.
        what: the setting that names it.
        advice: what to do if it can't be written to.

    Raises:
        StoreError: it can't.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StoreError(
            f"{what}: can't write to {folder.absolute()} ({error.strerror}); expected a folder that may be written to."
            + advice
        ) from error


@contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A folder that goes when it is left; those that killed processes left behind go before.

    Args:
        parent: the folder that it is made in.
        prefix: how its name begins; hidden.
    """
    for left in parent.glob(f"{prefix}*"):
        lock = FileLock(left / LOCK)
        with suppress(Timeout, OSError), lock.acquire(timeout=0):
            shutil.rmtree(left, ignore_errors=True)
    made = tempfile.TemporaryDirectory(dir=parent, prefix=prefix, ignore_cleanup_errors=True)
    # The system frees the lock on any death.
    with made as scratch, FileLock(Path(scratch) / LOCK):
        yield Path(scratch)


@cache
def _hash(path: str, _size: int, _mtime: int) -> str:
    with Path(path).open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def file_hash(path: Path) -> str:
    """sha256 of a file's contents."""
    stat = path.stat()
    return _hash(str(path), stat.st_size, stat.st_mtime_ns)

"""Files and folders; a killed process or a full disk leaves no half-written file."""

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
    """Write a file at once: every reader finds the old content or the new content, and never a half of it.

    Args:
        path: of the file; its folder exists.
        content: the new content; text is written as UTF-8.

    Raises:
        StoreError: the file can't be written.
    """
    with replacement(path) as scratch:
        scratch.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def replacement(path: Path) -> Iterator[Path]:
    """An empty file that replaces another file at the end. After an error the other file stays as it is.

    Args:
        path: of the file to replace; its folder exists.

    Yields:
        The path of the empty file.

    Raises:
        StoreError: the file can't be written.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        scratch = Path(name)
        try:
            yield scratch
            os.fsync(handle)
            scratch.chmod(0o644)
            scratch.replace(path)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)
    except OSError as error:
        raise StoreError(f"{path}: can't be written ({error.strerror}).") from error


def make_folder(folder: Path, key: str, advice: str = "") -> None:
    """Make a folder where it is missing, and check that it is writable.

    Args:
        folder: its path.
        key: the key of the config, or the option, that names the folder.
        advice: the last sentence of the error message, with a space in front.

    Raises:
        StoreError: the folder can't be made or is not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StoreError(
            f"{key}: can't write to {folder.absolute()} ({error.strerror}); expected a writable folder." + advice
        ) from error


@contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A temporary folder, removed at the end. Earlier folders of killed processes are removed at the start.

    Args:
        parent: the folder for the temporary folder.
        prefix: the start of its name; it begins with a dot, so that the folder is hidden.
    """
    for abandoned in parent.glob(f"{prefix}*"):
        lock = FileLock(abandoned / LOCK)
        with suppress(Timeout, OSError), lock.acquire(timeout=0):
            shutil.rmtree(abandoned, ignore_errors=True)
    temporary = tempfile.TemporaryDirectory(dir=parent, prefix=prefix, ignore_cleanup_errors=True)
    # The system frees the lock when the process dies.
    with temporary as scratch, FileLock(Path(scratch) / LOCK):
        yield Path(scratch)


@cache
def _hash(path: str, _size: int, _mtime: int) -> str:
    with Path(path).open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def file_hash(path: Path) -> str:
    """sha256 of a file's content, computed once a process for each size and modification time."""
    stat = path.stat()
    return _hash(str(path), stat.st_size, stat.st_mtime_ns)

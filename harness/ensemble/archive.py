"""An archive of files, written in one pass and checked by reading it again."""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from harness.common.errors import StoreError
from harness.common.reading import MB

LEVEL = 1  # of the compression: maps hold noise, so a higher level takes longer and saves little
SHOWN = 5  # problems in an error message

Add = Callable[[str, bytes], None]


@contextmanager
def tar_gz(file: Path) -> Iterator[Add]:
    """Write a .tar.gz archive. Equal files give an equal archive: it holds no times and no owners.

    Args:
        file: path of the archive.

    Yields:
        A function that adds a file: its path in the archive, and its content.
    """
    with (
        file.open("wb") as raw,
        gzip.GzipFile("", "wb", LEVEL, raw, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as archive,
    ):

        def add(name: str, content: bytes) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))

        yield add


def check_archive(
    file: Path, sizes: Mapping[str, tuple[int, int]], problem: Callable[[str, bytes, tuple[int, int]], str]
) -> None:
    """Read an archive again, and check that it has the expected files and no others.

    Args:
        file: path of the archive.
        sizes: (height, width) of each expected file, by its path in the archive.
        problem: gives a sentence about a wrong file, or an empty text, from its path, content and size.

    Raises:
        StoreError: a file is missing, unexpected or wrong, or the archive can't be read.
    """
    problems: list[str] = []
    names: set[str] = set()
    try:
        for name, content in _read(file):
            if name not in sizes or name in names:
                problems.append(f"{name}: an unexpected file found.")
                continue
            names.add(name)
            if sentence := problem(name, content, sizes[name]):
                problems.append(sentence)
    except (tarfile.TarError, zlib.error, EOFError, ValueError, OSError) as error:
        problems.append(f"{file}: can't be read again ({error}).")
    problems += [f"{name}: nothing found; expected a file." for name in sizes if name not in names]
    if problems:
        more = [f"{len(problems) - SHOWN} more files are wrong."] if len(problems) > SHOWN else []
        raise StoreError([*problems[:SHOWN], *more, "The archive was not written. Check the disk and try again."])


def _read(file: Path) -> Iterator[tuple[str, bytes]]:
    """The path and the content of each file of an archive."""
    with gzip.open(file) as zipped:
        with tarfile.open(fileobj=zipped, mode="r|") as archive:
            for member in archive:
                stream = archive.extractfile(member)
                yield member.name, b"" if stream is None else stream.read()
        # The checksum comes after the padding.
        while zipped.read(MB):
            pass

"""What travels between machines: the files of a run back to the sweep, and with --ship-data the images out."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from harness.backends.base import AnySplit
from harness.datasets.base import Sample, Split
from harness.datasets.labelled import LabelledSplit
from harness.errors import DataError


def pack(folder: Path) -> bytes:
    """Everything in a folder."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.add(folder, arcname=".")
    return stream.getvalue()


def unpack(packed: bytes, folder: Path) -> None:
    """Into an empty folder; nothing can leave it."""
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")


def files_of(split: AnySplit) -> list[str]:
    """All images and masks."""
    if isinstance(split, LabelledSplit):
        return list(dict.fromkeys(sample.path for sample in (*split.train, *split.test)))
    samples = (*split.train, *split.val, *split.test)
    return list(dict.fromkeys(path for sample in samples for path in (sample.path, sample.mask) if path))


def unreadable(split: AnySplit) -> str | None:
    """The first file that is not there, None if all are."""
    return next((path for path in files_of(split) if not Path(path).is_file()), None)


def read_files(paths: Iterable[str]) -> dict[str, bytes]:
    """Their contents.

    Raises:
        DataError: one can't be read.
    """
    found = {}
    for path in paths:
        try:
            found[path] = Path(path).read_bytes()
        except OSError as error:
            raise DataError(f"{path}: can't be read ({error.strerror}).") from error
    return found


def laid_out(split: AnySplit, contents: Mapping[str, bytes], folder: Path) -> AnySplit:
    """The split with its files in a folder of this machine; those that are there already are left alone.

    Args:
        split: whose paths are of another machine.
        contents: by path.
        folder: where the files go.
    """

    def here(path: str) -> str:
        return str(folder / f"{sha256(path.encode()).hexdigest()[:16]}{Path(path).suffix}")

    folder.mkdir(parents=True, exist_ok=True)
    for path, content in contents.items():
        target = Path(here(path))
        if not target.is_file() or target.stat().st_size != len(content):
            scratch = target.with_name(f".{target.name}.{id(content)}")
            scratch.write_bytes(content)
            scratch.replace(target)
    if isinstance(split, LabelledSplit):
        train, test = (tuple(replace(s, path=here(s.path)) for s in part) for part in (split.train, split.test))
        return replace(split, train=train, test=test)
    assert isinstance(split, Split)

    def moved(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
        return tuple(replace(s, path=here(s.path), mask=here(s.mask) if s.mask else None) for s in samples)

    return replace(split, train=moved(split.train), val=moved(split.val), test=moved(split.test))

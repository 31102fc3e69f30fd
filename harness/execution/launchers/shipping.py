"""What travels between machines: the files of a run back to the sweep, and with --ship-data the images out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path, PurePosixPath

from harness.backends.base import AnySplit
from harness.common.errors import DataError, StoreError
from harness.data.base import Sample, Split
from harness.data.labelled.base import LabelledSplit

# Files of a run, by their path in its folder.
Packed = dict[str, bytes]


def pack(folder: Path) -> Packed:
    """Everything in a folder."""
    return {
        file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()
    }


def unpack(packed: Packed, folder: Path) -> None:
    """Into an empty folder.

    Raises:
        StoreError: a file would lie outside it.
    """
    for name, content in packed.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise StoreError(f"{folder}: a node sent a file for {name}; expected one in the run's folder.")
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


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

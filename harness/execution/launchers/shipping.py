"""Files that travel between machines: those of a run to the sweep, and with --ship-data the images to the nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path, PurePosixPath

from harness.backends.base import AnySplit
from harness.common.errors import DataError, StoreError
from harness.data.labelled.base import LabelledSplit
from harness.data.samples import Sample, Split

# Files of a run, by their path in its folder.
Packed = dict[str, bytes]


def pack(folder: Path) -> Packed:
    """Read all files of a folder."""
    return {
        file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()
    }


def unpack(packed: Packed, folder: Path) -> None:
    """Write files into an empty folder.

    Args:
        packed: contents by relative path.
        folder: the folder.

    Raises:
        StoreError: a path leads out of the folder.
    """
    for name, content in packed.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise StoreError(f"{folder}: a node sent a file for {name}; expected a path in the run's folder.")
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def files_of(split: AnySplit) -> list[str]:
    """Paths of all images and masks."""
    if isinstance(split, LabelledSplit):
        return list(dict.fromkeys(sample.path for sample in (*split.train, *split.test)))
    samples = (*split.train, *split.val, *split.test)
    return list(dict.fromkeys(path for sample in samples for path in (sample.path, *sample.masks)))


def unreadable(split: AnySplit) -> str | None:
    """Path of the first missing file; None if all files exist."""
    return next((path for path in files_of(split) if not Path(path).is_file()), None)


def read_files(paths: Iterable[str]) -> dict[str, bytes]:
    """Read files.

    Returns:
        Contents by path.

    Raises:
        DataError: a file can't be read.
    """
    contents = {}
    for path in paths:
        try:
            contents[path] = Path(path).read_bytes()
        except OSError as error:
            raise DataError(f"{path}: can't be read ({error.strerror}).") from error
    return contents


def laid_out(split: AnySplit, contents: Mapping[str, bytes], folder: Path) -> AnySplit:
    """Write the files of a split into a folder of this machine. Files that exist with the same size are kept.

    Args:
        split: a split with paths of another machine.
        contents: contents by path.
        folder: the folder.

    Returns:
        The split with paths in the folder.
    """

    def local(path: str) -> str:
        return str(folder / f"{sha256(path.encode()).hexdigest()[:16]}{Path(path).suffix}")

    folder.mkdir(parents=True, exist_ok=True)
    for path, content in contents.items():
        target = Path(local(path))
        if not target.is_file() or target.stat().st_size != len(content):
            scratch = target.with_name(f".{target.name}.{id(content)}")
            scratch.write_bytes(content)
            scratch.replace(target)
    if isinstance(split, LabelledSplit):
        train, test = (tuple(replace(s, path=local(s.path)) for s in role) for role in (split.train, split.test))
        return replace(split, train=train, test=test)
    assert isinstance(split, Split)

    def relocated(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
        return tuple(replace(s, path=local(s.path), masks=tuple(map(local, s.masks))) for s in samples)

    def whole(one: Split) -> Split:
        train, val, test = (relocated(role) for role in (one.train, one.val, one.test))
        return replace(one, train=train, val=val, test=test, parts=tuple(map(whole, one.parts)))

    return whole(split)

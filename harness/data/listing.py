"""The image files and folders below a folder, without those that operating systems and network storage create."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from harness.common.errors import DataError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
# Folders that network storage, operating systems and editors create; hidden folders are ignored too.
LEFTOVERS = {
    "@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot", "$recycle.bin", "__macosx",
    "__pycache__", "lost+found", "recycler", "system volume information",
}  # fmt: skip


def list_images(folder: Path, extensions: tuple[str, ...] = EXTENSIONS) -> list[Path]:
    """All images below a folder, sorted.

    Args:
        folder: links in it are followed; hidden files and folders, and `LEFTOVERS`, are ignored.
        extensions: of images, in lower case with a dot.

    Raises:
        DataError: a folder can't be read.
    """
    images = [
        file.path
        for file in _files(str(folder), ())
        if not file.name.startswith(".") and file.name.lower().endswith(extensions) and _is_file(file)
    ]
    # The order of `Path`, folder by folder. It decides which images a share takes for the test.
    return [Path(image) for image in sorted(images, key=lambda image: os.path.normcase(image).replace(os.sep, "\0"))]


def name_in(path: Path, folder: Path) -> str:
    """A path relative to a folder, with forward slashes. `Path.relative_to` takes several times as long.

    Args:
        path: below the folder.
        folder: absolute, or relative to the same folder as `path`.

    Raises:
        ValueError: the path is not below the folder.
    """
    text, start = path.as_posix(), f"{folder.as_posix()}/"
    return text.removeprefix(start) if text.startswith(start) else path.relative_to(folder).as_posix()


def stem_of(path: Path) -> str:
    """A path without its last suffix, with forward slashes."""
    return path.as_posix().removesuffix(path.suffix)


def _files(folder: str, above: tuple[tuple[int, int], ...]) -> Iterator[os.DirEntry[str]]:
    """All files below a folder. A link to one of the folders above ends there."""
    try:
        status = Path(folder).stat()
        entries = list(os.scandir(folder))
    except OSError as error:
        raise DataError(f"{folder}: can't be read ({error.strerror}).") from error
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    for entry in entries:
        if not _is_folder(entry):
            yield entry
        elif not is_leftover(entry.name):
            yield from _files(entry.path, (*above, identity))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    # The system says what a file is as it lists the folder, but not what a link leads to.
    return Path(entry.path).is_file() if entry.is_symlink() else entry.is_file()


def is_leftover(name: str) -> bool:
    """Whether a folder is hidden, a recycle bin, or created by network storage, and holds no images of the user."""
    return name.startswith(".") or name.lower() in LEFTOVERS


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in `folder` that may hold images, sorted."""
    return sorted(path.name for path in folder.iterdir() if not is_leftover(path.name) and path.is_dir())

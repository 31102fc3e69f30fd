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
    return sorted(
        path
        for parent, names in _walk(str(folder), ())
        for name in names
        if not name.startswith(".") and (path := Path(parent, name)).suffix.lower() in extensions and path.is_file()
    )


def _walk(folder: str, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, list[str]]]:
    """Each folder with the names of its files. A link to one of the folders above ends there."""
    try:
        status = Path(folder).stat()
        entries = list(os.scandir(folder))
    except OSError as error:
        raise DataError(f"{folder}: can't be read ({error.strerror}).") from error
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    yield folder, [entry.name for entry in entries if not _is_folder(entry)]
    for entry in entries:
        if _is_folder(entry) and not is_leftover(entry.name):
            yield from _walk(entry.path, (*above, identity))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_leftover(name: str) -> bool:
    """Whether a folder is hidden, a recycle bin, or created by network storage, and holds no images of the user."""
    return name.startswith(".") or name.lower() in LEFTOVERS


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in `folder` that may hold images, sorted."""
    return sorted(path.name for path in folder.iterdir() if not is_leftover(path.name) and path.is_dir())

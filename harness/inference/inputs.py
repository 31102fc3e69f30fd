"""Names on the command line -> paths of images."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.common.errors import DataError
from harness.data.listing import EXTENSIONS, list_images

STDIN = "-"


def images_named(names: Sequence[str], listed: Iterable[str], recursive: bool, apart: Path | None = None) -> list[Path]:
    """List images in the order of their names, each once.

    A folder stands for its images, sorted. A pattern (`*`, `?`, `[...]`, `**`) stands for its matches, sorted. `-`
    stands for the lines of `listed`. A file with any suffix is accepted, even a missing one: its row has the error.

    Args:
        names: files, folders, patterns or `-`.
        listed: lines with one path each, for `-`.
        recursive: whether images in subfolders count too.
        apart: a folder, such as one with earlier pictures; folders and patterns skip all images in it.

    Returns:
        Paths of images; a missing file is one of them if a name is its path.

    Raises:
        DataError: a folder has no images, a pattern has no match, or a name is empty; lists all such names.
    """
    images: dict[Path, None] = {}
    problems: list[str] = []
    for name in names:
        try:
            paths = _from_lines(listed, recursive) if name == STDIN else _from_name(name, recursive)
        except DataError as error:
            problems += error.problems
            continue
        if apart is not None and paths != [Path(name)]:
            paths = [path for path in paths if not path.resolve().is_relative_to(apart.resolve())]
        images.update(dict.fromkeys(paths))
    if problems:
        raise DataError(problems)
    return list(images)


def below(names: Sequence[str]) -> int:
    """Count the images in subfolders of the named folders. Only --recursive includes them."""
    folders = [Path(name) for name in names if name and name != STDIN and Path(name).is_dir()]
    return sum(image.parent != folder for folder in folders for image in list_images(folder))


def _from_lines(listed: Iterable[str], recursive: bool) -> list[Path]:
    paths: list[Path] = []
    for line in listed:
        name = line.rstrip("\r\n")
        if name:
            # A line is always a path, because a file's name may look like a pattern.
            paths += _folder(Path(name), recursive) if Path(name).is_dir() else [Path(name)]
    if not paths:
        raise DataError("-: no paths on standard input; expected one path a line.")
    return paths


def _from_name(name: str, recursive: bool) -> list[Path]:
    if not name:
        raise DataError("'': an empty name found; expected an image, a folder, a pattern or -.")
    path = Path(name)
    if path.is_dir():
        return _folder(path, recursive)
    if path.exists() or not glob.has_magic(name):
        return [path]
    # Path.glob takes no absolute patterns.
    matches = sorted(Path(match) for match in glob.glob(name, recursive=True))  # noqa: PTH207
    images = [path for path in matches if path.is_file() and path.suffix.lower() in EXTENSIONS]
    if not images:
        problem = f"{len(matches)} matches, none of them an image" if matches else "no match"
        raise DataError(f"{name}: {problem} found; expected images ({', '.join(EXTENSIONS)}).")
    return images


def _folder(path: Path, recursive: bool) -> list[Path]:
    all_images = list_images(path)
    images = all_images if recursive else [image for image in all_images if image.parent == path]
    if not images:
        hint = f" There are {len(all_images)} in folders below it: say --recursive." if all_images else ""
        raise DataError(f"{path}: no images found in this folder ({', '.join(EXTENSIONS)}).{hint}")
    return images

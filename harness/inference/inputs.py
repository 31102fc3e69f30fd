"""What is named on the command line -> the images that are meant."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.common.errors import DataError
from harness.data.images import EXTENSIONS, list_images

STDIN = "-"


def images_named(names: Sequence[str], listed: Iterable[str], recursive: bool, apart: Path | None = None) -> list[Path]:
    """Images in the order in which they are named, each once.

    A folder is all images in it, sorted; a pattern (`*`, `?`, `[...]`, `**`) what it matches, sorted; `-` the lines of
    `listed`. A file that is named is taken as it is, whatever its suffix, and even if it is missing: that is told with
    its result.

    Args:
        names: files, folders, patterns or `-`.
        listed: lines with a path each, for `-`.
        recursive: take what is below a folder too.
        apart: a folder, such as that of earlier pictures, of which folders and patterns take nothing.

    Raises:
        DataError: a folder has no images, a pattern matches nothing, or a name is empty; all such names at once.
    """
    found: dict[Path, None] = {}
    problems: list[str] = []
    for name in names:
        try:
            taken = _lines(listed, recursive) if name == STDIN else _named(name, recursive)
        except DataError as error:
            problems += error.problems
            continue
        beside = apart is not None and taken != [Path(name)]
        found.update(dict.fromkeys(path for path in taken if not (beside and _is_below(path, apart))))
    if problems:
        raise DataError(problems)
    return list(found)


def below(names: Sequence[str]) -> int:
    """How many images there are in folders below those that are named, which only --recursive takes."""
    folders = [Path(name) for name in names if name and name != STDIN and Path(name).is_dir()]
    return sum(image.parent != folder for folder in folders for image in list_images(folder))


def _is_below(path: Path, folder: Path | None) -> bool:
    return folder is not None and path.resolve().is_relative_to(folder.resolve())


def _lines(listed: Iterable[str], recursive: bool) -> list[Path]:
    found = []
    for line in listed:
        name = line.rstrip("\r\n")
        if name:
            # A line is a path: what looks like a pattern may be a file's name.
            found += _folder(Path(name), recursive) if Path(name).is_dir() else [Path(name)]
    if not found:
        raise DataError("-: no paths on standard input; expected one a line.")
    return found


def _named(name: str, recursive: bool) -> list[Path]:
    if not name:
        raise DataError("'': an empty name found; expected an image, a folder, a pattern or -.")
    path = Path(name)
    if path.is_dir():
        return _folder(path, recursive)
    if path.exists() or not glob.has_magic(name):
        return [path]
    # Path.glob takes no absolute patterns.
    matches = sorted(Path(one) for one in glob.glob(name, recursive=True))  # noqa: PTH207
    images = [path for path in matches if path.is_file() and path.suffix.lower() in EXTENSIONS]
    if not images:
        found = f"{len(matches)} matches, none of them an image" if matches else "no match"
        raise DataError(f"{name}: {found} found; expected images ({', '.join(EXTENSIONS)}).")
    return images


def _folder(path: Path, recursive: bool) -> list[Path]:
    everything = list_images(path)
    images = everything if recursive else [image for image in everything if image.parent == path]
    if not images:
        below = f" There are {len(everything)} in folders below it: say --recursive." if everything else ""
        raise DataError(f"{path}: no images found in this folder ({', '.join(EXTENSIONS)}).{below}")
    return images

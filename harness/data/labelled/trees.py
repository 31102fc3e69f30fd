"""Labels from where images lie: MVTec AD's tree, or a folder for each label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.common.errors import DataError
from harness.data.base import GOOD
from harness.data.images import EXTENSIONS, list_images, subfolders
from harness.data.labelled.base import SEPARATOR, LabelledSample, LabelledSampleLists, listed, split_label
from harness.data.mvtec import find_categories, load_tree

TRAIN, TEST = "train", "test"


def folders_below(root: Path) -> list[Path]:
    """Folders, without hidden ones, by name."""
    return [root / name for name in subfolders(root)]


def is_mvtec(root: Path) -> bool:
    """Whether there is a train/good, or one in a folder below."""
    return (root / TRAIN / GOOD).is_dir() or any((path / TRAIN / GOOD).is_dir() for path in folders_below(root))


def mvtec(root: Path) -> LabelledSampleLists:
    """Every image of the tree, normal training images too, as class-state."""
    samples: list[LabelledSample] = []
    problems: list[str] = []
    for category in find_categories(root):
        try:
            found = load_tree(root, category)
        except DataError as error:
            problems += error.problems
            continue
        part = category or root.name
        samples += [
            sample_of(Path(s.path), root, f"{part}{SEPARATOR}{s.defect}", part, s.defect)
            for s in (*found.train, *found.test)
        ]
    if problems:
        raise DataError(problems)
    return LabelledSampleLists(root, tuple(samples))


def by_folders(root: Path, apart: Path | None) -> LabelledSampleLists:
    """<label>/*.png; or train/<label>/*.png, with test/<label>/*.png or test/*.png to be named.

    Args:
        root: the data's folder.
        apart: a folder of it that is not a label: the images to be named.

    Raises:
        DataError: images lie deeper, so that it is not clear what their label is.
    """
    if (root / TRAIN).is_dir() and folders_below(root / TRAIN):
        return _train_and_test(root, apart)
    train, notes = _labels(root, [path for path in folders_below(root) if path != apart], root)
    return LabelledSampleLists(root, train, notes=notes)


def _train_and_test(root: Path, apart: Path | None) -> LabelledSampleLists:
    train, notes = _labels(root, folders_below(root / TRAIN), root / TRAIN)
    test: tuple[LabelledSample, ...] = ()
    folder = root / TEST
    if apart is None and folder.is_dir():
        if folders_below(folder):
            test, more = _labels(root, folders_below(folder), folder)
            notes = (*notes, *more)
        else:
            test = tuple(sample_of(path, root, "") for path in list_images(folder, EXTENSIONS))
    others = [path.name for path in folders_below(root) if path not in {root / TRAIN, folder, apart}]
    if others:
        notes = (*notes, f"{root}: {listed(others)} lie beside {TRAIN}/ and {TEST}/: left out.")
    return LabelledSampleLists(root, train, test, notes)


def _labels(root: Path, folders: Sequence[Path], above: Path) -> tuple[tuple[LabelledSample, ...], tuple[str, ...]]:
    samples: list[LabelledSample] = []
    empty, deeper = [], []
    for folder in folders:
        images = list_images(folder, EXTENSIONS)
        deeper += [path.relative_to(root).as_posix() for path in images if path.parent != folder]
        part, state = split_label(folder.name)
        samples += [sample_of(path, root, folder.name, part, state) for path in images]
        if not images:
            empty.append(folder.name)
    if deeper:
        raise DataError(
            f"data.root: {len(deeper)} images of {root} lie deeper than a folder for each label ({listed(deeper)}); "
            f"expected <label>/*.png, or {TRAIN}/<label>/*.png."
        )
    loose = [path.name for path in list_images(above, EXTENSIONS) if path.parent == above]
    notes = [f"{len(empty)} folders have no images ({listed(empty)}): no label is made of them."] if empty else []
    if loose:
        notes.append(f"{len(loose)} images lie beside the folders ({listed(loose)}): left out, they have no label.")
    return tuple(samples), tuple(notes)


def sample_of(path: Path, root: Path, label: str, part: str = "", state: str = "") -> LabelledSample:
    """A sample that no table knows of: a submission calls it by its path."""
    name = path.relative_to(root).as_posix()
    return LabelledSample(str(path), name, label, part, state, name)

"""Labels from folders: MVTec AD's tree, or a folder for each label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.common.errors import DataError
from harness.data.base import listed
from harness.data.labelled.base import SEPARATOR, LabelledSample, LabelledSampleLists, split_label
from harness.data.listing import list_images, name_in, subfolders
from harness.data.mvtec import find_categories, load_tree
from harness.data.samples import GOOD

TRAIN, TEST = "train", "test"


def folders_below(root: Path) -> list[Path]:
    """Folders in a folder, without hidden ones, sorted by name."""
    return [root / name for name in subfolders(root)]


def is_mvtec(root: Path) -> bool:
    """Whether a folder, or one of its folders, has a folder train/good."""
    return (root / TRAIN / GOOD).is_dir() or any((path / TRAIN / GOOD).is_dir() for path in folders_below(root))


def mvtec(root: Path) -> LabelledSampleLists:
    """All images of MVTec AD's tree, including normal training images, with labels `class-condition`.

    Raises:
        DataError: all problems of the categories.
    """
    samples: list[LabelledSample] = []
    problems: list[str] = []
    for category in find_categories(root):
        try:
            lists = load_tree(root, category)
        except DataError as error:
            problems += error.problems
            continue
        class_ = category or root.name
        samples += [
            sample_of(Path(s.path), root, f"{class_}{SEPARATOR}{s.defect}", class_, s.defect)
            for s in (*lists.train, *lists.test)
        ]
    if problems:
        raise DataError(problems)
    return LabelledSampleLists(root, tuple(samples))


def by_folders(root: Path, test_dir: Path | None) -> LabelledSampleLists:
    """Images with a folder for each label.

    The tree is <label>/*.png, or train/<label>/*.png with test/<label>/*.png or test/*.png as images to classify.

    Args:
        root: the data's folder.
        test_dir: a folder of images to classify, which is no label; None without one.

    Raises:
        DataError: images lie in deeper folders, so that their label is not clear.
    """
    if (root / TRAIN).is_dir() and folders_below(root / TRAIN):
        return _train_and_test(root, test_dir)
    train, notes = _labels(root, [path for path in folders_below(root) if path != test_dir], root)
    return LabelledSampleLists(root, train, notes=notes)


def _train_and_test(root: Path, test_dir: Path | None) -> LabelledSampleLists:
    train, notes = _labels(root, folders_below(root / TRAIN), root / TRAIN)
    test: tuple[LabelledSample, ...] = ()
    folder = root / TEST
    if test_dir is None and folder.is_dir():
        if folders_below(folder):
            test, more = _labels(root, folders_below(folder), folder)
            notes = (*notes, *more)
        else:
            test = unlabelled(folder, root)
    others = [path.name for path in folders_below(root) if path not in {root / TRAIN, folder, test_dir}]
    if others:
        notes = (*notes, f"{root}: {listed(others)} lie beside {TRAIN}/ and {TEST}/: left out.")
    return LabelledSampleLists(root, train, test, notes)


def _labels(root: Path, folders: Sequence[Path], parent: Path) -> tuple[tuple[LabelledSample, ...], tuple[str, ...]]:
    samples: list[LabelledSample] = []
    empty, deeper = [], []
    for folder in folders:
        images = list_images(folder)
        deeper += [name_in(path, root) for path in images if path.parent != folder]
        class_, condition = split_label(folder.name)
        samples += [sample_of(path, root, folder.name, class_, condition) for path in images]
        if not images:
            empty.append(folder.name)
    if deeper:
        raise DataError(
            f"data.root: {len(deeper)} images of {root} lie deeper than a folder for each label ({listed(deeper)}); "
            f"expected <label>/*.png, or {TRAIN}/<label>/*.png."
        )
    others = [path.name for path in list_images(parent) if path.parent == parent]
    notes = [f"{len(empty)} folders have no images ({listed(empty)}): they give no label."] if empty else []
    if others:
        notes.append(f"{len(others)} images lie beside the folders ({listed(others)}): left out, without a label.")
    return tuple(samples), tuple(notes)


def sample_of(path: Path, root: Path, label: str, class_: str = "", condition: str = "") -> LabelledSample:
    """A sample without a table; its key in a submission is its path.

    Args:
        path: of the image, below `root`.
        root: the data's folder.
        label: class and condition in one text; "" for an unknown label.
        class_: of the image.
        condition: of the image.
    """
    name = name_in(path, root)
    return LabelledSample(str(path), name, label, class_, condition, name)


def unlabelled(folder: Path, root: Path) -> tuple[LabelledSample, ...]:
    """The samples of a folder of images to classify.

    Args:
        folder: below `root`.
        root: the data's folder.
    """
    return tuple(sample_of(path, root, "") for path in list_images(folder))

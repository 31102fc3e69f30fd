"""Kinds of data whose root is one category, or a folder of categories."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from harness.common.errors import DataError, unknown_name
from harness.common.paths import PathText
from harness.data.base import DataOptions, existing_dir, listed
from harness.data.listing import subfolders
from harness.data.samples import SampleLists


class CategoryTree(DataOptions):
    """Options of a kind with a folder for each category.

    Attributes:
        root: the folder of a category, or of several categories.
    """

    # The folders of a category, for messages.
    layout: ClassVar[str]

    root: PathText

    @classmethod
    @abstractmethod
    def is_category(cls, folder: Path) -> bool:
        """Whether a folder is a category of this kind, by the names of its folders."""

    @abstractmethod
    def read(self, base: Path) -> SampleLists:
        """List the samples of the folder of a category.

        Raises:
            DataError: a file or folder is missing, or files do not match.
        """

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether the folder is a category of this layout, or has one."""
        return cls.is_category(root) or bool(cls._found(root))

    @classmethod
    def _found(cls, root: Path) -> list[str]:
        return [name for name in subfolders(root) if cls.is_category(root / name)]

    @property
    def folder(self) -> Path:
        """The absolute path of the root.

        Raises:
            DataError: there is no such folder.
        """
        return existing_dir(Path(self.root), "data.root")

    def categories(self, work_dir: Path) -> list[str]:
        """The categories of the config, or all in `root`, see `BaseOptions.categories`."""
        if self.category is not None:
            return super().categories(work_dir)
        if self.is_category(self.folder):
            return [""]
        if not (names := self._found(self.folder)):
            raise DataError(
                f"data.root: {self.folder} is no category of kind {self.kind} and has none; expected {self.layout}. "
                f"Try `python -m harness data {self.folder}`."
            )
        return names

    def load(self, category: str, work_dir: Path) -> SampleLists:
        """List the samples of one category.

        Args:
            category, work_dir: see `DataOptions.load`.

        Raises:
            DataError: the category is unknown; and see `read`.
        """
        del work_dir
        base = self.folder / category
        if not self.is_category(base):
            if not base.is_dir():
                unknown = unknown_name("category", category, self._found(self.folder))
                raise DataError(f"data.category: {unknown} Root: {self.folder}.")
            raise DataError(f"{base}: no category of kind {self.kind} found; expected {self.layout}.")
        lists = replace(self.read(base), folder=category)
        return with_left_out(lists, self, self.folder, self._found(self.folder))


def with_left_out(lists: SampleLists, options: DataOptions, root: Path, categories: Sequence[str]) -> SampleLists:
    """The samples of a category, with a note about the folders beside the categories if the config names no category.

    Args:
        lists: of the category.
        options: the `data:` block.
        root: the folder of the categories; with `lists.root` itself there are no others.
        categories: names of all categories in `root`.
    """
    if lists.root == root or options.category is not None:
        return lists
    notes = folders_note(root, categories, f"because no category of kind {options.kind} is in it")
    return replace(lists, notes=(*lists.notes, *notes))


def folders_note(root: Path, used: Sequence[str], reason: str) -> list[str]:
    """A sentence about folders in the root that a kind does not use; empty without such folders.

    Args:
        root: of the data.
        used: names of the other folders in `root`.
        reason: a clause that begins with a conjunction.
    """
    others = sorted(set(subfolders(root)) - set(used))
    return [f"{root}: {listed(others)} left out, {reason}."] if others else []


def confined(root: Path, name: str, source: Path) -> Path:
    """The absolute path of a file that a table or a JSON file names.

    Args:
        root: the name is relative to this folder.
        name: of the file.
        source: the table or the JSON file, for messages.

    Raises:
        DataError: the name leaves the root, or there is no such file.
    """
    path = Path(os.path.normpath(root / name))
    if not name or "\x00" in name or not path.is_relative_to(os.path.normpath(root)):
        raise DataError(f"{source}: {name!r} found, which leaves {root}; expected a path inside. Correct the path.")
    if not path.is_file():
        raise DataError(f"{source}: {name!r} found, but {path} is no file; expected one. Restore the file.")
    return path

"""`kind: toy`: a small data set that the harness draws, so that a first run needs no download.

The options determine all images. The data set is written once, in MVTec AD's layout, and read like any other.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from harness.common.errors import DataError, unknown_name
from harness.common.paths import PathText
from harness.data.base import DataOptions
from harness.data.mvtec import load_tree
from harness.data.samples import SampleLists
from harness.data.toy_images import CATEGORIES, write_toy

# In the folder's name, so that images of an older generator are not reused.
VERSION = 2


class ToyData(DataOptions):
    """Options of `kind: toy`.

    Attributes:
        seed: of everything random in the images.
        size: height and width in pixels.
        train: number of normal training images in each category.
        good: number of normal test images in each category.
        bad: number of test images of each type of defect.
        root: the folder for the images; by default `_toy` beside the results.
    """

    synthetic: ClassVar[bool] = True

    seed: int = Field(default=0, ge=0)
    size: int = Field(default=128, ge=32, le=1024)
    train: int = Field(default=100, ge=2)
    good: int = Field(default=30, ge=1)
    bad: int = Field(default=10, ge=1)
    root: PathText | None = None

    def categories(self, work_dir: Path) -> list[str]:
        """The categories of the config, or all toy categories, see `BaseOptions.categories`.

        Raises:
            DataError: a category is unknown.
        """
        if self.category is None:
            return list(CATEGORIES)
        names = super().categories(work_dir)
        for name in names:
            if name not in CATEGORIES:
                raise DataError(f"data.category: {unknown_name('toy category', name, CATEGORIES)}")
        return names

    def load(self, category: str, work_dir: Path) -> SampleLists:
        """List the samples of one category, and write its images first if needed.

        Args:
            category, work_dir: see `DataOptions.load`.

        Raises:
            DataError: the images can't be written.
        """
        return load_tree(self._written(category, work_dir), category)

    def made_by_harness(self, work_dir: Path) -> list[Path]:
        """The folders of the categories, see `BaseOptions.made_by_harness`."""
        return [self._folder(work_dir) / category for category in self.categories(work_dir)]

    def _options(self) -> dict[str, int]:
        return {"seed": self.seed, "size": self.size, "train": self.train, "good": self.good, "bad": self.bad}

    def _folder(self, work_dir: Path) -> Path:
        return toy_root(self.root, work_dir) / toy_name(VERSION, self._options())

    def _written(self, category: str, work_dir: Path) -> Path:
        """The folder of the categories; a missing category is written first."""
        folder = self._folder(work_dir)
        write_whole(
            folder / category,
            lambda scratch: write_toy(scratch.parent, categories=[category], **self._options()),
        )
        return folder.absolute()


def toy_root(root: str | None, work_dir: Path) -> Path:
    """The folder of all toy data.

    Args:
        root: `data.root` of the config; None for the default.
        work_dir: the folder for data that the harness makes.
    """
    return Path(root) if root else work_dir / "_toy"


def toy_name(version: int, options: Mapping[str, int]) -> str:
    """The name of the folder of toy data with these options.

    Args:
        version: of the generator.
        options: arguments of the generator, with `seed` and `size`.
    """
    key = sha256(json.dumps({"version": version, **options}, sort_keys=True).encode()).hexdigest()[:8]
    return f"seed{options['seed']}-{options['size']}px-{key}"


def write_whole(folder: Path, write: Callable[[Path], None]) -> None:
    """Write a missing folder under a temporary path and rename it, so that other processes never read half of it.

    Args:
        folder: the new folder.
        write: writes the content to an existing folder of the same name.

    Raises:
        DataError: the files can't be written.
    """
    if folder.is_dir():
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
    except OSError as error:
        raise DataError(
            f"{folder.parent.absolute()}: can't write images there ({error.strerror}). Check the folder."
        ) from error
    try:
        whole = scratch / folder.name
        whole.mkdir()
        write(whole)
        try:
            whole.replace(folder)
        except OSError:
            # Another sweep wrote the same images in the meantime.
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)

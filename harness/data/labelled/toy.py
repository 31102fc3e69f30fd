"""`kind: toy` of `task: classification`: a labelled data set that the harness draws, in the competition's layout."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from harness.common.paths import PathText
from harness.data.labelled.base import LabelledOptions, LabelledSampleLists
from harness.data.labelled.files import LabelledData
from harness.data.labelled.toy_images import write_labelled_toy
from harness.data.toy import toy_name, toy_root, write_whole

# In the folder's name, so that images of an older generator are not reused.
VERSION = 1


class LabelledToy(LabelledOptions):
    """Options of `kind: toy`.

    Attributes:
        seed: of everything random in the images.
        size: height and width in pixels.
        train: number of labelled images, roughly.
        test: number of test images, roughly.
        root: the folder for the images; by default `_toy` beside the results.
    """

    synthetic: ClassVar[bool] = True

    seed: int = Field(default=0, ge=0)
    size: int = Field(default=64, ge=32, le=1024)
    train: int = Field(default=400, ge=40, le=20_000)
    test: int = Field(default=100, ge=16, le=20_000)
    root: PathText | None = None

    def load(self, work_dir: Path) -> LabelledSampleLists:
        """List the samples, and write the images first if needed, see `LabelledOptions.load`."""
        folder = self._folder(work_dir)
        write_whole(folder, lambda scratch: write_labelled_toy(scratch, **self._options()))
        root = str(folder.absolute())
        return LabelledData(kind="labelled", root=root, layout="competition", group=self.group).load(work_dir)

    def made_by_harness(self, work_dir: Path) -> list[Path]:
        """The folder of the data set, see `BaseOptions.made_by_harness`."""
        return [self._folder(work_dir)]

    def _options(self) -> dict[str, int]:
        return {"seed": self.seed, "size": self.size, "train": self.train, "test": self.test}

    def _folder(self, work_dir: Path) -> Path:
        return toy_root(self.root, work_dir) / f"labelled-{toy_name(VERSION, self._options())}"

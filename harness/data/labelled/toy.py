"""`kind: toy` of `task: classification`: a labelled data set that the harness draws, in the competition's layout."""

from __future__ import annotations

import json
import shutil
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from harness.common.errors import DataError
from harness.common.paths import PathText
from harness.data.labelled.base import LabelledOptions, LabelledSampleLists
from harness.data.labelled.files import LabelledData
from harness.data.labelled.toy_images import write_labelled_toy

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
        if not folder.is_dir():
            self._write_whole(folder)
        return LabelledData(kind="labelled", root=str(folder.absolute()), layout="competition").load(work_dir)

    def made_by_harness(self, work_dir: Path) -> list[Path]:
        """The folder of the data set, see `BaseOptions.made_by_harness`."""
        return [self._folder(work_dir)]

    def _options(self) -> dict[str, int]:
        return {"seed": self.seed, "size": self.size, "train": self.train, "test": self.test}

    def _folder(self, work_dir: Path) -> Path:
        key = sha256(json.dumps({"version": VERSION, **self._options()}, sort_keys=True).encode()).hexdigest()[:8]
        root = Path(self.root) if self.root else work_dir / "_toy"
        return root / f"labelled-seed{self.seed}-{self.size}px-{key}"

    def _write_whole(self, folder: Path) -> None:
        """Write the data set to a temporary folder and rename it, so that other processes never find half of it."""
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
        except OSError as error:
            raise DataError(f"toy data: can't write to {folder.parent.absolute()} ({error.strerror}).") from error
        try:
            whole = scratch / "whole"
            whole.mkdir()
            write_labelled_toy(whole, **self._options())
            try:
                whole.replace(folder)
            except OSError:
                # Another sweep wrote the same images in the meantime.
                if not folder.is_dir():
                    raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

"""`kind: magnetic_tiles`: magnetic tile defects (Huang et al., The Visual Computer, 2020).

    root/MT_Free/Imgs/*.jpg                     normal; each image has an empty mask of the same name, *.png
    root/MT_Blowhole/Imgs/*.jpg, *.png          images, and masks of the same name

The data set has no split. The harness takes a share of the normal images for the test.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from harness.common.errors import DataError
from harness.common.paths import PathText
from harness.data.base import DataOptions, existing_dir, listed
from harness.data.category_tree import folders_note
from harness.data.listing import list_images, name_in, subfolders
from harness.data.samples import GOOD, Sample, SampleLists
from harness.data.test_share import without_split

PREFIX, FREE, IMAGES = "MT_", "MT_Free", "Imgs"


class MagneticTilesData(DataOptions):
    """Options of `kind: magnetic_tiles`.

    Attributes:
        root: the folder with `MT_Free` and the folders of defects.
        test_split_ratio: the share of the normal images for the test.
    """

    folder_names: ClassVar[tuple[str, ...]] = (FREE, IMAGES)
    no_category: ClassVar[str] = "the magnetic tiles have none; remove the key"

    root: PathText
    test_split_ratio: float = Field(default=0.2, ge=0, lt=1)

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether the folder has normal tiles."""
        return (root / FREE / IMAGES).is_dir()

    def load(self, category: str, work_dir: Path) -> SampleLists:
        """List the samples.

        Args:
            category, work_dir: see `DataOptions.load`.

        Raises:
            DataError: the normal tiles or a mask are missing, or a mask has no image.
        """
        del category, work_dir
        root = existing_dir(Path(self.root), "data.root")
        existing_dir(root / FREE / IMAGES, "normal images")
        folders = [name for name in subfolders(root) if name.startswith(PREFIX) and (root / name / IMAGES).is_dir()]
        problems: list[str] = []
        samples: list[Sample] = []
        for name in folders:
            try:
                samples += _samples(root / name / IMAGES, root, "" if name == FREE else name.removeprefix(PREFIX))
            except DataError as error:
                problems += error.problems
        if problems:
            raise DataError(problems)
        lists = without_split(root, samples, self.test_split_ratio, self.split_seed)
        return replace(
            lists, notes=tuple(folders_note(root, folders, f"because only {PREFIX}<defect>/{IMAGES} counts"))
        )


def _samples(folder: Path, root: Path, defect: str) -> list[Sample]:
    images = list_images(folder, (".jpg",))
    masks = {path.with_suffix(""): path for path in list_images(folder, (".png",))}
    missing = [str(path) for path in images if defect and path.with_suffix("") not in masks]
    unused = [str(masks[stem]) for stem in sorted(set(masks) - {path.with_suffix("") for path in images})]
    if missing or unused:
        problem = f"no mask for {listed(missing)}" if missing else f"no image for the mask {listed(unused)}"
        raise DataError(f"{folder}: {problem} found; expected x.jpg with x.png. Restore or remove the file.")
    return [
        Sample(
            str(path),
            name_in(path, root),
            int(bool(defect)),
            defect or GOOD,
            (str(masks[path.with_suffix("")]),) if defect else (),
        )
        for path in images
    ]

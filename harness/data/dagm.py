"""`kind: dagm`: DAGM 2007 (Wieler and Hahn), artificial textures with weak labels.

    root/[Class1/]{Train,Test}/0576.PNG
    root/[Class1/]{Train,Test}/Label/0576_label.PNG       masks of the anomalous images, as ellipses

Detectors learn from the normal training images.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from harness.data.base import existing_dir
from harness.data.category_tree import CategoryTree
from harness.data.listing import list_images, name_in
from harness.data.masks import match_masks
from harness.data.samples import GOOD, Sample, SampleLists

TRAIN, TEST, MASKS, DEFECT = "Train", "Test", "Label", "defect"


class DAGMData(CategoryTree):
    """Options of `kind: dagm`.

    Attributes:
        root: the folder of a class, or of several classes.
    """

    folder_names: ClassVar[tuple[str, ...]] = (TRAIN, TEST, MASKS)
    layout: ClassVar[str] = f"{TRAIN}, {TRAIN}/{MASKS}, {TEST} and {TEST}/{MASKS}"

    @classmethod
    def is_category(cls, folder: Path) -> bool:
        """Whether a folder has training images and masks in `Label`."""
        return (folder / TRAIN / MASKS).is_dir()

    def read(self, base: Path) -> SampleLists:
        """List the samples of a class.

        Raises:
            DataError: see `CategoryTree.read`.
        """
        train, test = _samples(base / TRAIN, base), _samples(existing_dir(base / TEST, "test images"), base)
        return SampleLists.without_training_defects(base, train, test, base / TRAIN)


def _samples(folder: Path, base: Path) -> list[Sample]:
    paths = [path for path in list_images(folder) if path.parent == folder]
    mask_dir = existing_dir(folder / MASKS, "masks")
    marked = {path.stem.lower().removesuffix("_label") for path in list_images(mask_dir)}
    anomalous = [path for path in paths if path.stem.lower() in marked]
    masks = match_masks(anomalous, folder, mask_dir)
    return [
        Sample(
            str(path),
            name_in(path, base),
            int(path in masks),
            DEFECT if path in masks else GOOD,
            tuple(map(str, masks.get(path, ()))),
        )
        for path in paths
    ]

"""`kind: mvtec_loco`: MVTec LOCO AD (Bergmann et al., IJCV 2022).

    root/[category/]train/good/*.png
    root/[category/]validation/good/*.png
    root/[category/]test/{good,logical_anomalies,structural_anomalies}/*.png
    root/[category/]ground_truth/<type>/<image>/000.png, 001.png ...     (one mask for each defect)
    root/[category/]defects_config.json

The validation images fix the threshold. A pixel is anomalous if it is anomalous in one of the masks.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from harness.common.errors import DataError
from harness.data.base import existing_dir
from harness.data.category_tree import CategoryTree
from harness.data.mvtec import VALIDATION, read_tree, with_validation
from harness.data.samples import GOOD, SampleLists
from harness.data.saturation import FILE

MASKS = "ground_truth"
TYPES = ("logical_anomalies", "structural_anomalies")


class MVTecLocoData(CategoryTree):
    """Options of `kind: mvtec_loco`.

    Attributes:
        root: the folder of a category, or of several categories.
    """

    validated: ClassVar[bool] = True
    datamodules: ClassVar[tuple[str, ...]] = ("MVTecLOCO",)
    folder_names: ClassVar[tuple[str, ...]] = ("train", "validation", "test", MASKS, GOOD, *TYPES)
    layout: ClassVar[str] = f"train/good, validation/good, test/good and test/{TYPES[0]} or test/{TYPES[1]}"

    @classmethod
    def is_category(cls, folder: Path) -> bool:
        """Whether a folder has validation images and one of the two types of defects."""
        return (folder / VALIDATION).is_dir() and any((folder / "test" / name).is_dir() for name in TYPES)

    def read(self, base: Path) -> SampleLists:
        """List the samples of a category.

        Raises:
            DataError: see `CategoryTree.read`.
        """
        if not (base / FILE).is_file():
            raise DataError(f"{base / FILE}: nothing found; expected the file of the data set. Restore it.")
        existing_dir(base / MASKS, "masks")
        return with_validation(read_tree(base, truth=MASKS))

"""`kind: mvtec_ad2`: MVTec AD 2 (Heckler-Kram et al., arXiv:2503.21622).

    root/[category/]{train,validation}/good/*.png
    root/[category/]test_public/{good,bad}/*.png
    root/[category/]test_public/ground_truth/bad/*_mask.png
    root/[category/]test_private/*.png, test_private_mixed/*.png          (optional; without labels)

The validation images fix the threshold. Runs predict the private images, and no metric counts them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from harness.data.base import existing_dir
from harness.data.category_tree import CategoryTree
from harness.data.listing import list_images, name_in
from harness.data.mvtec import read_tree, with_validation
from harness.data.samples import GOOD, Sample, SampleLists

PUBLIC, PRIVATE = "test_public", ("test_private", "test_private_mixed")
MASKS = f"{PUBLIC}/ground_truth"


class MVTecAD2Data(CategoryTree):
    """Options of `kind: mvtec_ad2`.

    Attributes:
        root: the folder of a category, or of several categories.
    """

    validated: ClassVar[bool] = True
    datamodules: ClassVar[tuple[str, ...]] = ("MVTecAD2",)
    folder_names: ClassVar[tuple[str, ...]] = ("train", "validation", PUBLIC, *PRIVATE, GOOD, "bad", "ground_truth")
    layout: ClassVar[str] = f"train/good, validation/good, {PUBLIC}/good, {PUBLIC}/bad and {PUBLIC}/ground_truth/bad"

    @classmethod
    def is_category(cls, folder: Path) -> bool:
        """Whether a folder has training images and a public test."""
        return (folder / "train").is_dir() and (folder / PUBLIC).is_dir()

    def read(self, base: Path) -> SampleLists:
        """List the samples of a category.

        Raises:
            DataError: see `CategoryTree.read`.
        """
        existing_dir(base / MASKS, "masks")
        lists = with_validation(read_tree(base, PUBLIC, MASKS))
        unlabelled = [
            Sample(str(path), name_in(path, base), 0, "", unlabelled=True)
            for part in PRIVATE
            if (base / part).is_dir()
            for path in list_images(base / part)
        ]
        return replace(lists, unlabelled=tuple(unlabelled))

"""Folders of normal and anomalous images, side by side, found by their names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.data.listing import list_images, subfolders
from harness.data.samples import GOOD

# Names of folders with normal images, the most common name first.
NORMAL = (GOOD, "normal", "ok", "free", "train")
# Folders beside the normal images without a known class.
NOT_DEFECTS = ("test", "val", "valid", "validation")
MASKS = ("ground_truth", "masks", "mask")
MASK_SUFFIXES = ("_masks", "_mask", "_gt", "_ground_truth")


@dataclass(frozen=True)
class FolderLayout:
    """The folders of `kind: folder`, relative to their root.

    Attributes:
        normal: the folder of normal images.
        abnormal: the folders of anomalous images.
        masks: the folder of masks of each folder in `abnormal`; None without one.
        test: the folder of normal test images; None without one.
        example: a normal image.
    """

    normal: str
    abnormal: tuple[str, ...]
    masks: tuple[str | None, ...]
    test: str | None
    example: Path

    @property
    def keys(self) -> dict[str, Any]:
        """The keys of the `data:` block, without `root`."""
        keys: dict[str, Any] = {"normal_dir": self.normal}
        if self.abnormal:
            keys["abnormal_dir"] = list(self.abnormal)
        if self.abnormal and all(self.masks):
            keys["mask_dir"] = list(self.masks)
        return keys | ({"normal_test_dir": self.test} if self.test else {})


def find_folders(root: Path) -> FolderLayout | None:
    """The folder of normal images beside the folders of anomalous images; None without normal images.

    Args:
        root: an existing folder.
    """
    names = {path.name.lower(): path for path in (root / name for name in subfolders(root))}
    normal = next((names[name] for name in NORMAL if name in names), None)
    if normal is None or not (examples := list_images(normal)):
        return None
    masks = {path.name: path for name, path in names.items() if name in MASKS or name.endswith(MASK_SUFFIXES)}
    test = names.get(f"{normal.name.lower()}_test")
    others = {normal, test, *(names.get(name) for name in NOT_DEFECTS)}
    anomalous = [path for path in names.values() if path not in others and path.name not in masks and list_images(path)]
    return FolderLayout(
        normal.name,
        tuple(path.name for path in anomalous),
        tuple(_mask_of(path, masks) for path in anomalous),
        test.name if test is not None and list_images(test) else None,
        examples[0],
    )


def _mask_of(images: Path, masks: dict[str, Path]) -> str | None:
    """The folder of the masks for a folder of images, relative to their parent."""
    for suffix in MASK_SUFFIXES:
        if images.name + suffix in masks:
            return images.name + suffix
    for name, path in masks.items():
        if (path / images.name).is_dir():
            return f"{name}/{images.name}"
    return None

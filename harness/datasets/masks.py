"""Which mask belongs to which image: by name, never by order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.errors import DataError
from harness.images import list_images

# 000.png may have its mask in 000.png (anomalib's Folder), 000_mask.png (MVTec AD) ...
SUFFIXES = ("", "_mask", "-mask", "_gt", "_label")
SHOWN = 5


def match_masks(images: Sequence[Path], image_root: Path, mask_root: Path) -> dict[Path, Path]:
    """Pair each image with the mask of the same name in the same subfolder of `mask_root`.

    Args:
        images: anomalous images below `image_root`.
        image_root: the folder that corresponds to `mask_root`.
        mask_root: folder of masks.

    Raises:
        DataError: an image without a mask, or a mask without an image; names them.
    """
    if mask_root.resolve() == image_root.resolve():
        raise DataError(f"{mask_root}: named for images and for masks; expected a folder of its own for masks.")
    masks = {path.relative_to(mask_root).with_suffix("").as_posix(): path for path in list_images(mask_root)}
    paired: dict[Path, Path] = {}
    missing: list[str] = []
    for image in images:
        stem = image.relative_to(image_root).with_suffix("").as_posix()
        mask = next((masks[stem + suffix] for suffix in SUFFIXES if stem + suffix in masks), None)
        if mask is None:
            missing.append(str(image))
        else:
            paired[image] = mask
    unused = sorted(str(path) for path in set(masks.values()) - set(paired.values()))
    problems = []
    if missing:
        problems.append(
            f"{mask_root}: no mask found for {_some(missing)}; a mask is named like its image "
            f"(000.png -> 000.png or 000_mask.png)."
        )
    if unused:
        problems.append(f"{mask_root}: no image found for the mask {_some(unused)}; rename or remove it.")
    if problems:
        raise DataError(problems)
    return paired


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more

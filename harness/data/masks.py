"""Pairs of images and masks, matched by name and never by order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.common.errors import DataError
from harness.data.images import list_images

# The mask of 000.png is 000.png (anomalib's Folder), 000_mask.png (MVTec AD) ...; case is ignored.
SUFFIXES = ("_mask", "-mask", "_gt", "_label")
CLEAR_SUFFIXES = SUFFIXES[:2]
SHOWN = 5


@dataclass(frozen=True)
class ImagesAndMasks:
    """The images of a folder, and the masks beside them.

    Attributes:
        images: sorted paths.
        masks: the mask of an image, by the image.
    """

    images: tuple[Path, ...]
    masks: Mapping[Path, Path]


def separate_masks(paths: Sequence[Path], suffixes: tuple[str, ...] = CLEAR_SUFFIXES) -> ImagesAndMasks:
    """Separate images from masks in the same folder. A mask has the name of its image and a suffix.

    Args:
        paths: of images and masks.
        suffixes: of masks. By default only clear ones: a_label.png may be an image beside a.png.

    Raises:
        DataError: an image has several masks.
    """
    images = {path.with_suffix("").as_posix(): path for path in paths}
    candidates: dict[Path, list[Path]] = {}
    for path in paths:
        stem = _without_suffix(path.with_suffix("").as_posix(), suffixes)
        if stem is not None and stem in images:
            candidates.setdefault(images[stem], []).append(path)
    _refuse_several(candidates)
    masks = {mask: image for image, (mask,) in candidates.items()}
    return ImagesAndMasks(tuple(path for path in paths if path not in masks), {i: mask for mask, i in masks.items()})


def match_masks(images: Sequence[Path], image_root: Path, mask_root: Path) -> dict[Path, Path]:
    """Pair each image with the mask of the same name in the same subfolder of `mask_root`.

    Args:
        images: anomalous images below `image_root`, without masks.
        image_root: the folder that corresponds to `mask_root`.
        mask_root: folder of masks; may be `image_root`.

    Returns:
        The mask of each image.

    Raises:
        DataError: an image has no mask or several, or a mask has no image.
    """
    files = list_images(mask_root)
    if mask_root.resolve() == image_root.resolve():
        files = list(separate_masks(files, SUFFIXES).masks.values())
    stems = {image.relative_to(image_root).with_suffix("").as_posix() for image in images}
    by_name: dict[str, list[Path]] = {}
    for file in files:
        stem = file.relative_to(mask_root).with_suffix("").as_posix()
        # An image with the full name of the mask has priority.
        image_stem = None if stem in stems else _without_suffix(stem)
        by_name.setdefault(image_stem or stem, []).append(file)
    masks_by_image: dict[Path, list[Path]] = {}
    missing: list[str] = []
    for image in images:
        candidates = by_name.get(image.relative_to(image_root).with_suffix("").as_posix(), [])
        if candidates:
            masks_by_image[image] = candidates
        else:
            missing.append(str(image))
    paired_masks = {mask for candidates in masks_by_image.values() for mask in candidates}
    unused = sorted(str(path) for path in set(files) - paired_masks)
    problems = []
    if missing:
        problems.append(
            f"{mask_root}: no mask found for {_some(missing)}; a mask is named like its image "
            f"(000.png -> 000.png or 000_mask.png)."
        )
    if unused:
        problems.append(f"{mask_root}: no image found for the mask {_some(unused)}; rename or remove it.")
    try:
        _refuse_several(masks_by_image)
    except DataError as error:
        problems += error.problems
    if problems:
        raise DataError(problems)
    return {image: mask for image, (mask,) in masks_by_image.items()}


def _without_suffix(stem: str, suffixes: tuple[str, ...] = SUFFIXES) -> str | None:
    """The stem of the image of a mask; None for a stem without a suffix of masks."""
    return next((stem[: -len(end)] for end in suffixes if stem.lower().endswith(end) and len(stem) > len(end)), None)


def _refuse_several(masks: Mapping[Path, Sequence[Path]]) -> None:
    several = [(image, paths) for image, paths in masks.items() if len(paths) > 1]
    if several:
        image, paths = several[0]
        more = f" {len(several) - 1} more images have several masks." if len(several) > 1 else ""
        raise DataError(
            f"{image}: {len(paths)} masks found ({', '.join(map(str, paths[:SHOWN]))}), one expected. Remove all but "
            f"one.{more}"
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more

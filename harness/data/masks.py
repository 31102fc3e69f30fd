"""Pairs of images and masks, matched by name and never by order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.common.errors import DataError
from harness.data.base import listed
from harness.data.listing import list_images, name_in, stem_of

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
    images = {stem_of(path): path for path in paths}
    candidates: dict[Path, list[Path]] = {}
    for path in paths:
        stem = _without_suffix(stem_of(path), suffixes)
        if stem is not None and stem in images:
            candidates.setdefault(images[stem], []).append(path)
    _refuse_several(candidates)
    masks = {mask: image for image, (mask,) in candidates.items()}
    return ImagesAndMasks(tuple(path for path in paths if path not in masks), {i: mask for mask, i in masks.items()})


def match_masks(images: Sequence[Path], image_root: Path, mask_root: Path) -> dict[Path, tuple[Path, ...]]:
    """Pair each image with the mask of the same name in the same subfolder of `mask_root`.

    A folder with the name of an image may have several masks of this image: 000/000.png and 000/001.png.

    Args:
        images: anomalous images below `image_root`, without masks.
        image_root: the folder that corresponds to `mask_root`.
        mask_root: folder of masks; may be `image_root`.

    Returns:
        The masks of each image, sorted.

    Raises:
        DataError: an image has no mask or several files with its name, or a mask has no image.
    """
    files = list_images(mask_root)
    if mask_root.resolve() == image_root.resolve():
        files = list(separate_masks(files, SUFFIXES).masks.values())
    stem_by_image = {image: name_in(image, image_root).removesuffix(image.suffix) for image in images}
    stems = set(stem_by_image.values())
    by_stem: dict[str, list[Path]] = {}
    for file in files:
        stem = name_in(file, mask_root).removesuffix(file.suffix)
        by_stem.setdefault(_image_stem(stem, stems), []).append(file)
    masks_by_image: dict[Path, tuple[Path, ...]] = {}
    missing: list[str] = []
    for image, stem in stem_by_image.items():
        if candidates := by_stem.get(stem):
            masks_by_image[image] = tuple(candidates)
        else:
            missing.append(str(image))
    paired_masks = {mask for candidates in masks_by_image.values() for mask in candidates}
    unused = sorted(str(path) for path in set(files) - paired_masks)
    problems = []
    if missing:
        problems.append(
            f"{mask_root}: no mask found for {listed(missing, SHOWN)}; a mask is named like its image "
            f"(000.png -> 000.png or 000_mask.png)."
        )
    if unused:
        problems.append(f"{mask_root}: no image found for the mask {listed(unused, SHOWN)}; rename or remove it.")
    try:
        # Only the folder of an image may have several masks.
        _refuse_several({i: masks for i, masks in masks_by_image.items() if {m.parent.name for m in masks} != {i.stem}})
    except DataError as error:
        problems += error.problems
    if problems:
        raise DataError(problems)
    return masks_by_image


def left_out_note(folder: Path, masks: Sequence[Path], which: str) -> list[str]:
    """A sentence about masks that no image of the data has; empty without such masks.

    Args:
        folder: of the masks.
        masks: paths of the masks, sorted.
        which: words after "masks" that say which ones the harness does not use.
    """
    if not masks:
        return []
    unused = f"1 mask {which} is" if len(masks) == 1 else f"{len(masks)} masks {which} are"
    return [f"{folder}: {unused} not used, such as {masks[0].relative_to(folder).as_posix()}."]


def _image_stem(stem: str, stems: set[str]) -> str:
    """The stem of the image of a mask.

    Args:
        stem: of the mask, relative to the folder of the masks.
        stems: of all images, relative to the folder of the images.
    """
    # An image with the full name of the mask has priority.
    if stem in stems:
        return stem
    folder, named = stem.rpartition("/")[0] or ".", _without_suffix(stem)
    return folder if folder in stems and named not in stems else named or stem


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

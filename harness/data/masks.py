"""Which mask belongs to which image: by name, never by order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.common.errors import DataError
from harness.data.images import list_images

# 000.png may have its mask in 000.png (anomalib's Folder), 000_mask.png (MVTec AD) ...; whatever their case.
SUFFIXES = ("_mask", "-mask", "_gt", "_label")
SURE = SUFFIXES[:2]
SHOWN = 5


@dataclass(frozen=True)
class Listed:
    """Images of a folder, apart from masks that lie beside them.

    Attributes:
        images: sorted.
        masks: by the image that each belongs to.
    """

    images: tuple[Path, ...]
    masks: Mapping[Path, Path]


def apart(paths: Sequence[Path], suffixes: tuple[str, ...] = SURE) -> Listed:
    """Tell images from masks in the same folder: a mask is called like its image, with a suffix.

    Args:
        paths: of both.
        suffixes: those of masks. a_label.png may well be an image beside a.png, unless it is asked for.

    Raises:
        DataError: an image has several masks.
    """
    images = {path.with_suffix("").as_posix(): path for path in paths}
    masks: dict[Path, list[Path]] = {}
    for path in paths:
        stem = _without_suffix(path.with_suffix("").as_posix(), suffixes)
        if stem is not None and stem in images:
            masks.setdefault(images[stem], []).append(path)
    _refuse_several(masks)
    taken = {mask for found in masks.values() for mask in found}
    return Listed(tuple(path for path in paths if path not in taken), {image: one for image, (one,) in masks.items()})


def match_masks(images: Sequence[Path], image_root: Path, mask_root: Path) -> dict[Path, Path]:
    """Pair each image with the mask of the same name in the same subfolder of `mask_root`.

    Args:
        images: anomalous images below `image_root`; masks that lie beside them are none.
        image_root: the folder that corresponds to `mask_root`.
        mask_root: folder of masks; may be `image_root`.

    Raises:
        DataError: an image without a mask or with several, or a mask without an image; names them.
    """
    files = list_images(mask_root)
    if mask_root.resolve() == image_root.resolve():
        files = list(apart(files, SUFFIXES).masks.values())
    stems = {image.relative_to(image_root).with_suffix("").as_posix() for image in images}
    by_name: dict[str, list[Path]] = {}
    for file in files:
        stem = file.relative_to(mask_root).with_suffix("").as_posix()
        # An image of that very name goes before one that the suffix leaves.
        bare = None if stem in stems else _without_suffix(stem)
        by_name.setdefault(bare or stem, []).append(file)
    paired: dict[Path, list[Path]] = {}
    missing: list[str] = []
    for image in images:
        found = by_name.get(image.relative_to(image_root).with_suffix("").as_posix(), [])
        if found:
            paired[image] = found
        else:
            missing.append(str(image))
    used = {mask for found in paired.values() for mask in found}
    unused = sorted(str(path) for path in set(files) - used)
    problems = []
    if missing:
        problems.append(
            f"{mask_root}: no mask found for {_some(missing)}; a mask is named like its image "
            f"(000.png -> 000.png or 000_mask.png)."
        )
    if unused:
        problems.append(f"{mask_root}: no image found for the mask {_some(unused)}; rename or remove it.")
    try:
        _refuse_several(paired)
    except DataError as error:
        problems += error.problems
    if problems:
        raise DataError(problems)
    return {image: one for image, (one,) in paired.items()}


def _without_suffix(stem: str, suffixes: tuple[str, ...] = SUFFIXES) -> str | None:
    """The stem of the image that a mask of this stem belongs to; None where it ends as no mask does."""
    return next((stem[: -len(end)] for end in suffixes if stem.lower().endswith(end) and len(stem) > len(end)), None)


def _refuse_several(masks: Mapping[Path, Sequence[Path]]) -> None:
    several = [(image, found) for image, found in masks.items() if len(found) > 1]
    if several:
        image, found = several[0]
        more = f" So it is with {len(several) - 1} more images." if len(several) > 1 else ""
        raise DataError(
            f"{image}: {len(found)} masks found ({', '.join(map(str, found[:SHOWN]))}), one expected. Remove all but "
            f"one.{more}"
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more

"""`kind: mvtec`: MVTec AD, or another data set with the same layout.

    root/[category/]train/good/*.png
    root/[category/]test/good/*.png, test/<defect>/*.png
    root/[category/]ground_truth/<defect>/*_mask.png          (optional; pixel metrics need masks)

MPDD, VAD, BTAD and AutoVI have this layout too. AutoVI has a folder of masks for each image:
ground_truth/<defect>/<image>/0000.png.

All image formats are read. Folders of normal images may have the name ok or normal too. Masks may lie beside their
images (000.png and 000_mask.png).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from harness.common.errors import DataError, unknown_name
from harness.common.paths import PathText
from harness.data.base import DataOptions, existing_dir, listed
from harness.data.category_tree import with_left_out
from harness.data.listing import list_images, name_in, subfolders
from harness.data.masks import ImagesAndMasks, left_out_note, match_masks, separate_masks
from harness.data.samples import GOOD, Sample, SampleLists, is_normal
from harness.data.saturation import read_saturation

VALIDATION = "validation"


class MVTecData(DataOptions):
    """Options of `kind: mvtec`.

    `category` may be a name, a list, or left out: then every category found in `root`, or `root` itself where it
    has a `train` folder.

    Attributes:
        root: the folder with `train`, `test` and `ground_truth`, or with categories that have those.
    """

    datamodules: ClassVar[tuple[str, ...]] = ("MVTecAD", "MVTec")
    folder_names: ClassVar[tuple[str, ...]] = (
        "train",
        "validation",
        "test",
        "ground_truth",
        GOOD,
        "ok",
        "normal",
    )
    root: PathText

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether the folder or one of its folders has normal training images and a test."""
        try:
            return any((root / name / "test").is_dir() for name in find_categories(root))
        except DataError:
            return False

    def categories(self, work_dir: Path) -> list[str]:
        """The categories of the config, or all categories in `root`, see `BaseOptions.categories`."""
        if self.category is not None:
            return super().categories(work_dir)
        return find_categories(existing_dir(Path(self.root), "data.root"))

    def load(self, category: str, work_dir: Path) -> SampleLists:
        """List the samples of one category.

        Args:
            category, work_dir: see `DataOptions.load`.

        Raises:
            DataError: see `load_tree`.
        """
        del work_dir
        root = existing_dir(Path(self.root), "data.root")
        lists = load_tree(root, category)
        lists = with_left_out(lists, self, root, find_categories(root))
        if (lists.root / VALIDATION / GOOD).is_dir():
            note = f"{lists.root / VALIDATION}: not used by kind mvtec. Kind mvtec_loco fixes the threshold with it."
            lists = replace(lists, notes=(*lists.notes, note))
        return lists


def find_categories(root: Path) -> list[str]:
    """The categories in `root`; `[""]` if `root` is a category.

    Raises:
        DataError: `root` has no category.
    """
    if (root / "train").is_dir():
        return [""]
    names = [name for name in subfolders(root) if (root / name / "train").is_dir() and _normal(root / name / "train")]
    if not names:
        raise DataError(
            f"data.root: {root} has neither a folder 'train' nor categories with one; "
            f"expected train/{GOOD}, test/<defect> and, for pixel metrics, ground_truth/<defect>."
        )
    return names


def load_tree(root: Path, category: str) -> SampleLists:
    """List the samples of one category in MVTec AD's layout.

    Args:
        root: the folder of the categories.
        category: a folder in `root`; "" for `root` itself.

    Raises:
        DataError: a folder is missing, or masks do not match their images.
    """
    base = root / category
    if category and not base.is_dir():
        raise DataError(f"data.category: {unknown_name('category', category, subfolders(root))} Root: {root}.")
    return replace(read_tree(base), folder=category)


def read_tree(base: Path, test: str = "test", truth: str = "ground_truth") -> SampleLists:
    """List the training and test samples of the folder of a category.

    Args:
        base: of the category.
        test: the folder of the test images, relative to `base`.
        truth: the folder of the masks, relative to `base`.

    Raises:
        DataError: a folder is missing, or masks do not match their images.
    """
    test_dir, truth_dir = existing_dir(base / test, "test images"), base / truth
    notes: list[str] = []
    train = normal_images(base / "train", base, notes)
    notes += _images_alone(test_dir)
    problems = _masks_alone(test_dir, truth_dir)
    samples: list[Sample] = []
    for defect in subfolders(test_dir):
        if test_dir / defect == truth_dir:
            continue
        mask_dir = truth_dir / defect if truth_dir.is_dir() else None
        try:
            if not is_normal(defect):
                samples += _samples(test_dir / defect, base, 1, defect, notes, mask_dir)
                continue
            if defect != GOOD and (truth_dir / defect).is_dir():
                raise DataError(
                    f"{test_dir / defect}: a folder of normal images, by its name, has masks in {truth_dir / defect}; "
                    "expected another name for a defect, or no masks."
                )
            samples += _samples(test_dir / defect, base, 0, GOOD, notes)
            if (truth_dir / defect).is_dir():
                masks = list_images(truth_dir / defect)
                notes += left_out_note(truth_dir / defect, masks, f"of normal images in {test}/{defect}")
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    if saturation := read_saturation(base):
        samples = [replace(sample, saturation=saturation) if sample.masks else sample for sample in samples]
    return SampleLists(base, train, tuple(samples), tuple(notes))


def _masks_alone(test_dir: Path, truth_dir: Path) -> list[str]:
    """A sentence about masks beside the folders of the types of defect, whose images do not exist."""
    if not truth_dir.is_dir():
        return []
    known = set(subfolders(test_dir))
    paths = [path for path in list_images(truth_dir) if path.relative_to(truth_dir).parts[0] not in known]
    if not paths:
        return []
    places = sorted({str(truth_dir / path.relative_to(truth_dir).parts[0]) for path in paths})
    return [
        f"{listed(places)}: masks without images found; expected a folder of test images with the same name in "
        f"{test_dir}. Restore the images, or remove the masks."
    ]


def _images_alone(test_dir: Path) -> list[str]:
    """A sentence about test images outside the folders of a type, whose label is unknown."""
    paths = [path for path in list_images(test_dir) if path.parent == test_dir]
    if not paths:
        return []
    return [_outside_note(test_dir, f"{GOOD} and <defect>", paths)]


def _outside_note(folder: Path, names: str, paths: Sequence[Path]) -> str:
    """A sentence about images outside the folders with these names."""
    unused = f"1 image outside {names} is" if len(paths) == 1 else f"{len(paths)} images outside {names} are"
    return f"{folder}: {unused} not used, such as {paths[0].relative_to(folder).as_posix()}."


def normal_images(folder: Path, base: Path, notes: list[str]) -> tuple[Sample, ...]:
    """The samples of the folder `good` in a folder, or of a folder with a name of the same meaning.

    Args:
        folder: of the training or validation images.
        base: sample names are relative to this folder.
        notes: gets a sentence for files that are not used: VAD has the folder train/bad.

    Raises:
        DataError: there is no folder of normal images.
    """
    names = _normal(folder) if folder.is_dir() else []
    if not names:
        existing_dir(folder / GOOD, "normal training images" if folder.name == "train" else "normal images")
    others = [path for path in list_images(folder) if path.relative_to(folder).parts[0] not in names]
    if others:
        notes.append(_outside_note(folder, " and ".join(names), others))
    return tuple(sample for name in names for sample in _samples(folder / name, base, 0, GOOD, notes))


def with_validation(lists: SampleLists) -> SampleLists:
    """The samples of a category with those of its folder `validation`, which fix the threshold.

    Args:
        lists: of the category.

    Raises:
        DataError: there is no folder of normal images, or no image in it.
    """
    folder, notes = lists.root / VALIDATION, list(lists.notes)
    samples = normal_images(folder, lists.root, notes)
    if not samples:
        raise DataError(
            f"{folder / GOOD}: no images found; expected at least 1 normal image, which fixes the threshold. "
            "Restore the images."
        )
    return replace(lists, val=samples, notes=tuple(notes))


def _normal(folder: Path) -> list[str]:
    """Names of its folders of normal images: good, as in MVTec AD, or a synonym."""
    return [name for name in subfolders(folder) if is_normal(name)]


def _samples(
    folder: Path, base: Path, label: int, defect: str, notes: list[str], mask_dir: Path | None = None
) -> list[Sample]:
    """The samples of one folder. Masks beside the images are used only without another folder of masks."""
    paths = list_images(folder)
    # With another folder of masks, all files are images.
    content = separate_masks(paths) if mask_dir is None else ImagesAndMasks(tuple(paths), {})
    masks: dict[Path, tuple[Path, ...]] = {image: (mask,) for image, mask in content.masks.items()}
    if masks:
        use = "are used as their masks" if label and not mask_dir else "are ignored, because they look like masks"
        notes.append(
            f"{folder}: {len(masks)} files beside the images {use}, such as {next(iter(masks.values()))[0].name}."
        )
    if mask_dir is not None and (content.images or mask_dir.is_dir()):
        masks = match_masks(content.images, folder, existing_dir(mask_dir, f"masks of {defect!r}"))
    return [
        Sample(
            str(path),
            name_in(path, base),
            label,
            defect,
            tuple(map(str, masks.get(path, ()))) if label else (),
        )
        for path in content.images
    ]

"""`kind: mvtec`: MVTec AD, or another data set with the same layout.

    root/[category/]train/good/*.png
    root/[category/]test/good/*.png, test/<defect>/*.png
    root/[category/]ground_truth/<defect>/*_mask.png          (optional; pixel metrics need masks)

All image formats are read. Folders of normal images may have the name ok or normal too. Masks may lie beside their
images (000.png and 000_mask.png).
"""

from __future__ import annotations

from pathlib import Path

from harness.common.errors import DataError, unknown_name
from harness.common.paths import PathText
from harness.data.base import GOOD, DataOptions, Sample, SampleLists, existing_dir, is_normal
from harness.data.images import EXTENSIONS, list_images, subfolders
from harness.data.masks import ImagesAndMasks, match_masks, separate_masks


class MVTecData(DataOptions):
    """Options of `kind: mvtec`.

    `category` may be a name, a list, or left out: then every category found in `root`, or `root` itself where it
    has a `train` folder.

    Attributes:
        root: the folder with `train`, `test` and `ground_truth`, or with categories that have those.
    """

    root: PathText

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
        return load_tree(existing_dir(Path(self.root), "data.root"), category)


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
    train_dir, test_dir = base / "train", existing_dir(base / "test", "test images")
    names = _normal(train_dir) if train_dir.is_dir() else []
    if not names:
        existing_dir(train_dir / GOOD, "normal training images")
    notes: list[str] = []
    train = [s for name in names for s in _samples(train_dir / name, base, 0, GOOD, notes)]
    problems: list[str] = []
    test: list[Sample] = []
    truth = base / "ground_truth"
    for defect in subfolders(test_dir):
        try:
            if is_normal(defect):
                if defect != GOOD and (truth / defect).is_dir():
                    raise DataError(
                        f"{test_dir / defect}: a folder of normal images, by its name, has masks in {truth / defect}; "
                        "expected another name for a defect, or no masks."
                    )
                test += _samples(test_dir / defect, base, 0, GOOD, notes)
            else:
                test += _samples(test_dir / defect, base, 1, defect, notes, truth / defect if truth.is_dir() else None)
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    return SampleLists(base, tuple(train), tuple(test), tuple(notes))


def _normal(folder: Path) -> list[str]:
    """Names of its folders of normal images: good, as in MVTec AD, or a synonym."""
    return [name for name in subfolders(folder) if is_normal(name)]


def _samples(
    folder: Path, base: Path, label: int, defect: str, notes: list[str], mask_dir: Path | None = None
) -> list[Sample]:
    """The samples of one folder. Masks beside the images are used only without another folder of masks."""
    paths = list_images(folder, EXTENSIONS)
    # With another folder of masks, all files are images.
    content = separate_masks(paths) if mask_dir is None else ImagesAndMasks(tuple(paths), {})
    masks = dict(content.masks)
    if masks:
        use = "are used as their masks" if label and not mask_dir else "are ignored, because they look like masks"
        notes.append(
            f"{folder}: {len(masks)} files beside the images {use}, such as {next(iter(masks.values())).name}."
        )
    if mask_dir is not None and content.images:
        masks = match_masks(content.images, folder, existing_dir(mask_dir, f"masks of {defect!r}"))
    return [
        Sample(
            str(path),
            path.relative_to(base).as_posix(),
            label,
            defect,
            str(masks[path]) if path in masks and label else None,
        )
        for path in content.images
    ]

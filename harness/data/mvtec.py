"""`kind: mvtec`: the layout of MVTec AD, its own categories or a data set of that shape.

    root/[category/]train/good/*.png
    root/[category/]test/good/*.png, test/<defect>/*.png
    root/[category/]ground_truth/<defect>/*_mask.png          (optional: without it pixel metrics are blank)

Any image format is read, not only .png. Folders of normal parts may be called ok or normal too. Masks may lie beside
their images (000.png and 000_mask.png).
"""

from __future__ import annotations

from pathlib import Path

from harness.common.errors import DataError, unknown_name
from harness.common.paths import PathText
from harness.data.base import GOOD, DataOptions, Sample, SampleLists, existing_dir, is_normal
from harness.data.images import EXTENSIONS, list_images, subfolders
from harness.data.masks import Listed, apart, match_masks


class MVTecData(DataOptions):
    """Options of `kind: mvtec`.

    `category` may be a name, a list, or left out: then every category found in `root`, or `root` itself where it
    has a `train` folder.

    Attributes:
        root: the folder with `train`, `test` and `ground_truth`, or with categories that have those.
    """

    root: PathText

    def categories(self, work_dir: Path) -> list[str]:
        """See `DataOptions.categories`."""
        if self.category is not None:
            return super().categories(work_dir)
        return find_categories(existing_dir(Path(self.root), "data.root"))

    def load(self, category: str, work_dir: Path) -> SampleLists:
        """See `DataOptions.load`."""
        del work_dir
        return load_tree(existing_dir(Path(self.root), "data.root"), category)


def find_categories(root: Path) -> list[str]:
    """Categories in `root`: `[""]` if it is one itself."""
    if (root / "train").is_dir():
        return [""]
    found = [name for name in subfolders(root) if (root / name / "train").is_dir() and _normal(root / name / "train")]
    if not found:
        raise DataError(
            f"data.root: {root} has neither a folder 'train' nor categories with one; "
            f"expected train/{GOOD}, test/<state> and, for pixel metrics, ground_truth/<state>."
        )
    return found


def load_tree(root: Path, category: str) -> SampleLists:
    """List one category of a tree of MVTec AD's shape.

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
    for state in subfolders(test_dir):
        try:
            if is_normal(state):
                if state != GOOD and (truth / state).is_dir():
                    raise DataError(
                        f"{test_dir / state}: a folder of normal parts, by its name, with masks in {truth / state}; "
                        "expected another name for a defect, or no masks."
                    )
                test += _samples(test_dir / state, base, 0, GOOD, notes)
            else:
                test += _samples(test_dir / state, base, 1, state, notes, truth / state if truth.is_dir() else None)
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    return SampleLists(base, tuple(train), tuple(test), tuple(notes))


def _normal(folder: Path) -> list[str]:
    """Its folders of normal parts: good, as MVTec AD calls it, or what others do."""
    return [name for name in subfolders(folder) if is_normal(name)]


def _samples(
    folder: Path, base: Path, label: int, defect: str, notes: list[str], mask_dir: Path | None = None
) -> list[Sample]:
    """Images of one folder. Masks that lie beside them are used where there is no other folder for them."""
    found = list_images(folder, EXTENSIONS)
    # Where masks have a folder of their own, all that is here is images.
    listed = apart(found) if mask_dir is None else Listed(tuple(found), {})
    masks = dict(listed.masks)
    if masks:
        use = "are taken for their masks" if label and mask_dir is None else "are left out, since they look like masks"
        notes.append(
            f"{folder}: {len(masks)} files beside the images {use}, such as {next(iter(masks.values())).name}."
        )
    if mask_dir is not None and listed.images:
        masks = match_masks(listed.images, folder, existing_dir(mask_dir, f"masks of {defect!r}"))
    return [
        Sample(
            str(path),
            path.relative_to(base).as_posix(),
            label,
            defect,
            str(masks[path]) if path in masks and label else None,
        )
        for path in listed.images
    ]

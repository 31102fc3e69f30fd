"""`kind: mvtec`: the layout of MVTec AD, its own categories or a data set of that shape.

    root/[category/]train/good/*.png
    root/[category/]test/good/*.png, test/<defect>/*.png
    root/[category/]ground_truth/<defect>/*_mask.png          (optional: without it pixel metrics are blank)

Any image format is read, not only .png.
"""

from __future__ import annotations

from pathlib import Path

from harness.datasets.base import GOOD, DataOptions, Parts, Sample, existing_dir
from harness.datasets.masks import match_masks
from harness.errors import DataError, unknown_name
from harness.images import EXTENSIONS, list_images


class MVTecData(DataOptions):
    """Options of `kind: mvtec`.

    `category` may be a name, a list, or left out: then every category found in `root`, or `root` itself where it
    has a `train` folder.
    """

    root: str

    def categories(self, work_dir: Path) -> list[str]:
        """See `DataOptions.categories`."""
        if self.category is not None:
            return super().categories(work_dir)
        return find_categories(existing_dir(Path(self.root), "data.root"))

    def load(self, category: str, work_dir: Path) -> Parts:
        """See `DataOptions.load`."""
        del work_dir
        return load_tree(existing_dir(Path(self.root), "data.root"), category)


def find_categories(root: Path) -> list[str]:
    """Categories in `root`: `[""]` if it is one itself."""
    if (root / "train").is_dir():
        return [""]
    found = sorted(path.name for path in root.iterdir() if (path / "train" / GOOD).is_dir())
    if not found:
        raise DataError(
            f"data.root: {root} has neither a folder 'train' nor categories with one; "
            f"expected train/{GOOD}, test/<state> and, for pixel metrics, ground_truth/<state>."
        )
    return found


def load_tree(root: Path, category: str) -> Parts:
    """List one category of a tree of MVTec AD's shape.

    Raises:
        DataError: a folder is missing, or masks do not match their images.
    """
    base = root / category
    if category and not base.is_dir():
        raise DataError(f"data.category: {unknown_name('category', category, _folders(root))} Root: {root}.")
    train_dir = existing_dir(base / "train" / GOOD, "normal training images")
    test_dir = existing_dir(base / "test", "test images")
    train = tuple(_sample(path, base, 0, GOOD) for path in list_images(train_dir, EXTENSIONS))
    problems: list[str] = []
    test: list[Sample] = []
    truth = base / "ground_truth"
    for state in _folders(test_dir):
        images = list_images(test_dir / state, EXTENSIONS)
        if state == GOOD:
            test += [_sample(path, base, 0, GOOD) for path in images]
            continue
        masks: dict[Path, Path] = {}
        if truth.is_dir() and images:
            try:
                masks = match_masks(images, test_dir / state, existing_dir(truth / state, f"masks of {state!r}"))
            except DataError as error:
                problems += error.problems
        test += [_sample(path, base, 1, state, masks.get(path)) for path in images]
    if problems:
        raise DataError(problems)
    return Parts(base, train, tuple(test))


def _sample(path: Path, base: Path, label: int, defect: str, mask: Path | None = None) -> Sample:
    return Sample(str(path), path.relative_to(base).as_posix(), label, defect, str(mask) if mask else None)


def _folders(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))

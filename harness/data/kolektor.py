"""`kind: kolektor`: KolektorSDD (Tabernik et al., 2020) and KolektorSDD2 (Božič et al., 2021).

    root/kos01/Part0.jpg, Part0_label.bmp                 KolektorSDD: parts, without a split
    root/{train,test}/10000.png, 10000_GT.png             KolektorSDD2

Each image has a mask. An image is anomalous if its mask has a pixel that is not 0.

The archive of KolektorSDD2 holds copies of a few files, such as `10301 (copy).png` and `10301_GT (copy).png`. The
harness leaves a copy beside its original out.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import ClassVar

from pydantic import Field

from harness.common.errors import DataError
from harness.common.paths import PathText
from harness.data.base import DataOptions, existing_dir, listed
from harness.data.category_tree import folders_note
from harness.data.listing import list_images, name_in, subfolders
from harness.data.mask_images import read_mask
from harness.data.masks import separate_masks
from harness.data.samples import GOOD, Sample, SampleLists
from harness.data.test_share import without_split

PART, DEFECT = "kos", "defect"
SPLIT = ("train", "test")
SUFFIXES = ("_label", "_gt")
COPY = re.compile(r" \(([\w ]+ )?copy( \d+)?\)$")  # what file managers add to the name of a copy


class KolektorData(DataOptions):
    """Options of `kind: kolektor`.

    Attributes:
        root: the folder with `kos01`, or with `train` and `test`.
        test_split_ratio: of KolektorSDD, the share of the parts whose normal images are for the test.
    """

    folder_names: ClassVar[tuple[str, ...]] = SPLIT
    no_category: ClassVar[str] = "Kolektor has none; remove the key"

    root: PathText
    test_split_ratio: float = Field(default=0.2, ge=0, lt=1)

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether the folder has parts, or training and test images with masks beside them."""
        return bool(_parts(root)) or any(file.is_file() for file in (root / "train").glob("*_GT.png"))

    def load(self, category: str, work_dir: Path) -> SampleLists:
        """List the samples.

        Args:
            category, work_dir: see `DataOptions.load`.

        Raises:
            DataError: a folder or a mask is missing, or a mask can't be read.
        """
        del category, work_dir
        root = existing_dir(Path(self.root), "data.root")
        parts = _parts(root)
        notes = folders_note(root, parts or SPLIT, "because KolektorSDD and KolektorSDD2 have no such folder")
        if parts:
            samples = [sample for part in parts for sample in _samples(root / part, root, notes)]
            lists = without_split(root, samples, self.test_split_ratio, self.split_seed, _part)
            return replace(lists, notes=(*lists.notes, *notes))
        for name in SPLIT:
            if not (root / name).is_dir():
                raise DataError(
                    f"data.root: {root} has neither folders {PART}01, {PART}02 ... nor the folder {name!r}; expected "
                    "KolektorSDD or KolektorSDD2. Choose the folder with these folders."
                )
        train, test = (_samples(root / name, root, notes) for name in SPLIT)
        lists = SampleLists.without_training_defects(root, train, test, root / "train")
        return replace(lists, notes=(*lists.notes, *notes))


def _parts(root: Path) -> list[str]:
    return [name for name in subfolders(root) if name.startswith(PART) and name.removeprefix(PART).isdigit()]


def _part(sample: Sample) -> str:
    return PurePosixPath(sample.name).parts[0]


def _samples(folder: Path, root: Path, notes: list[str]) -> list[Sample]:
    paths = list_images(folder)
    # A copy without its original stays: it may be the only file of its image.
    known = set(paths)
    copies = [path for path in paths if COPY.search(path.stem) and path.with_stem(COPY.sub("", path.stem)) in known]
    if copies:
        notes.append(f"{folder}: copies of files left out: {listed([path.name for path in copies])}.")
    content = separate_masks([path for path in paths if path not in copies], SUFFIXES)
    missing = [str(path) for path in content.images if path not in content.masks]
    if missing:
        raise DataError(
            f"{folder}: no mask found for {listed(missing)}, and no image for a mask of this name; expected Part0.jpg "
            "with Part0_label.bmp, or 10000.png with 10000_GT.png. Restore or remove the file."
        )
    samples = []
    for path in content.images:
        mask = content.masks[path]
        label = int(read_mask(mask).any())
        name = name_in(path, root)
        samples.append(Sample(str(path), name, label, DEFECT if label else GOOD, (str(mask),) if label else ()))
    return samples

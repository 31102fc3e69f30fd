"""The samples of detection data, and their split into roles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

GOOD = "good"
# Names of folders with normal images; case is ignored.
NORMAL_NAMES = (GOOD, "ok", "normal")


class Saturation(NamedTuple):
    """The part of a defect that a detector must find, for AUsPRO (see `harness.metrics.spro`).

    Attributes:
        pixel_value: of the masks of this defect.
        threshold: an area in pixels of the image, or a share of the defect's area.
        relative: whether `threshold` is a share.
    """

    pixel_value: int
    threshold: float
    relative: bool


@dataclass(frozen=True)
class Sample:
    """One image.

    Attributes:
        path: absolute path.
        name: path relative to the data's root, with forward slashes; the key of an image in results.
        label: 0 normal, 1 anomalous.
        defect: type of defect; "good" for a normal image.
        masks: absolute paths of the ground-truth masks. A pixel is anomalous if it is anomalous in one of them.
        synthetic: whether the harness drew the defect, for `rank: synthetic`. No metric of the test counts the image.
        unlabelled: whether the label is unknown; `label` is then 0, and no metric counts the image.
        saturation: of the defects that the masks may show; empty for data without such a file.
    """

    path: str
    name: str
    label: int
    defect: str
    masks: tuple[str, ...] = ()
    synthetic: bool = False
    unlabelled: bool = False
    saturation: tuple[Saturation, ...] = ()


@dataclass(frozen=True)
class SampleLists:
    """The samples of a kind of data, before normal training images are held out.

    Attributes:
        root: sample names are relative to this folder.
        train: normal images for training.
        test: images for testing.
        notes: decisions that may surprise the user, one sentence each.
        folder: of the category, relative to the data's root; "" where `root` is the data's root.
        excluded: names of the images that `data.exclude` leaves out, relative to the data's root.
        val: normal validation images of the data set itself; then no training images are held out.
        unlabelled: images without a label, which runs predict and never evaluate.
    """

    root: Path
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    notes: tuple[str, ...] = ()
    folder: str = ""
    excluded: tuple[str, ...] = ()
    val: tuple[Sample, ...] = ()
    unlabelled: tuple[Sample, ...] = ()

    @classmethod
    def without_training_defects(cls, root: Path, train: Sequence[Sample], test: Sequence[Sample], where: Path) -> Self:
        """The samples of data whose training images may be anomalous; a note says how many the harness leaves out.

        Args:
            root: sample names are relative to this folder.
            train: all training images.
            test: images for testing.
            where: the folder of the training images, for the note.
        """
        normal = tuple(sample for sample in train if not sample.label)
        left_out = len(train) - len(normal)
        notes = (f"{where}: {left_out} anomalous training images are not used.",) * bool(left_out)
        return cls(root, normal, tuple(test), notes)

    @property
    def all_samples(self) -> tuple[Sample, ...]:
        """The samples of all roles."""
        return (*self.train, *self.val, *self.test, *self.unlabelled)


@dataclass(frozen=True)
class Split:
    """The same images in the same roles for every run on the same data.

    Attributes:
        kind: `data.kind`.
        category: name of the category, "" where the data has none.
        root: sample names are relative to this folder.
        train: normal images for training.
        val: normal images that fix the threshold: held-out training images, or the validation images of the data set.
            May be empty.
        test: images for testing, not used before. Unlabelled images and synthetic defects follow them.
        fingerprint: hash of names, roles, labels and file contents.
        test_fingerprint: the same hash of the test images alone; runs with equal hashes can be compared.
        held_out: share of held-out normal training images, and the seed of their selection.
        notes: warnings about the data for readers of the metrics, one sentence each.
        synthetic: True for toy data, which may use random weights.
        excluded: number of images that `data.exclude` leaves out.
        parts: of the split of all categories, those of each category; see `harness.data.unify`. Empty for one category.
        unified: of a category's split, number of the categories whose images train; 1 for its own images alone.
    """

    kind: str
    category: str
    root: Path
    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    test: tuple[Sample, ...]
    fingerprint: str
    synthetic: bool
    test_fingerprint: str = ""
    held_out: tuple[float, int] = (0.0, 0)
    notes: tuple[str, ...] = ()
    excluded: int = 0
    parts: tuple[Split, ...] = ()
    unified: int = 1

    @property
    def real_test(self) -> tuple[Sample, ...]:
        """The labelled test images of the data set, without synthetic defects."""
        return tuple(sample for sample in self.test if not sample.synthetic and not sample.unlabelled)

    @property
    def unlabelled(self) -> tuple[Sample, ...]:
        """The images without a label."""
        return tuple(sample for sample in self.test if sample.unlabelled)

    @property
    def has_masks(self) -> bool:
        """Whether a test image has a mask, so that pixel metrics are defined."""
        return any(sample.masks for sample in self.test)


def is_normal(name: str) -> bool:
    """Whether a folder of that name holds normal images."""
    return name.casefold() in NORMAL_NAMES

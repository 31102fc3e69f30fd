"""Samples and splits for classification, and the base class of all kinds of labelled data.

A label is `class-condition`, such as `bottle-broken_small`. A kind of data is a `LabelledOptions` subclass, and its
`load()` lists the samples. The checks, the folds and the fingerprints are the same for all kinds, see split.py.

In data files and attributes, the condition is named `state`, and the attribute of the class is `part`.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field, field_validator

from harness.data.base import BaseOptions

SEPARATOR = "-"
# Class and condition of a label.
LabelSpec = tuple[str, str]
# The fold of an image that is a training image in every fold.
ALWAYS_TRAINED = -1


@dataclass(frozen=True)
class LabelledSample:
    """One image.

    Attributes:
        path: absolute path.
        name: path relative to the data's root, with forward slashes; the key of an image in results.
        label: class and condition in one text; "" for an unknown label.
        part: the class, such as bottle.
        state: the condition, such as good.
        key: the key of the image in a submission; the name of the file without a column of keys.
        row: position in the table, from 0, with ignored rows included.
    """

    path: str
    name: str
    label: str = ""
    part: str = ""
    state: str = ""
    key: str = ""
    row: int = 0


@dataclass(frozen=True)
class LabelledSampleLists:
    """The samples of a kind of data, before folds are assigned.

    Attributes:
        root: sample names are relative to this folder.
        train: labelled images for training and validation.
        test: images to classify, with or without labels.
        notes: mismatches and their handling, one sentence each.
        sample_submission: a table with the format of a submission; None without a table.
        rows: number of rows in the table of training images, with ignored rows included.
    """

    root: Path
    train: tuple[LabelledSample, ...]
    test: tuple[LabelledSample, ...] = ()
    notes: tuple[str, ...] = ()
    sample_submission: Path | None = None
    rows: int = 0


@dataclass(frozen=True)
class LabelledSplit:
    """The same images in the same folds for every run on the same data.

    Attributes:
        kind, category, root: as in `harness.data.base.Split`; the category is always "".
        labels: all labels, sorted; probabilities have this order.
        label_specs: class and condition of each label.
        train: labelled images.
        folds: shape (train,), the validation fold of each image; `ALWAYS_TRAINED` for images without one.
        run_folds: folds of the run.
        test: images to classify.
        fingerprint: hash of names, labels, folds and file contents.
        test_fingerprint: hash of the validation images of `run_folds`; runs with equal hashes can be compared.
        synthetic: True for toy data.
        notes: see `LabelledSampleLists`.
        sample_submission: see `LabelledSampleLists`.
    """

    kind: str
    root: Path
    labels: tuple[str, ...]
    label_specs: tuple[LabelSpec, ...]
    train: tuple[LabelledSample, ...]
    folds: tuple[int, ...]
    run_folds: tuple[int, ...]
    test: tuple[LabelledSample, ...]
    fingerprint: str
    synthetic: bool
    test_fingerprint: str = ""
    notes: tuple[str, ...] = ()
    sample_submission: Path | None = None
    category: str = field(default="", init=False)

    def judged(self, fold: int) -> list[int]:
        """Positions in `train` of the validation images of a fold."""
        return [index for index, fold_ in enumerate(self.folds) if fold_ == fold]

    def learnt(self, fold: int) -> list[int]:
        """Positions in `train` of the training images of a fold."""
        return [index for index, fold_ in enumerate(self.folds) if fold_ != fold]


class LabelledOptions(BaseOptions):
    """The keys of `data:` that all kinds of labelled data share.

    Attributes:
        folds: the number of subsets, with equal shares of each label; or one share of each label that is held out
            once; or an .npy file with the fold of each row of the table.
        run_folds: the folds that run; by default all.
    """

    folds: int | float | str = 5
    run_folds: list[int] | None = Field(default=None, min_length=1)

    @field_validator("folds")
    @classmethod
    def _a_number_of_folds(cls, value: int | float | str) -> int | float | str:
        if isinstance(value, str):
            if not value.endswith(".npy"):
                raise ValueError(f"expected a number of folds, a share to hold out, or an .npy file; found {value!r}")
        elif isinstance(value, bool) or not (
            (isinstance(value, int) and value >= 2) or (isinstance(value, float) and 0 < value < 1)
        ):
            raise ValueError(f"expected 2 folds or more, or a share to hold out between 0 and 1; found {value!r}")
        return value

    @abstractmethod
    def load(self, work_dir: Path) -> LabelledSampleLists:
        """List the samples.

        Args:
            work_dir: the folder for data that the harness makes.

        Raises:
            DataError: a file is missing, or labels contradict each other.
        """


def split_label(label: str) -> LabelSpec:
    """Class and condition of a label: the text before and after the first separator."""
    class_, _, condition = label.partition(SEPARATOR)
    return class_, condition


def listed(names: list[str], limit: int = 3) -> str:
    """Text with the first names and the number of other names.

    Args:
        names: all names.
        limit: number of names in the text.
    """
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more

"""Samples and splits for classification, and the base class of all kinds of labelled data.

A label is `class-condition`, such as `bottle-broken_small`. A kind of data is a `LabelledOptions` subclass, and its
`load()` lists the samples. The checks, the folds and the fingerprints are the same for all kinds, see split.py.

In data files and attributes, the condition is named `state`, and the attribute of the class is `part`.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from harness.data.base import BaseOptions

SEPARATOR = "-"
# Class and condition of a label.
LabelSpec = tuple[str, str]
# The fold of an image that is a training image in every fold.
ALWAYS_TRAINED = -1
# Subsets of the images beside the folds, see `LabelledSplit.distribution`.
EVERY_FOLD, TEST = "trained in every fold", "test"
# A pattern of groups, for messages.
EXAMPLE = r"'(part\d+)_'"


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
        group: value of the column `data.group`; "" without such a column.
    """

    path: str
    name: str
    label: str = ""
    part: str = ""
    state: str = ""
    key: str = ""
    row: int = 0
    group: str = ""


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
        kind, category, root: as in `harness.data.samples.Split`; the category is always "".
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
        group: text of `data.group`; "" without groups.
        groups: shape (train,), the group of each image; empty without groups.
        excluded: number of images that `data.exclude` leaves out.
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
    group: str = ""
    groups: tuple[str, ...] = ()
    excluded: int = 0
    category: str = field(default="", init=False)

    def val_indices(self, fold: int) -> list[int]:
        """Positions in `train` of the validation images of a fold."""
        return [index for index, fold_ in enumerate(self.folds) if fold_ == fold]

    def train_indices(self, fold: int) -> list[int]:
        """Positions in `train` of the training images of a fold."""
        return [index for index, fold_ in enumerate(self.folds) if fold_ != fold]

    def distribution(self) -> dict[str, list[int]]:
        """Number of images of each label, in the order of `labels`.

        Returns:
            Subset -> numbers. The subsets are the validation images of each fold, the training images of every fold
            (where there are any), and the test images with a known label.
        """
        names = {fold: f"fold {fold}" for fold in sorted(set(self.folds) - {ALWAYS_TRAINED})}
        if ALWAYS_TRAINED in self.folds:
            names[ALWAYS_TRAINED] = EVERY_FOLD
        counts = Counter((names[fold], sample.label) for fold, sample in zip(self.folds, self.train, strict=True))
        counts += Counter((TEST, sample.label) for sample in self.test)
        return {name: [counts[name, label] for label in self.labels] for name in (*names.values(), TEST)}


class Group(BaseModel):
    """The group of an image, such as the part that it shows: a column, or a pattern.

    Attributes:
        column: column of the table with the group of each image.
        pattern: regular expression with one group in parentheses, searched in the path of each image within `root`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    column: str | None = Field(default=None, min_length=1)
    pattern: str | None = None

    @property
    def text(self) -> str:
        """For records and messages."""
        return f"pattern {self.pattern}" if self.column is None else f"column {self.column}"

    @field_validator("pattern")
    @classmethod
    def _one_group(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            groups = re.compile(value).groups
        except re.error as error:
            raise ValueError(
                f"{value!r} is no regular expression ({error}); expected one, such as {EXAMPLE}"
            ) from error
        if groups != 1:
            raise ValueError(
                f"{groups} groups in parentheses found in {value!r}; expected one, such as {EXAMPLE}. For other "
                "parentheses write (?: )"
            )
        return value

    @model_validator(mode="after")
    def _column_or_pattern(self) -> Group:
        if (self.column is None) == (self.pattern is None):
            which = "neither" if self.column is None else "both"
            raise ValueError(f"{which} of `column` and `pattern` found; expected one of them")
        return self


class LabelledOptions(BaseOptions):
    """The keys of `data:` that all kinds of labelled data share.

    Attributes:
        folds: the number of subsets, with equal shares of each label; or one share of each label that is held out
            once; or an .npy file with the fold of each row of the table, or with pairs of training and validation
            positions.
        run_folds: the folds that run; by default all.
        group: images of one group stay in one fold; a column of the table, or a mapping with `pattern`.
    """

    folds: int | float | str = 5
    run_folds: list[int] | None = Field(default=None, min_length=1)
    group: Group | None = None

    @field_validator("group", mode="before")
    @classmethod
    def _a_column_by_its_name(cls, value: object) -> object:
        if value is not None and not isinstance(value, str | dict | Group):
            raise ValueError(f"expected the name of a column, or a mapping with `pattern`; found {value!r}")
        return {"column": value} if isinstance(value, str) else value

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

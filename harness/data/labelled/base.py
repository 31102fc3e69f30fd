"""Images with a class and a state, for classification: samples, folds, and what the kinds of such data share.

A label is `class-state`, such as `bottle-broken_small`. A kind of data is a `LabelledOptions` subclass whose `load()`
lists what is there; checking, folds and fingerprints are the same for all, in labelled_split.py.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field, field_validator

from harness.data.base import BaseOptions

SEPARATOR = "-"
# Class and state of a label.
LabelSpec = tuple[str, str]
# The fold of an image that every network learns from and none is judged by.
ALWAYS_TRAINED = -1


@dataclass(frozen=True)
class LabelledSample:
    """One image.

    Attributes:
        path: absolute path.
        name: what results are joined by: the path relative to the data's root, with forward slashes.
        label: class and state in one; "" where it is not known.
        part: the class, such as bottle.
        state: of the part, such as good.
        key: what a submission calls it; the file's name unless a table says otherwise.
        row: where it stands in the table, from 0, rows that are left out counted.
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
    """What a kind of data finds, before folds are made.

    Attributes:
        root: the folder that names are relative to.
        train: images to learn from, labels known.
        test: images to be named; their labels may be known or not.
        notes: what does not match, and what was done about it, one sentence each.
        sample_submission: the table that a submission must look like, None where there is none.
        rows: of the table of training images, those that are left out too.
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
        kind, category, root: as in `harness.data.base.Split`; there are no categories.
        labels: all labels, sorted; probabilities are in this order.
        meanings: class and state of each label.
        train: images to learn from.
        folds: shape (train,): in which fold an image is judged; `ALWAYS_TRAINED` for those that never are.
        run_folds: the folds that are run.
        test: images to be named.
        fingerprint: hash of names, labels, folds and file contents.
        test_fingerprint: the same of what figures are about: runs with equal ones can be compared.
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
        """Positions in `train` of the images that a fold is judged by."""
        return [index for index, own in enumerate(self.folds) if own == fold]

    def learnt(self, fold: int) -> list[int]:
        """Positions in `train` of the images that a fold learns from."""
        return [index for index, own in enumerate(self.folds) if own != fold]


class LabelledOptions(BaseOptions):
    """The keys of `data:` that all labelled data shares.

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
            work_dir: where data that the harness makes itself is put.

        Raises:
            DataError: something is missing or contradicts itself.
        """


def split_label(label: str) -> LabelSpec:
    """Class and state of a label where nothing else says: before and after the first separator."""
    part, _, state = label.partition(SEPARATOR)
    return part, state


def listed(names: list[str], limit: int = 3) -> str:
    """The first few names, and how many there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more

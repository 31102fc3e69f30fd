"""Samples, splits, and what every kind of data for detection has in common.

A kind of data is a `DataOptions` subclass: its fields are the keys of the `data:` block, `load()` lists the samples.
Splitting, checking and fingerprinting are the same for all kinds and live in split.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from pydantic import BaseModel, ConfigDict, Field, field_validator

from harness.common.errors import DataError
from harness.data.images import MAX_PIXELS

GOOD = "good"
# What folders of normal parts are called; whatever their case.
NORMAL_NAMES = (GOOD, "ok", "normal")


@dataclass(frozen=True)
class Sample:
    """One image.

    Attributes:
        path: absolute path.
        name: path relative to the data's root, with forward slashes; what results are joined by.
        label: 0 normal, 1 anomalous.
        defect: type of defect, "good" for a normal part.
        mask: absolute path of the ground-truth mask; None where there is none.
    """

    path: str
    name: str
    label: int
    defect: str
    mask: str | None = None


class DataKinds(Protocol):
    """The kinds of data that a task can read."""

    def options(self, kind: str) -> type[BaseOptions]:
        """The class that holds the keys of `data:` of that kind.

        Raises:
            ConfigError: there is no such kind.
        """

    def kinds(self) -> Sequence[str]:
        """Names of the kinds of data, for messages."""


@dataclass(frozen=True)
class SampleLists:
    """What a kind of data finds on disk, before normal training images are held out.

    Attributes:
        root: the folder that sample names are relative to.
        train: normal images to learn from.
        test: images to judge by.
        notes: what was done differently from what a user may expect, one sentence each.
    """

    root: Path
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Split:
    """The same images in the same roles for every run on the same data.

    Attributes:
        kind: `data.kind`.
        category: name of the category, "" where the data has none.
        root: the folder that sample names are relative to.
        train: normal images to learn from.
        val: normal images held out of `train`, which fix the threshold; may be empty.
        test: images to judge by, never seen before.
        fingerprint: hash of names, roles, labels and file contents.
        test_fingerprint: the same of the test images alone: runs with equal ones can be compared.
        held_out: share of normal training images held out, and the seed that chose them.
        notes: what a reader of the figures must know of the data, one sentence each.
        synthetic: True for toy data, where random weights are an acceptable fallback.
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

    @property
    def has_masks(self) -> bool:
        """Whether pixel metrics are defined."""
        return any(sample.mask for sample in self.test)


class BaseOptions(BaseModel, ABC):
    """The keys of `data:` that every kind of every task shares.

    Attributes:
        kind: the kind of data.
        split_seed: fixes which images the harness holds out; the same for every run.
        train_batch_size: images in a training batch.
        eval_batch_size: images in a batch for scores.
        num_workers: processes that load images; 0 is the run's own process.
        max_pixels: of an image; the harness refuses larger ones before it decodes them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    # Toy data may fall back to random weights; real images never do.
    synthetic: ClassVar[bool] = False

    kind: str
    split_seed: int = Field(default=0, ge=0)
    train_batch_size: int = Field(default=32, ge=1)
    eval_batch_size: int = Field(default=32, ge=1)
    num_workers: int = Field(default=0, ge=0)
    max_pixels: int = Field(default=MAX_PIXELS, ge=1)

    def categories(self, work_dir: Path) -> list[str]:
        """The categories to run on, in order; `[""]` where the data has none."""
        del work_dir
        return [""]

    def made_by_harness(self, work_dir: Path) -> list[Path]:
        """Folders that `load()` writes because the data is the harness's own; none for data that is given."""
        del work_dir
        return []


class DataOptions(BaseOptions):
    """The keys of `data:` that every kind of data for detection shares.

    Attributes:
        category: one category or a list of them; by default all.
        val: the share of normal training images that the harness holds out to fix the threshold; 0 holds out none.
    """

    category: str | list[str] | None = None
    val: float = Field(default=0.1, ge=0, lt=1)

    @field_validator("category")
    @classmethod
    def _plain_names(cls, value: str | list[str] | None) -> str | list[str] | None:
        names = [value] if isinstance(value, str) else value or []
        for name in names:
            if not name or name in {".", ".."} or "/" in name or "\\" in name:
                raise ValueError(f"a category is the name of a folder in the root, not a path; found {name!r}")
        if isinstance(value, list) and len(set(value)) < len(value):
            raise ValueError(f"each category once; found {value}")
        if value == []:
            raise ValueError("an empty list; leave the key out for all categories")
        return value

    def categories(self, work_dir: Path) -> list[str]:
        """See `BaseOptions.categories`."""
        del work_dir
        return [self.category] if isinstance(self.category, str) else self.category or [""]

    @abstractmethod
    def load(self, category: str, work_dir: Path) -> SampleLists:
        """List the samples of one category.

        Args:
            category: one of `categories()`.
            work_dir: where data that the harness makes itself is put.

        Raises:
            DataError: something is missing or does not match.
        """


def is_normal(name: str) -> bool:
    """Whether a folder of that name holds normal parts."""
    return name.casefold() in NORMAL_NAMES


def existing_dir(path: Path, what: str) -> Path:
    """`path` as an absolute folder.

    Raises:
        DataError: it does not exist or is no folder.
    """
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing"
        raise DataError(f"{what}: {found} found at {path.absolute()}, a folder expected.")
    return path.absolute()

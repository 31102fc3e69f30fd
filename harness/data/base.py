"""The keys of the `data:` block: the base class of all kinds of data for detection.

A kind of data is a `DataOptions` subclass. Its fields are the keys of the `data:` block; `load()` lists the samples.
The checks, the split and the fingerprint are the same for all kinds, see split.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from harness.common.errors import DataError
from harness.common.paths import PathText
from harness.data.images import MAX_PIXELS
from harness.data.samples import SampleLists

HELD_OUT_SHARE = 0.1  # default of `data.val` where the method of the threshold needs held-out images


class DataKinds(Protocol):
    """The kinds of data that a task can read."""

    def options(self, kind: str) -> type[BaseOptions]:
        """The class of the options of a kind.

        Args:
            kind: the value of `data.kind`.

        Raises:
            ConfigError: the kind is unknown.
        """

    def kinds(self) -> Sequence[str]:
        """Names of all kinds of data, for messages."""


class BaseOptions(BaseModel, ABC):
    """The keys of `data:` that every kind of every task shares.

    Attributes:
        kind: the kind of data.
        split_seed: fixes which images the harness holds out; the same for every run.
        train_batch_size: images in a training batch.
        eval_batch_size: images in a batch for scores.
        num_workers: processes that load images; 0 is the run's own process.
        max_pixels: of an image; the harness refuses larger ones before it decodes them.
        exclude: images to leave out: paths or patterns relative to the data's root, or a file with one of them a line.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    # Toy data may use random weights without a request; real images may not.
    synthetic: ClassVar[bool] = False

    kind: str
    split_seed: int = Field(default=0, ge=0)
    train_batch_size: int = Field(default=32, ge=1)
    eval_batch_size: int = Field(default=32, ge=1)
    num_workers: int = Field(default=0, ge=0)
    max_pixels: int = Field(default=MAX_PIXELS, ge=1)
    exclude: PathText | list[str] | None = None

    @field_validator("exclude")
    @classmethod
    def _entries(cls, value: str | list[str] | None) -> str | list[str] | None:
        if value in ("", []) or (isinstance(value, list) and not all(entry.strip() for entry in value)):
            raise ValueError("found an empty text or list; expected paths or a file. Remove the key to keep all images")
        return value

    def categories(self, work_dir: Path) -> list[str]:
        """The categories of the sweep, in order; `[""]` for data without categories.

        Args:
            work_dir: the folder for data that the harness makes.
        """
        del work_dir
        return [""]

    def made_by_harness(self, work_dir: Path) -> list[Path]:
        """Folders that `load()` writes; empty for data of the user.

        Args:
            work_dir: the folder for data that the harness makes.
        """
        del work_dir
        return []


class DataOptions(BaseOptions):
    """The keys of `data:` that every kind of data for detection shares.

    Attributes:
        category: one category or a list of them; by default all.
        val: the share of normal training images that the harness holds out to fix the threshold; 0 holds out none. By
            default 0 with `threshold.method: cross_conformal`, and for data with validation images, otherwise 0.1.
        unify: whether each configuration also runs with one model for all categories, beside a model for each category.
    """

    # Whether the data set has validation images, which fix the threshold without a share of the training images.
    validated: ClassVar[bool] = False
    # Classes of anomalib that read the same data, for `import`.
    datamodules: ClassVar[tuple[str, ...]] = ()
    # Names of folders in the root and in a category, for hints on wrong names.
    folder_names: ClassVar[tuple[str, ...]] = ()
    # Why the data has no category, and what to do; empty for data with categories.
    no_category: ClassVar[str] = ""

    category: str | list[str] | None = None
    val: float | None = Field(default=None, ge=0, lt=1)
    unify: bool = False
    _detected: bool = PrivateAttr(default=False)

    @property
    def held_out_share(self) -> float:
        """The share of held-out images for a method that needs such images."""
        if self.validated:
            return 0.0
        return HELD_OUT_SHARE if self.val is None else self.val

    @model_validator(mode="after")
    def _one_source_of_validation(self) -> Self:
        if self.validated and self.val:
            raise ValueError(
                f"val: {self.val} found, but {self.kind} has its own validation images; expected no data.val. Remove it"
            )
        return self

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether a folder is data of this kind, by the names of folders and files. For `kind: auto`.

        Args:
            root: an existing folder.
        """
        del root
        return False

    @classmethod
    def keys_of(cls, root: Path) -> dict[str, Any]:
        """The keys that a recognised folder needs, beside `kind` and `root`.

        Args:
            root: a folder for which `recognises` is true.
        """
        del root
        return {}

    @property
    def detected(self) -> bool:
        """Whether the config has `kind: auto`, and the harness found the kind."""
        return self._detected

    def as_detected(self) -> Self:
        """The same options, marked as found by the harness."""
        options = self.model_copy()
        options._detected = True
        return options

    @field_validator("category")
    @classmethod
    def _plain_names(cls, value: str | list[str] | None) -> str | list[str] | None:
        names = [value] if isinstance(value, str) else value or []
        for name in names:
            if not name or name in {".", ".."} or "/" in name or "\\" in name:
                raise ValueError(f"found {name!r}; expected the name of a folder in the root, not a path")
        if isinstance(value, list) and len(set(value)) < len(value):
            raise ValueError(f"found {value}; expected each category once")
        if value == []:
            raise ValueError("found an empty list; remove the key to use all categories")
        if value is not None and cls.no_category:
            raise ValueError(f"found a category, but {cls.no_category}")
        return value

    def categories(self, work_dir: Path) -> list[str]:
        """The value of `category` as a list; `[""]` without a value, see `BaseOptions.categories`."""
        del work_dir
        return [self.category] if isinstance(self.category, str) else self.category or [""]

    @abstractmethod
    def load(self, category: str, work_dir: Path) -> SampleLists:
        """List the samples of one category.

        Args:
            category: one of `categories()`.
            work_dir: the folder for data that the harness makes.

        Raises:
            DataError: a file or folder is missing, or files do not match.
        """


def existing_dir(path: Path, key: str) -> Path:
    """The absolute path of an existing folder.

    Args:
        path: of the folder.
        key: the key of the config, or the role of the folder, for the message.

    Raises:
        DataError: the path does not exist or is no folder.
    """
    if not path.is_dir():
        obstacle = "a file" if path.exists() else "nothing"
        raise DataError(f"{key}: {obstacle} found at {path.absolute()}, a folder expected.")
    return path.absolute()


def joint_notes(by_place: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """The notes of several places, each once. A note that not all places have begins with its place.

    Args:
        by_place: name of the place, such as a category, and its notes; an empty name is never written.
    """
    counts = Counter(note for _, notes in by_place for note in dict.fromkeys(notes))
    everywhere = {note for note, count in counts.items() if count == len(by_place)}
    return list(
        dict.fromkeys(
            f"{place}: {note}" if place and note not in everywhere else note
            for place, notes in by_place
            for note in notes
        )
    )


def listed(names: list[str], limit: int = 3) -> str:
    """Text with the first names and the number of other names.

    Args:
        names: all names.
        limit: number of names in the text.
    """
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more

"""`data.exclude`: images that a data set leaves out, by path or pattern relative to the data's root."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from pathlib import Path
from typing import Protocol, TypeVar

from harness.common.errors import DataError, nearest
from harness.common.reading import read_text

COMMENT = "#"
WILDCARDS = re.compile(r"[*?\[]")
SHOWN = 5  # entries without an image that an error names


class NamedImage(Protocol):
    """An image of any task: `harness.data.samples.Sample` or a labelled sample."""

    @property
    def path(self) -> str:
        """The absolute path."""

    @property
    def name(self) -> str:
        """The path relative to the category's root, with forward slashes."""


AnySample = TypeVar("AnySample", bound=NamedImage)


@dataclass
class Exclusions:
    """The entries of `data.exclude`, and the images that they leave out.

    Attributes:
        entries: paths or patterns, with forward slashes. `*` also matches the slashes of folders below.
        source: the key or the file of the entries, for messages.
        excluded: names of the excluded images, in order.
    """

    entries: Sequence[str]
    source: str = "data.exclude"
    excluded: list[str] = field(default_factory=list)
    _names: list[str] = field(default_factory=list)
    _used: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, value: str | Sequence[str] | None) -> Exclusions:
        """Read the value of the key.

        Args:
            value: entries; or a file with one entry a line, where lines that begin with `#` are comments.

        Raises:
            DataError: the file is missing or can't be read.
        """
        if not isinstance(value, str):
            return cls([entry.removeprefix("./") for entry in value or ()])
        try:
            lines = (line.strip() for line in read_text(Path(value)).splitlines())
        except FileNotFoundError as error:
            raise DataError(
                f"data.exclude: no file found at {Path(value).absolute()}; expected a file with one path a line, or a "
                "list of paths. Correct the path."
            ) from error
        entries = [line.removeprefix("./") for line in lines if line and not line.startswith(COMMENT)]
        return cls(entries, f"data.exclude: {value}")

    def without(self, samples: Iterable[AnySample], folder: str = "") -> tuple[AnySample, ...]:
        """The samples that no entry names.

        Args:
            samples: of one category.
            folder: of the category, relative to the data's root; "" where sample names are relative to the root.
        """
        if not self.entries:
            return tuple(samples)
        plain = set(self.entries)
        patterns = [(entry, re.compile(translate(entry))) for entry in self.entries if WILDCARDS.search(entry)]
        kept = []
        for sample in samples:
            name = f"{folder}/{sample.name}" if folder else sample.name
            used = {name, sample.path} & plain
            used |= {entry for entry, pattern in patterns if pattern.match(name)}
            self._names.append(name)
            self._used |= used
            if used:
                self.excluded.append(name)
            else:
                kept.append(sample)
        return tuple(kept)

    def unused(self, root: Path, categories: Sequence[str] = ()) -> list[str]:
        """A sentence for each of the first entries without an image.

        Args:
            root: the data's root.
            categories: folders of the categories in use. An entry of another category's folder is no mistake.
        """
        missing = [entry for entry in self.entries if entry not in self._used]
        if categories:
            missing = [entry for entry in missing if not _of_other_category(entry, root, categories)]
        problems = [
            f"{self.source}: {entry!r} matches no image; expected a path or pattern relative to {root}."
            + self._hint(entry)
            for entry in missing[:SHOWN]
        ]
        if len(missing) > SHOWN:
            problems.append(
                f"{self.source}: {len(missing) - SHOWN} more entries match no image. Correct or remove them."
            )
        return problems

    def _hint(self, entry: str) -> str:
        near = nearest(entry, self._names)
        return f" Did you mean {' or '.join(near)}?" if near else " Correct or remove the entry."


def note_of(names: Sequence[str]) -> list[str]:
    """A sentence on excluded images for the record; empty without any.

    Args:
        names: of the excluded images.
    """
    if not names:
        return []
    images = "1 image is" if len(names) == 1 else f"{len(names)} images are"
    return [f"data.exclude: {images} left out, such as {names[0]}."]


def _of_other_category(entry: str, root: Path, categories: Sequence[str]) -> bool:
    first, _, rest = entry.partition("/")
    if not rest or WILDCARDS.search(first) or any(entry.startswith(f"{folder}/") for folder in categories):
        return False
    return (root / first).is_dir()

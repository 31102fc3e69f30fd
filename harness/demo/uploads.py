"""What was dropped on the page -> images, or a sentence on what is wrong with each."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from harness.common.errors import DataError
from harness.data.images import EXTENSIONS, Reading, from_bytes

LARGEST_FILE = 50  # MB; the page's own check
LARGEST_IMAGE = 50_000_000  # pixels
TYPES = [suffix.lstrip(".") for suffix in EXTENSIONS]


class Dropped(Protocol):
    """A file as Streamlit hands it over."""

    @property
    def name(self) -> str:
        """As the user's machine calls it."""

    def getvalue(self) -> bytes:
        """Its content."""


@dataclass(frozen=True)
class Upload:
    """An image that was dropped.

    Attributes:
        name: the file's, without anything that a path could be made of; differs from that of other uploads.
        content: the file.
        digest: of the content.
        reading: the image.
    """

    name: str
    content: bytes
    digest: str
    reading: Reading

    def write(self, folder: Path) -> None:
        """As a file."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / self.name).write_bytes(self.content)


def images_of(files: Iterable[Dropped], known: dict[str, Reading] | None = None) -> tuple[list[Upload], list[str]]:
    """Those that are images, each once, and a sentence for each that is not.

    Args:
        files: as dropped.
        known: images that were decoded before, by digest; brought up to date.
    """
    known = {} if known is None else known
    found: dict[str, Upload] = {}
    problems = []
    names: set[str] = set()
    for file in files:
        content = file.getvalue()
        digest = sha256(content).hexdigest()
        if digest in found:
            problems.append(f"{file.name}: the same image as {found[digest].name}; it is taken once.")
            continue
        try:
            reading = known.get(digest) or from_bytes(content, file.name, LARGEST_IMAGE)
        except DataError as error:
            problems += [f"{problem} It is left out." for problem in error.problems]
            continue
        found[digest] = Upload(_free_name(file.name, names), content, digest, reading)
    known.clear()
    known.update({digest: upload.reading for digest, upload in found.items()})
    return list(found.values()), problems


def _free_name(name: str, taken: set[str]) -> str:
    """A file name that is no path, and not taken, whatever the case."""
    path = Path(name.replace("\\", "/").rpartition("/")[2])
    suffix = path.suffix.lower() if path.suffix.lower() in EXTENSIONS else ".png"
    stem = re.sub(r"[^\w .+()-]+", "-", path.stem).strip(" .-")[:80] or "image"
    chosen, number = f"{stem}{suffix}", 1
    while chosen.lower() in taken:
        number += 1
        chosen = f"{stem}-{number}{suffix}"
    taken.add(chosen.lower())
    return chosen

"""Uploaded files -> images, or one sentence for each problem."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from harness.common.errors import DataError
from harness.data.images import Reading, from_bytes
from harness.data.listing import EXTENSIONS

LARGEST_FILE = 50  # MB; Streamlit checks this limit
LARGEST_IMAGE = 50_000_000  # pixels
TYPES = [suffix.lstrip(".") for suffix in EXTENSIONS]


class UploadedFile(Protocol):
    """An uploaded file of Streamlit."""

    @property
    def name(self) -> str:
        """The file's name on the user's machine."""

    def getvalue(self) -> bytes:
        """The file's content."""


@dataclass(frozen=True)
class Upload:
    """An uploaded image.

    Attributes:
        name: a safe file name without folders, different from the names of other uploads.
        content: the file's content.
        digest: SHA-256 of the content.
        reading: the image as read.
    """

    name: str
    content: bytes
    digest: str
    reading: Reading

    def write(self, folder: Path) -> None:
        """Write the file into a folder; the folder is created if missing."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / self.name).write_bytes(self.content)


def decode(files: Iterable[UploadedFile], cache: dict[str, Reading] | None = None) -> tuple[list[Upload], list[str]]:
    """Decode uploaded files.

    Args:
        files: the uploaded files.
        cache: decoded images by digest; this function updates the cache.

    Returns:
        The images, each once, and one sentence for each other file.
    """
    cache = {} if cache is None else cache
    uploads: dict[str, Upload] = {}
    problems = []
    names: set[str] = set()
    for file in files:
        content = file.getvalue()
        digest = sha256(content).hexdigest()
        if digest in uploads:
            problems.append(f"{file.name}: the same image as {uploads[digest].name}; it is taken once.")
            continue
        try:
            reading = cache.get(digest) or from_bytes(content, file.name, LARGEST_IMAGE)
        except DataError as error:
            problems += [f"{problem} It is left out." for problem in error.problems]
            continue
        uploads[digest] = Upload(_free_name(file.name, names), content, digest, reading)
    cache.clear()
    cache.update({digest: upload.reading for digest, upload in uploads.items()})
    return list(uploads.values()), problems


def _free_name(name: str, taken: set[str]) -> str:
    """A safe file name without folders that differs from all taken names, ignoring case."""
    path = Path(name.replace("\\", "/").rpartition("/")[2])
    suffix = path.suffix.lower() if path.suffix.lower() in EXTENSIONS else ".png"
    stem = re.sub(r"[^\w .+()-]+", "-", path.stem).strip(" .-")[:80] or "image"
    free_name, number = f"{stem}{suffix}", 1
    while free_name.lower() in taken:
        number += 1
        free_name = f"{stem}-{number}{suffix}"
    taken.add(free_name.lower())
    return free_name

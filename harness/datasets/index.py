"""What is known of the files of a data set: each is decoded and hashed once, before any training.

So a damaged file stops a sweep at its first second and not at its last run. What was learnt is kept beside the
results and believed as long as a file's length and modification time stay.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

from harness.datasets.base import Sample
from harness.errors import DataError
from harness.images import probe, read_image
from harness.store import write_atomic

Facts = tuple[int, int, str, int, int]  # bytes, mtime in ns, sha256, height, width
Progress = Callable[[int, int], None]


class FileIndex:
    """Hash and size of every file.

    Args:
        file: JSON file in which they are kept between calls; may not exist.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._facts: dict[str, Facts] = {}
        if file.is_file():
            try:
                self._facts = {path: tuple(facts) for path, facts in json.loads(file.read_text()).items()}
            except (ValueError, AttributeError, TypeError):
                # Only a cache: made anew from the files.
                self._facts = {}

    def look_at(self, images: set[str], masks: set[str], progress: Progress | None) -> list[str]:
        """Read what is not known yet; gives one sentence for each file that can't be used."""
        stale = [file for file in sorted(images | masks) if not self._known(file)]
        problems: list[str] = []
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            for done, (file, result) in enumerate(
                zip(stale, pool.map(lambda file: _examine(file, file in images), stale), strict=True), 1
            ):
                if isinstance(result, str):
                    problems.append(result)
                else:
                    self._facts[file] = result
                if progress is not None:
                    progress(done, len(stale))
        return problems

    def save(self) -> None:
        """Keep what was learnt for the next call."""
        write_atomic(self._file, json.dumps(self._facts))

    def _known(self, file: str) -> bool:
        try:
            stat = Path(file).stat()
        except OSError:
            return False
        return self._facts.get(file, ())[:2] == (stat.st_size, stat.st_mtime_ns)

    def hash_of(self, file: str) -> str:
        """sha256 of a file that was looked at."""
        return self._facts[file][2]

    def mask_sizes(self, samples: Iterable[Sample]) -> list[str]:
        """One sentence for each mask whose size is not its image's."""
        problems = []
        for s in samples:
            if not s.mask or s.mask not in self._facts or s.path not in self._facts:
                continue
            image, mask = self._facts[s.path][3:], self._facts[s.mask][3:]
            if image != mask:
                problems.append(
                    f"{s.mask}: {mask[1]} x {mask[0]} pixels found, {image[1]} x {image[0]} expected, "
                    f"the size of its image {s.name}."
                )
        return problems


def _examine(file: str, is_image: bool) -> Facts | str:
    """Facts of one file, or a sentence on what is wrong with it."""
    path = Path(file)
    try:
        stat = path.stat()
        digest = sha256(path.read_bytes()).hexdigest()
        # Images are read as models will see them, so that values out of range are found too.
        height, width = read_image(path).shape[:2] if is_image else probe(path)
    except DataError as error:
        return error.problems[0]
    except OSError as error:
        return f"{path}: can't be read ({error.strerror})."
    return (stat.st_size, stat.st_mtime_ns, digest, height, width)

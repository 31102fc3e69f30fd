"""What is known of the files of a data set: each is decoded and hashed once, before any training.

So a damaged file stops a sweep at its first second and not at its last run. What was learnt is kept beside the
results and believed as long as a file's length and modification time stay.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from pydantic import RootModel

from harness.common.errors import DataError, ImageTooLargeError, StoreError
from harness.common.files import write_atomic
from harness.common.reading import MB, read_json
from harness.data.base import Sample
from harness.data.images import MAX_PIXELS, mask_reading, pixels_of, read

Progress = Callable[[int, int], None]
LARGE = 20_000_000  # pixels; such files are read one at a time, so that memory does not grow with the processors
MOST = 0.5  # of an image that can be anomalous before its mask is doubted


class Facts(NamedTuple):
    """What is known of a file."""

    size: int
    changed: int
    sha256: str
    height: int
    width: int
    grey: bool = False
    share: float = 0.0
    otherwise: bool = False


class _Index(RootModel[dict[str, Facts]]):
    """What the file of an index holds."""


class FileIndex:
    """Hash and size of every file.

    Args:
        file: JSON file in which they are kept between calls; may not exist.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._facts: dict[str, Facts] = {}
        try:
            found = _Index.model_validate(read_json(file, _Index, 1024 * MB)).root
        except (FileNotFoundError, StoreError):
            # Only a cache: made anew from the files.
            return
        self._facts = found

    def look_at(
        self, images: set[str], masks: set[str], progress: Progress | None, max_pixels: int = MAX_PIXELS
    ) -> list[str]:
        """Read what is not known yet; gives one sentence for each file that can't be used.

        Args:
            images: paths.
            masks: paths.
            progress: called with (files done, files in all).
            max_pixels: that a file may have.
        """
        stale = [file for file in sorted(images | masks) if not self._known(file, file in masks, max_pixels)]
        problems: list[str] = []
        examine = partial(_examine, images, max_pixels, Lock())
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            for done, (file, result) in enumerate(zip(stale, pool.map(examine, stale), strict=True), 1):
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

    def _known(self, file: str, is_mask: bool, max_pixels: int) -> bool:
        try:
            stat = Path(file).stat()
        except OSError:
            return False
        facts = self._facts.get(file)
        if facts is None or (facts.size, facts.changed) != (stat.st_size, stat.st_mtime_ns):
            return False
        # Version 0.1 kept nothing of what is in a mask; of an image there is no more to know.
        return facts.height * facts.width <= max_pixels and (not is_mask or facts.share > 0)

    def hash_of(self, file: str) -> str:
        """sha256 of a file that was looked at."""
        return self._facts[file].sha256

    def is_read_otherwise(self, mask: str) -> bool:
        """Whether version 0.1 read a mask as another one."""
        return self._facts[mask].otherwise

    def mask_sizes(self, samples: Iterable[Sample]) -> list[str]:
        """One sentence for each mask whose size is not its image's."""
        problems = []
        for s in samples:
            if not s.mask or s.mask not in self._facts or s.path not in self._facts:
                continue
            image, mask = self._facts[s.path], self._facts[s.mask]
            if (image.height, image.width) != (mask.height, mask.width):
                problems.append(
                    f"{s.mask}: {mask.width} x {mask.height} pixels found, {image.width} x {image.height} expected, "
                    f"the size of its image {s.name}."
                )
        return problems

    def doubts(self, samples: Sequence[Sample]) -> list[str]:
        """What to know of the masks of a data set, one sentence each."""
        masks = {s.mask: self._facts[s.mask] for s in samples if s.mask and s.mask in self._facts}
        found = []
        if grey := [mask for mask, facts in masks.items() if facts.grey]:
            found.append(
                f"{len(grey)} of {len(masks)} masks have grey values, such as {grey[0]}: JPEG, or smoothed edges. "
                "Every pixel that is not 0 counts as anomalous."
            )
        if most := [mask for mask, facts in masks.items() if facts.share > MOST]:
            found.append(
                f"{len(most)} of {len(masks)} masks call most of the image anomalous, such as {most[0]}: are they "
                "inverted? Expected 0 where the part is normal."
            )
        return found


def _examine(images: set[str], max_pixels: int, one_at_a_time: Lock, file: str) -> Facts | str:
    """Facts of one file, or a sentence on what is wrong with it."""
    path = Path(file)
    try:
        stat = path.stat()
        digest = sha256()
        with path.open("rb") as stream:
            while block := stream.read(MB):
                digest.update(block)
        with one_at_a_time if pixels_of(path) > LARGE else nullcontext():
            return _decoded(
                Facts(stat.st_size, stat.st_mtime_ns, digest.hexdigest(), 0, 0), path, file in images, max_pixels
            )
    except ImageTooLargeError as error:
        return f"{error.problems[0]} A larger data.max_pixels takes it, with up to 16 bytes of memory a pixel."
    except DataError as error:
        return error.problems[0]
    except OSError as error:
        return f"{path}: can't be read ({error.strerror})."


def _decoded(facts: Facts, path: Path, is_image: bool, max_pixels: int) -> Facts:
    """With what is in a file; images are read as models will see them, so that values out of range are found too."""
    if is_image:
        height, width = read(path, max_pixels).pixels.shape[:2]
        return facts._replace(height=height, width=width)
    mask = mask_reading(path, max_pixels)
    height, width = mask.pixels.shape
    # Never 0, which stands for not known.
    share = max(float(mask.pixels.mean()), 1e-9)
    return facts._replace(height=height, width=width, grey=mask.grey, share=share, otherwise=mask.otherwise)

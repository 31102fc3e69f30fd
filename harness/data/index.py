"""An index of the files of a data set: every file is decoded and hashed once, before any training.

A damaged file stops a sweep before its first run. The index is saved beside the results. Facts about a file are valid
while its size and its modification time stay the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from pydantic import RootModel, ValidationError

from harness.common import threads
from harness.common.errors import DataError, ImageTooLargeError, StoreError
from harness.common.files import write_atomic
from harness.common.reading import MB, read_json
from harness.data.images import MAX_PIXELS, is_large, read
from harness.data.mask_images import mask_reading
from harness.data.samples import Sample

Progress = Callable[[int, int], None]
LARGEST_GROUP, GROUPS_OF_A_THREAD = 32, 8  # files in a group; least number of groups, so that the threads end together
MAX_SHARE = 0.5  # of anomalous pixels, above which a mask may be inverted


class Facts(NamedTuple):
    """Facts about a file.

    Attributes:
        size: bytes.
        changed: modification time in nanoseconds.
        sha256: of the content.
        height, width: of the image or mask in pixels.
        grey: whether a mask has grey values.
        share: of anomalous pixels in a mask; 0 for an image.
        differs_from_v01: whether version 0.1 read a mask differently.
        value: the only value of a grey mask that is not 0; 0 for another mask.
    """

    size: int
    changed: int
    sha256: str
    height: int
    width: int
    grey: bool = False
    share: float = 0.0
    differs_from_v01: bool = False
    value: int = 0


class _Index(RootModel[dict[str, Facts]]):
    """Schema of the file of an index: facts by path."""


class FileIndex:
    """Facts about every image and mask, by path.

    Args:
        file: JSON file that keeps the facts between sweeps; may be missing.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._facts: dict[str, Facts] = {}
        try:
            self._facts = _Index.model_validate(read_json(file, limit=1024 * MB)).root
        except (FileNotFoundError, StoreError, ValidationError):
            # The index is a cache, and the files are read again.
            return

    def update(
        self, images: set[str], masks: set[str], progress: Progress | None, max_pixels: int = MAX_PIXELS
    ) -> list[str]:
        """Read all files without valid facts.

        Args:
            images: paths of images.
            masks: paths of masks.
            progress: called with (number of read files, number of files to read).
            max_pixels: largest allowed number of pixels of a file.

        Returns:
            One sentence for each unusable file.
        """
        outdated = [file for file in sorted(images | masks) if not self._is_valid(file, file in masks, max_pixels)]
        problems: list[str] = []
        read_facts = partial(_facts_or_problem, images, max_pixels, Lock())
        for count, (file, result) in enumerate(zip(outdated, _in_threads(read_facts, outdated), strict=True), 1):
            if isinstance(result, str):
                problems.append(result)
            else:
                self._facts[file] = result
            if progress is not None:
                progress(count, len(outdated))
        return problems

    def save(self) -> None:
        """Write the index for the next sweep.

        Raises:
            StoreError: the file can't be written.
        """
        write_atomic(self._file, json.dumps(self._facts))

    def _is_valid(self, file: str, is_mask: bool, max_pixels: int) -> bool:
        try:
            stat = os.stat(file)  # noqa: PTH116  # a `Path` takes longer than the call
        except OSError:
            return False
        facts = self._facts.get(file)
        if facts is None or (facts.size, facts.changed) != (stat.st_size, stat.st_mtime_ns):
            return False
        # Version 0.1 saved no facts about the content of a mask.
        return facts.height * facts.width <= max_pixels and (not is_mask or facts.share > 0)

    def hash_of(self, file: str) -> str:
        """sha256 of a file in the index."""
        return self._facts[file].sha256

    def differs_from_v01(self, mask: str) -> bool:
        """Whether version 0.1 read a mask differently."""
        return self._facts[mask].differs_from_v01

    def mask_sizes(self, samples: Iterable[Sample]) -> list[str]:
        """One sentence for each mask with another size than its image."""
        problems = []
        for s in samples:
            for file in s.masks:
                if file not in self._facts or s.path not in self._facts:
                    continue
                image, mask = self._facts[s.path], self._facts[file]
                if (image.height, image.width) != (mask.height, mask.width):
                    problems.append(
                        f"{file}: {mask.width} x {mask.height} pixels found, {image.width} x {image.height} expected, "
                        f"the size of its image {s.name}."
                    )
        return problems

    def unknown_defects(self, samples: Iterable[Sample]) -> list[str]:
        """One sentence for each mask whose value is no defect of the data set, for data with `Sample.saturation`."""
        problems = []
        for sample in samples:
            values = sorted(one.pixel_value for one in sample.saturation)
            for mask in sample.masks if values else ():
                if mask in self._facts and self._facts[mask].value not in values:
                    value = self._facts[mask].value or "several values or colours"
                    problems.append(
                        f"{mask}: pixel value {value} found; expected one of {', '.join(map(str, values))}, the "
                        "defects of defects_config.json. Correct the mask or the file."
                    )
        return problems

    def mask_warnings(self, samples: Sequence[Sample]) -> list[str]:
        """Warnings about the masks of a data set, one sentence each."""
        masks = {mask: self._facts[mask] for s in samples for mask in s.masks if mask in self._facts}
        warnings = []
        if grey := [mask for mask, facts in masks.items() if facts.grey]:
            warnings.append(
                f"{len(grey)} of {len(masks)} masks have grey values, such as {grey[0]}: JPEG, or smoothed edges. "
                "By default every pixel that is not 0 is anomalous (protocol.mask)."
            )
        if large := [mask for mask, facts in masks.items() if facts.share > MAX_SHARE]:
            warnings.append(
                f"{len(large)} of {len(masks)} masks call most of the image anomalous, such as {large[0]}: are they "
                "inverted? Expected 0 for normal pixels."
            )
        return warnings


def _in_threads(read_facts: Callable[[str], Facts | str], files: Sequence[str]) -> Iterator[Facts | str]:
    """The results of a function in the order of the files.

    A thread takes several files at once: the exchange between threads takes as long as reading a small file.
    """
    count = threads.count()
    size = max(1, min(LARGEST_GROUP, len(files) // (GROUPS_OF_A_THREAD * count)))
    groups = [files[start : start + size] for start in range(0, len(files), size)]
    with ThreadPoolExecutor(count) as pool:
        for results in pool.map(lambda group: [read_facts(file) for file in group], groups):
            yield from results


def _facts_or_problem(images: set[str], max_pixels: int, lock: Lock, file: str) -> Facts | str:
    """Facts about one file, or one sentence about its problem."""
    path = Path(file)
    try:
        stat = path.stat()
        digest = sha256()
        with path.open("rb") as stream:
            while block := stream.read(MB):
                digest.update(block)
        with lock if is_large(path) else nullcontext():
            return _with_content(
                Facts(stat.st_size, stat.st_mtime_ns, digest.hexdigest(), 0, 0), path, file in images, max_pixels
            )
    except ImageTooLargeError as error:
        return f"{error.problems[0]} A larger data.max_pixels allows it, with up to 16 bytes of memory for each pixel."
    except DataError as error:
        return error.problems[0]
    except OSError as error:
        return f"{path}: can't be read ({error.strerror})."


def _with_content(facts: Facts, path: Path, is_image: bool, max_pixels: int) -> Facts:
    """The facts with the content of a file. Images are converted as for a model, so that all problems are found."""
    if is_image:
        height, width = read(path, max_pixels).pixels.shape[:2]
        return facts._replace(height=height, width=width)
    mask = mask_reading(path, max_pixels)
    height, width = mask.pixels.shape
    # A share of 0 stands for an unknown share.
    share = max(float(mask.pixels.mean()), 1e-9)
    return Facts(*facts[:3], height, width, mask.grey, share, mask.differs_from_v01, mask.value)
